"""What lies in a base's folder is data: nothing of it runs unless asked for, hangs or ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
from safetensors.torch import load_file
from spoiled import IN_FLOAT32, Trap, change, load_all, refused
from transformers import AutoModelForCausalLM

from socratic_mlflow.config import ModelConfig
from socratic_mlflow.model import base_revision, load_base


@pytest.fixture
def base(bases, tmp_path):
    """A copy of the tiny Gemma-2 to spoil."""
    return shutil.copytree(bases["gemma"], tmp_path / "base")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl"])
def test_a_base_with_pickled_weights_only_is_refused_with_the_way_out(base, name):
    torch.save(load_file(base / "model.safetensors"), base / name)
    (base / "model.safetensors").unlink()
    text = refused(
        lambda: load_all(base), f"cannot load base_model '{base}'", f"only '{name}'", "save_pretrained(NEW_FOLDER)"
    )
    assert "choose a revision with safetensors" in text
    refused(lambda: load_base(ModelConfig(base_model=str(base)), IN_FLOAT32), name)


def test_a_pickle_beside_safetensors_is_not_read(base, tmp_path):
    torch.save(Trap(tmp_path / "ran"), base / "pytorch_model.bin")
    load_all(base)
    assert not (tmp_path / "ran").exists()


def test_the_way_out_leads_out(base, tmp_path):
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(base, weights_only=True).save_pretrained(tmp_path / "converted")
    load_base(ModelConfig(base_model=str(tmp_path / "converted")), IN_FLOAT32)


@pytest.mark.parametrize("name", ["adapter_model.bin", "../base/model.safetensors", 7, ["model.safetensors"]])
def test_a_configuration_that_names_other_weights_is_refused(base, name, tmp_path):
    torch.save(Trap(tmp_path / "ran"), base / "adapter_model.bin")
    change(base / "config.json", transformers_weights=name)
    refused(lambda: load_all(base), "config.json: names ", "which is no safetensors file beside it")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("weight_map", [{"a": "pytorch_model.bin"}, {"a": "../model.safetensors"}, {"a": 1}, None, []])
def test_an_index_that_names_other_weights_is_refused(base, weight_map):
    (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    refused(lambda: load_all(base), "index.json: names ", "as weights")


def test_a_base_in_several_files_loads(base):
    tiny.model("gemma", vocab_size=400).save_pretrained(base, max_shard_size="50KB")
    (base / "model.safetensors").unlink()
    assert (base / "model.safetensors.index.json").is_file()
    load_all(base)


def test_an_adapter_is_no_base(untrained_adapter, base):
    adapter = untrained_adapter
    refused(lambda: load_all(adapter), "is an adapter, no base; give the base that it was trained on")
    shutil.copy(adapter / "adapter_config.json", base)
    refused(lambda: load_all(base), "is an adapter, no base")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '"x"', "[" * 100000, "1" * 5000, '{"model_type": "gemma2", "hidden_size": "wide"}', "\x00"],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_broken_base_is_one_line(base, name, text):
    (base / name).write_text(text)
    try:
        load_all(base)
    except ValueError as error:
        assert str(error).startswith(f"cannot load base_model '{base}': ")
        assert len(str(error).splitlines()) == 1
    else:
        assert name == "tokenizer_config.json"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors", "chat_template.jinja"])
def test_a_pipe_in_a_base_keeps_nobody_waiting(base, name):
    (base / name).unlink(missing_ok=True)
    os.mkfifo(base / name)
    assert len(base_revision(ModelConfig(base_model=str(base)))) == 64
    if name.startswith(("config", "model")):
        refused(lambda: load_all(base), "cannot load base_model")
    else:
        load_all(base)


# Run apart, with a terminal's questions answered by 'yes': a prompt would run the code.
OWN_CODE = """
import sys
from socratic_mlflow.config import ModelConfig, QuantizationConfig
from socratic_mlflow.model import load_base, load_tokenizer
model = ModelConfig(base_model=sys.argv[1], trust_remote_code=sys.argv[2] == "True")
for act in (load_tokenizer, lambda model: load_base(model, QuantizationConfig(False, bnb_4bit_compute_dtype="float32"))):
    try:
        act(model)
        print("loaded")
    except ValueError as error:
        print(error)
"""
PLANTED = """
from pathlib import Path
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast
Path(r"{marker}").touch()
class Planted(Gemma2Config):
    model_type = "planted"
class PlantedModel(Gemma2ForCausalLM):
    config_class = Planted
class PlantedTokenizer(PreTrainedTokenizerFast):
    pass
"""


def with_own_code(base, marker, model_type):
    """Plant Python code in `base` that makes the file `marker` when it is imported."""
    (base / "planted.py").write_text(PLANTED.format(marker=marker))
    named = {"AutoConfig": "planted.Planted", "AutoModelForCausalLM": "planted.PlantedModel"}
    change(base / "config.json", auto_map=named, model_type=model_type)
    tokenizer = {"AutoTokenizer": ["planted.PlantedTokenizer", "planted.PlantedTokenizer"]}
    change(base / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="PlantedTokenizer")


def loaded_apart(base, trusted):
    done = subprocess.run(
        [sys.executable, "-c", OWN_CODE, str(base), str(trusted)],
        input="y\ny\ny\ny\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"HF_HOME": str(base.parent / "home"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("model_type", ["planted", "gemma2"])
def test_code_in_a_base_does_not_run_unless_asked_for(base, tmp_path, model_type):
    marker = tmp_path / "ran"
    with_own_code(base, marker, model_type)
    lines = loaded_apart(base, trusted=False)
    assert len(lines) == 2
    assert not marker.exists()
    if model_type == "planted":
        for line in lines:
            assert "which does not run unless it is asked for" in line
            assert "give trust_remote_code=true" in line
        assert loaded_apart(base, trusted=True) == ["loaded", "loaded"]
        assert marker.exists()
