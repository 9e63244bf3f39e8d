"""`socratic-mlflow export`: what is written is loaded by plain peft and transformers and answers alike."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import training
import yaml
from adapters import changed
from mlflow import MlflowClient
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


def export(capsys, *arguments):
    """(exit code, stdout, stderr)."""
    try:
        code = cli.main(["export", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


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


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1]), text


def card_code(folder):
    """The card's own code, which does not know this project; only its reply is made shorter."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "socratic" not in code
    return code.replace("max_new_tokens=128", "max_new_tokens=12")


def run_card(folder):
    """What the card's own code prints in its folder."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(card_code(folder), {})
    return printed.getvalue().strip()


def files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


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


def test_the_card_tells_where_it_comes_from_and_what_it_scored(trained, training_inputs, tmp_path, capsys):
    assert export(capsys, f"models:/{training.MODEL}/1", "--output_dir", tmp_path / "out")[0] == 0
    version = training.version(training.MODEL, 1)
    data, text = front_matter(tmp_path / "out")
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert data["language"] == ["ja"]
    assert data["license"] == "unknown"
    assert {"lora", "qlora"} <= set(data["tags"])
    # A folder's path is nobody's business, and no name on the Hub.
    assert "base_model" not in data
    assert str(training_inputs) not in text
    for known in (version.tags["base_revision"], version.tags["data_digest"], version.tags["run_id"]):
        assert f"`{known}`" in text
    assert f"`models:/{training.MODEL}/1`" in text
    step = int(version.tags["step"])
    for name, word in (("socratic_style", "style"), ("socratic_tone", "tone")):
        low, high = (history(version, f"eval/{name}_{end}", step) for end in ("low", "high"))
        assert f"| {word} | {float(version.tags[f'eval.{name}']):.3f} ({low:.3f} to {high:.3f}) |" in text
    assert "| `training.learning_rate` | 0.05 |" in text
    assert "| `lora.r` | 4 |" in text
    assert "| `quantization.bnb_4bit_quant_type` | nf4 |" in text


def history(version, key, step):
    points = MlflowClient().get_metric_history(version.tags["run_id"], key)
    return next(point.value for point in points if point.step == step)


def test_a_run_and_its_folder_export_as_its_version_does(trained, tmp_path, capsys):
    names = [f"models:/{training.MODEL}/1", trained.run.info.run_id, trained.output / "best_adapter"]
    for number, name in enumerate(names):
        assert export(capsys, name, "--output_dir", tmp_path / str(number))[0] == 0
    cards = {(tmp_path / str(number) / "README.md").read_text() for number in range(3)}
    assert len(cards) == 1
    weights = {(tmp_path / str(number) / "adapter_model.safetensors").read_bytes() for number in range(3)}
    assert len(weights) == 1


def test_a_checkpoint_does_not_boast_the_best_ones_scores(trained, tmp_path, capsys):
    (checkpoint,) = [path for path in (trained.output / "checkpoints").iterdir() if path.name == "checkpoint-2"]
    assert export(capsys, checkpoint, "--output_dir", tmp_path / "out")[0] == 0
    _, text = front_matter(tmp_path / "out")
    assert "Not known." in text
    assert training.version(training.MODEL, 1).tags["data_digest"] in text


def test_a_folder_from_another_store_is_not_asked_about_there(trained, tmp_path, capsys):
    shutil.copytree(trained.output, tmp_path / "elsewhere")
    state = tmp_path / "elsewhere" / "run.yaml"
    known = yaml.safe_load(state.read_text())
    # Nobody answers there; asking would be an error or a long wait.
    state.write_text(yaml.safe_dump(known | {"tracking_uri": "http://127.0.0.1:9"}))
    assert export(capsys, tmp_path / "elsewhere" / "best_adapter", "--output_dir", tmp_path / "out")[0] == 0
    _, text = front_matter(tmp_path / "out")
    assert "Not known." in text
    assert known["data_digest"] in text


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
