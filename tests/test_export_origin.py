"""What an export says of where its model comes from: of the run and the version, never what only looks like it."""

from __future__ import annotations

import json
import shutil

import pytest
import training
import yaml
from adapters import changed
from exports import export, files, front_matter, hub_base, registered
from mlflow import MlflowClient

from socratic_mlflow.config import ModelConfig
from socratic_mlflow.model import base_revision

HOSTILE = 'main")\nimport os; os.system("id")\n#'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def tagged(version, **tags):
    """The URI of `version`, with some of its tags edited."""
    for name, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, version.version, name, value)
    return f"models:/{version.name}/{version.version}"


def test_what_somebody_wrote_into_a_tag_is_neither_code_nor_revision(bases, tmp_path, sqlite_store, capsys):
    with hub_base(bases["gemma"], tmp_path / "cache", COMMIT) as name:
        uri = tagged(
            registered(changed(tmp_path / "adapter", name), name),
            base_revision=HOSTILE, base_model="embedded", run_id=HOSTILE,
        )  # fmt: skip
        assert export(capsys, uri, "--output_dir", tmp_path / "out")[0] == 0
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == (name, COMMIT)
    data, text = front_matter(tmp_path / "out")
    assert (data["base_model"], data["license"]) == (name, "unknown")
    assert f"from_pretrained('{name}', revision='{COMMIT}')" in text
    assert "os.system" not in text
    assert "base" not in {path.name for path in (tmp_path / "out").iterdir()}


def test_the_embedded_base_is_known_by_the_copy_that_a_version_brings(tmp_path, sqlite_store, capsys):
    uri = tagged(registered(changed(tmp_path / "adapter", "embedded"), "embedded"), base_model="somebody/else")
    assert export(capsys, uri, "--output_dir", tmp_path / "out")[0] == 0
    data, text = front_matter(tmp_path / "out")
    assert (data["base_model"], data["license"]) == ("embedded", "mit")
    assert base_revision(ModelConfig(base_model="embedded")) in text
    assert "base/model.safetensors" in files(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "profile"), [("adapter", b"\xff\xfe"), ("merged", b"name: ok\nstyle: nothing that today's parser takes")]
)
def test_a_style_profile_that_nobody_can_read_any_more_costs_its_scores_only(
    untrained_adapter, training_inputs, tmp_path, sqlite_store, capsys, kind, profile
):
    version = registered(untrained_adapter, training_inputs / "base")
    (tmp_path / "style_profile.yaml").write_bytes(profile)
    run_id = MlflowClient().get_model_version(version.name, version.version).tags["run_id"]
    MlflowClient().log_artifact(run_id, str(tmp_path / "style_profile.yaml"))
    code, printed, _ = export(capsys, tagged(version), "--to", kind, "--output_dir", tmp_path / "out")
    assert code == 0
    (note,) = [line for line in printed.split("\n") if line.startswith("note")]
    assert "no reply is scored" in note
    assert f"runs:/{run_id}/style_profile.yaml" in note
    assert ("replies are the same\n" in printed) == (kind == "merged")
    _, text = front_matter(tmp_path / "out")
    assert "in a speaking style, fine-tuned" in text
    assert "mean style" not in text
    assert "| style | 0.500 |" in text
