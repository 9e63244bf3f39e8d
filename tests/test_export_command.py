"""`socratic-mlflow export`: what is written is loaded by plain peft and transformers and answers alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import training
from adapters import changed
from exports import card_code, export, files, front_matter, run_card
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from socratic_mlflow import cli
from socratic_mlflow.config import ModelConfig
from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.model import base_location, base_revision
from socratic_mlflow.named_model import load
from socratic_mlflow.tokens import ChatFormat

QUESTIONS = [[{"role": "user", "content": question}] for question in tiny.QUESTIONS[:4]]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


@pytest.fixture(scope="module")
def on_embedded(tmp_path_factory):
    return changed(tmp_path_factory.mktemp("adapters") / "embedded", "embedded")


@pytest.fixture(scope="module")
def exported(on_embedded, tmp_path_factory):
    """The folder of both exports, `adapter` and `merged`, of an adapter on the embedded base."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in ("adapter", "merged"):
        assert cli.main(["export", str(on_embedded), "--to", kind, "--output_dir", str(folder / kind)]) == 0
    return folder


@pytest.fixture(scope="module", params=["gemma", "llama", "neox"])
def on_family(request, bases, tmp_path_factory):
    return changed(tmp_path_factory.mktemp("adapters") / request.param, bases[request.param]), bases[request.param]


def answers(model, tokenizer):
    replies = generate(model.eval(), ChatFormat(tokenizer), QUESTIONS, Sampling(16), 4)
    return [reply.text for reply in replies]


def test_plain_peft_loads_an_exported_version_and_it_is_the_same_adapter(trained, training_inputs, tmp_path, capsys):
    code, printed, _ = export(capsys, f"models:/{training.MODEL}@champion", "--output_dir", tmp_path / "out")
    assert code == 0
    assert files(tmp_path / "out") == {"README.md", "adapter_config.json", "adapter_model.safetensors"} | TOKENIZER
    assert f"wrote adapter to {tmp_path / 'out'}" in printed
    stored = load_file(trained.output / "best_adapter" / "adapter_model.safetensors")
    exported = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert stored.keys() == exported.keys()
    assert all(torch.equal(stored[name], exported[name]) for name in stored)
    base = AutoModelForCausalLM.from_pretrained(training_inputs / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path / "out")
    ours = load(str(trained.output / "best_adapter"), {"quantization.load_in_4bit": False})
    assert answers(model, AutoTokenizer.from_pretrained(tmp_path / "out")) == answers(ours.model, ours.chat.tokenizer)


def test_the_adapters_own_card_code_runs_on_a_local_base(on_family, tmp_path, capsys):
    adapter, base = on_family
    out = tmp_path / "out"
    assert export(capsys, adapter, "--output_dir", out)[0] == 0
    # The card names the folder only; here it is, for whoever has it.
    (out / base.name).symlink_to(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    asked = [[{"role": "user", "content": "正義とは何でしょうか？"}]]
    chat = ChatFormat(AutoTokenizer.from_pretrained(base))
    (expected,) = generate(model.eval(), chat, asked, Sampling(12), 1)
    assert run_card(out) == expected.text


def test_merged_is_a_plain_model_that_answers_as_the_adapter(on_family, tmp_path, capsys):
    adapter, base = on_family
    out = tmp_path / "out"
    code, printed, _ = export(capsys, adapter, "--to", "merged", "--output_dir", out)
    assert code == 0
    assert files(out) >= {"README.md", "config.json", "model.safetensors"} | TOKENIZER
    assert not [name for name in files(out) if Path(name).suffix in PICKLES or "adapter" in name]
    merged, words = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = answers(plain, words)
    with_adapter = PeftModel.from_pretrained(plain, adapter)
    assert answers(merged, words) == answers(with_adapter, words) != before
    assert not hasattr(merged.config, "quantization_config")
    data, text = front_matter(out)
    assert data["library_name"] == "transformers"
    assert "logits differ by" in printed
    assert "## Merged and adapter" in text
    assert text.count("\n| ") >= 5


def test_the_embedded_base_travels_along_and_both_cards_run(exported):
    data, text = front_matter(exported / "adapter")
    assert (data["base_model"], data["base_model_relation"], data["license"]) == ("embedded", "adapter", "mit")
    assert base_revision(ModelConfig(base_model="embedded")) in text
    for file in (exported / "adapter" / "base").iterdir():
        assert file.read_bytes() == (Path(base_location("embedded")) / file.name).read_bytes()
    data, _ = front_matter(exported / "merged")
    assert (data["base_model"], data["base_model_relation"], data["license"]) == ("embedded", "finetune", "mit")
    saved = load_file(exported / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert run_card(exported / "merged")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"}
    program = [sys.executable, "-c", card_code(exported / "adapter")]
    folder = exported / "adapter"
    alone = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.strip()


def test_an_exported_adapter_is_a_model_to_all_other_commands(exported, tmp_path, capsys):
    one, two = exported / "adapter", tmp_path / "two"
    assert export(capsys, one, "--output_dir", two)[0] == 0
    assert files(one) == files(two)
    assert (one / "README.md").read_text() == (two / "README.md").read_text()


def test_the_written_configuration_holds_no_place_of_this_machine(exported, on_embedded):
    for file in exported.rglob("*.json"):
        if file.name != "tokenizer.json":
            text = file.read_text()
            assert json.loads(text)
            assert not any(place in text for place in (str(on_embedded), str(exported), base_location("embedded")))


def test_a_merge_that_went_wrong_is_not_written(on_family, tmp_path, capsys, monkeypatch):
    from socratic_mlflow import merging

    adapter, _ = on_family
    # The bound alone is moved: even the rounding of a right merge is then too much.
    monkeypatch.setattr(merging, "TOLERANCE", dict.fromkeys(merging.TOLERANCE, -1.0))
    code, _, error = export(capsys, adapter, "--to", "merged", "--output_dir", tmp_path / "out")
    assert (code, error.count("\n")) == (1, 1)
    assert "answers otherwise than its adapter" in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_something_is(untrained_adapter, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, words in (
        ("full", "is not empty"),
        ("file", "is no folder"),
        ("file/out", "nothing can be written in"),
        ("", "no name: is no folder"),
    ):
        code, printed, error = export(capsys, untrained_adapter, "--output_dir", tmp_path / place if place else "")
        assert (code, printed, error.count("\n")) == (2, "", 1)
        assert words in error
    assert files(tmp_path) == {"full/mine.txt", "file"}


def test_an_empty_folder_is_filled_and_stays_the_one_that_a_shell_is_in(untrained_adapter, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert export(capsys, untrained_adapter, "--output_dir", ".")[0] == 0
    assert files(Path()) >= {"README.md", "adapter_model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not [name for name in files(tmp_path) if "unfinished" in name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["base", "--output_dir", "out"], "base has no adapter, so there is nothing to export"),
        (["no/such/folder", "--output_dir", "out"], "no/such/folder: no adapter folder"),
        (["models:/nobody/1", "--output_dir", "out"], "models:/nobody/1: is not in the registry"),
        (["0123456789abcdef0123456789abcdef", "--output_dir", "out"], "runs:/0123456789abcdef0123456789abcdef/adapter"),
        (["x"], "the following arguments are required: --output_dir"),
        (["x", "--to", "gguf", "--output_dir", "out"], "invalid choice: 'gguf'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(sqlite_store, tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, error = export(capsys, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert words in error
    assert list((tmp_path / "here").iterdir()) == []


def test_a_base_that_was_not_quantized_merges_as_well(bases, tmp_path, capsys):
    adapter = changed(tmp_path / "adapter", bases["gemma"])
    code, printed, _ = export(
        capsys, adapter, "--to", "merged", "--output_dir", tmp_path / "out", "--load_in_4bit", "false"
    )
    assert code == 0
    assert "against the unquantized base with the adapter: 5 of 5 replies are the same" in printed
