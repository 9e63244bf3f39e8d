"""What lies in an adapter's folder and beside it is data: nothing of it runs, hangs or ends in a traceback."""

from __future__ import annotations

import os
import shutil

import pytest
import tiny
import torch
import yaml
from spoiled import Trap, change, load_all, refused

from socratic_mlflow import named_model
from socratic_mlflow.model import load_adapter
from socratic_mlflow.named_model import load
from socratic_mlflow.options import build_config, read_yaml


@pytest.fixture
def adapter(untrained_adapter, tmp_path):
    """A copy of an adapter folder to spoil, in an output folder of its own."""
    return shutil.copytree(untrained_adapter, tmp_path / "out" / "best_adapter")


@pytest.fixture(scope="module")
def plain_base(training_inputs):
    return training_inputs / "base"


def test_a_plain_adapter_loads(adapter, plain_base):
    change(adapter / "adapter_config.json", field_of_a_later_peft={"x": 1}, use_rslora=True, auto_mapping=None)
    loaded = load_adapter(load_all(plain_base)[1], str(adapter))
    assert any("lora_A" in name for name, _ in loaded.named_parameters())


def test_a_pickled_adapter_is_refused_with_the_way_out(adapter, plain_base, tmp_path):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(Trap(tmp_path / "ran"), adapter / "adapter_model.bin")
    act = load_all(plain_base)[1]
    refused(
        lambda: load_adapter(act, str(adapter)), "holds no adapter_model.safetensors but adapter_model.bin", "NEW_FOLDER"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("megatron_config", {"tensor_model_parallel_size": 1}),
        ("megatron_core", "planted"),
        ("auto_mapping", {"base_model_class": "PlantedModel", "parent_library": "planted"}),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", None),
        ("peft_type", ["LORA"]),
        ("task_type", "SEQ_CLS"),
        ("task_type", {}),
        ("r", 0),
        ("r", 10**9),
        ("r", "16"),
        ("r", True),
        ("r", 1.5),
        ("lora_alpha", float("nan")),
        ("lora_alpha", [1]),
        ("lora_dropout", 2),
        ("bias", "some"),
        ("target_modules", "(a+)+$"),
        ("target_modules", ["(a+)+$"]),
        ("target_modules", [1]),
        ("target_modules", {"a": 1}),
        ("modules_to_save", "lm_head"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", "pissa_niter_1000000"),
        ("layers_to_transform", ["0"]),
        ("layers_pattern", "(a+)+"),
        ("rank_pattern", {"(a+)+$": 8}),
        ("alpha_pattern", {"q_proj": "8"}),
        ("loftq_config", {"loftq_bits": 4}),
        ("eva_config", {"rho": 2}),
        ("corda_config", {"cache_file": "planted.pt"}),
        ("lora_ga_config", {"cache_file": "planted.pt"}),
        ("layer_replication", [[0, 10**6]]),
        ("target_parameters", ["a"]),
        ("trainable_token_indices", [1]),
        ("alora_invocation_tokens", [1]),
        ("monteclora_config", {"use_entropy": True}),
        ("use_dora", "yes"),
        ("base_model_name_or_path", 7),
        ("base_model_name_or_path", "two\nlines"),
        ("inference_mode", 0),
    ],
)
def test_an_adapter_that_is_more_than_plain_lora_is_refused_by_the_field(adapter, plain_base, field, value):
    change(adapter / "adapter_config.json", **{field: value})
    refused(lambda: load_adapter(load_all(plain_base)[1], str(adapter)), f"adapter_config.json: {field} is ")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100000, "1" * 5000, "\x00", '{"r": ' + "[" * 100000, "é"])
def test_a_broken_adapter_configuration_is_one_line(adapter, plain_base, text):
    (adapter / "adapter_config.json").write_bytes(text.encode("latin-1"))
    refused(lambda: load_adapter(load_all(plain_base)[1], str(adapter)), "adapter_config.json: ")
    refused(lambda: load(str(adapter), {}), "adapter_config.json: ")


@pytest.mark.parametrize("keep", [0, 5, 100, 2000])
def test_broken_adapter_weights_are_one_line(adapter, plain_base, keep):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(lambda: load_adapter(load_all(plain_base)[1], str(adapter)), "adapter_model.safetensors: cannot be read")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_in_an_adapter_keeps_nobody_waiting(adapter, plain_base, name):
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    refused(lambda: load_adapter(load_all(plain_base)[1], str(adapter)), name)


# The configuration beside an adapter, and the one given to a training


def beside(adapter, text):
    file = adapter.parent / "config.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return file


def test_trust_in_a_base_does_not_come_with_an_adapter(adapter, plain_base, capsys):
    text = f"model:\n  base_model: {plain_base}\n  trust_remote_code: true\nquantization:\n  load_in_4bit: false\n"
    file = beside(adapter, text)
    named = load(str(adapter), {})
    assert named.config.model.trust_remote_code is False
    assert named.config.quantization.load_in_4bit is False
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        f"note   trust_remote_code in {file} has no effect; give it yourself if you trust the base's own code"
    ]
    assert load(str(adapter), {"model.trust_remote_code": True}).config.model.trust_remote_code is True


def test_a_configuration_without_trust_is_not_spoken_of(adapter, capsys):
    beside(adapter, "trust_remote_code: false\nepochs: 3\n")
    assert named_model._beside(adapter) == {"training.epochs": 3}
    assert capsys.readouterr().out == ""


HOSTILE = {
    "bomb": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)),
    "repeated sections": "training: &a {" + "epochs: default, " * 4000 + "}\n" + "training: *a\n" * 4000,
    "itself": "training: &a\n  epochs: *a\n",
    "object": "epochs: !!python/object/apply:os.mkdir [planted]\n",
    "object with one value": "epochs: !!python/name:os.getcwd ''\n",
    "object as a section": "training: !!python/object/new:dict {epochs: 3}\n",
    "object as the whole": "!!python/object/apply:os.mkdir {args: [planted]}\n",
    "own tag": "epochs: !mine 3\n",
    "50 MB": "#" * 50_000_000,
    "deep": "a: " + "[" * 100_000,
    "deep mappings": "{a: " * 50_000,
    "deep lines": "".join(" " * depth + "a:\n" for depth in range(600)),
    "twice": "epochs: 3\ntraining:\n  epochs: 4\n",
    "character that is none": '"\\UFFFFFFFF": 1\n',
    "merge": "base: &b {epochs: 1}\ntraining:\n  <<: *b\n",
    "number of 5000 digits": "epochs: " + "9" * 5000,
    "huge section name": "a" * 100_000 + ": 1",
    "surrogate": "data: \ud800\n",
    "version": f"%YAML {'9' * 5000}.1\n---\nepochs: 3\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_configuration_is_one_line_and_no_wait(adapter, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = beside(adapter, HOSTILE[name])
    for act in (lambda: load(str(adapter), {}), lambda: build_config({}, str(file))):
        assert refused(act).startswith(f"{file}:")
    assert not (tmp_path / "planted").exists()


def test_a_pipe_as_configuration_keeps_nobody_waiting(adapter):
    file = adapter.parent / "config.yaml"
    os.mkfifo(file)
    for act in (lambda: load(str(adapter), {}), lambda: read_yaml(str(file))):
        refused(act, f"{file}: cannot read the configuration file (not a regular file)")
    refused(lambda: read_yaml("/dev/zero"), "(not a regular file)")


def test_what_a_training_wrote_is_read(adapter, plain_base):
    config = tiny.config(plain_base)
    beside(adapter, yaml.safe_dump({"model": {"base_model": str(plain_base)}, "lora": {"r": config.lora.r}}))
    assert load(str(adapter), {}).config.lora.r == config.lora.r
