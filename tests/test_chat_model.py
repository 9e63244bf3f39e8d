"""`socratic-mlflow chat`: which model answers, and by which style it is scored."""

from __future__ import annotations

from pipes import piped

import pytest
import stores
import tiny
import training
from adapters import changed
from exports import registered
from mlflow import MlflowClient

from socratic_mlflow.model_names import full_name
from socratic_mlflow.named_model import load
from socratic_mlflow.origin import profile_of
from socratic_mlflow.socratic import SOCRATIC

QUESTION = tiny.QUESTIONS[0]


def test_a_version_an_alias_a_run_and_its_adapter_folder_say_the_same(trained):
    names = [
        f"models:/{training.MODEL}@champion",
        f"models:/{training.MODEL}/1",
        trained.run.info.run_id,
        f"runs:/{trained.run.info.run_id}/adapter",
        trained.output / "best_adapter",
    ]
    found = [piped(["chat", name], f"{QUESTION}\n/compare\n/style\n") for name in names]
    assert {code for code, *_ in found} == {0}
    assert len({tuple(replies) for _, replies, _ in found}) == 1
    assert all("  base\n" in notes and "profile socratic" in notes for *_, notes in found)


def test_the_style_is_that_of_the_training(trained, training_inputs, tmp_path):
    given = training.arguments(training_inputs, str(tmp_path / "gozaru"), style_profile="gozaru", max_steps=2)
    assert training.command(trained.folder, [*given, "--registered_model_name=other-style"])[0] == 0
    for name in ("models:/other-style/1", str(tmp_path / "gozaru" / "best_adapter")):
        named = load(name, {})
        assert profile_of(named, None).name == "gozaru"
        assert profile_of(named, "socratic") == SOCRATIC


@pytest.fixture
def champion(sqlite_store, tmp_path):
    """(version, adapter folder, base folder) of the champion under the default name."""
    model, chat = tiny.talker()
    model.save_pretrained(tmp_path / "base")
    chat.tokenizer.save_pretrained(tmp_path / "base")
    adapter = changed(tmp_path / "adapter", tmp_path / "base", std=0.2)
    return registered(adapter, tmp_path / "base"), adapter, tmp_path / "base"


def test_a_style_profile_that_nobody_can_read_any_more_has_a_way_out(champion):
    version, client = champion[0], MlflowClient()
    run_id = client.get_model_version(version.name, version.version).tags["run_id"]
    client.log_text(run_id, "style: [", "style_profile.yaml")
    code, _, notes = piped(["chat"], f"{QUESTION}\n/style\n")
    assert (code, notes.count("\n")) == (1, 1)
    assert f"runs:/{run_id}/style_profile.yaml" in notes
    assert "start chat with --style_profile" in notes
    code, _, notes = piped(["chat", "--style_profile", "gozaru"], f"{QUESTION}\n/style\n")
    assert code == 0
    assert "profile gozaru" in notes


def test_without_a_name_the_champion_is_asked_for(sqlite_store):
    code, replies, notes = piped(["chat"], "")
    assert (code, replies, notes.count("\n")) == (2, [], 1)
    assert "models:/socratic-gemma@champion: is not in the registry" in notes


def test_without_a_name_the_champion_answers(champion):
    _, adapter, base = champion
    limit = ["--max_new_tokens", "20"]
    as_trained = [*limit, "--load_in_4bit", "true", "--bnb_4bit_compute_dtype", "float32"]
    _, (expected,), _ = piped(["chat", adapter, *as_trained], QUESTION)
    _, (alone,), _ = piped(["chat", "base", "--base_model", base, *as_trained], QUESTION)
    code, replies, notes = piped(["chat", *limit], f"{QUESTION}\n/compare\n")
    assert (code, replies) == (0, [expected])
    assert notes.startswith(f"models:/socratic-gemma@champion:\n{expected}\nbase:\n{alone}\nstyle ")
    assert expected != alone


def test_no_store_is_made_by_asking_for_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (["chat"], ["export", "models:/socratic-gemma@champion", "--output_dir", "out"]):
        with stores.used(f"sqlite:///{tmp_path}/mlflow.db"):
            code, _, notes = piped(given, "")
        assert (code, notes.count("\n")) == (2, 1)
        assert "there is no MLflow store at" in notes
        assert list(tmp_path.iterdir()) == []


def test_a_bare_run_id_is_short_for_its_adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_id = "0123456789abcdef" * 2
    assert full_name(run_id) == f"runs:/{run_id}/adapter"
    assert full_name("base") == "base"
    (tmp_path / run_id).mkdir()
    assert full_name(run_id) == run_id
