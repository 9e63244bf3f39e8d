"""`socratic-mlflow models`: what a registry holds, as a table and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime

import mlflow
import pytest
import training
import versions
from mlflow import MlflowClient
from versions import NAME, add


@pytest.fixture
def run(tmp_path):
    """Run the command in an empty folder; returns what it printed."""
    return lambda *given: versions.command(tmp_path, *given)


def rows(printed):
    """The table's lines, by version."""
    return {line.split()[0]: line for line in printed.splitlines() if line.split()[:1] and line.split()[0].isdigit()}


def test_versions_are_listed_newest_first_with_what_they_score(store, run):
    for style in (0.2, 0.4, 0.3):
        add(style)
    run("promote", "1")
    run("promote", "3", "--stage", "Staging")
    printed = run("models")
    found = rows(printed)
    assert list(found) == ["3", "2", "1"]
    assert "socratic-gemma: 3 versions, the newest first" in printed
    assert found["1"].split()[1:7] == ["Production", "@champion", "0.200", "0.500", "0.000", "40"]
    assert found["3"].split()[1:4] == ["Staging", "@challenger", "0.300"]
    assert found["2"].endswith("best style")
    run_id = MlflowClient().get_model_version(NAME, "2").run_id
    assert f"  {run_id[:8]}  " in found["2"]
    assert datetime.now(UTC).strftime("  %Y-%m-%d ") in found["2"]
    assert "promote by" in printed
    assert "version 3 to Staging" in printed


def test_what_does_not_compare_has_collapsed_or_has_no_scores_is_marked(sqlite_store, run):
    add(0.2)
    add(0.9, questions="others")
    add(0.9, hollow=0.8)
    with mlflow.start_run() as started:
        pass
    versions.add_foreign(NAME, started, {})
    run("promote", "1")
    printed = run("models")
    found = rows(printed)
    assert "~0.900" in found["2"]
    assert found["3"].endswith("collapsed")
    assert found["4"].endswith("no scores")
    assert "~ judged by other questions" in printed
    assert "best style" not in printed


def test_json_has_everything(store, tmp_path, run):
    add(0.2)
    add(0.4)
    run("promote", "1")
    found = versions.listed(tmp_path)
    assert (found["name"], found["champion"], found["warnings"]) == (NAME, "1", [])
    second, first = found["versions"]
    assert (first["version"], first["stage"], first["aliases"]) == ("1", "Production", ["champion"])
    assert (second["style"], second["tone"], second["hollow_share"], second["step"]) == (0.4, 0.5, 0.0, 40)
    assert second["compares_with_champion"] is True
    assert first["run_id"] == MlflowClient().get_model_version(NAME, "1").run_id
    assert first["registered_at"].endswith("Z")
    assert found["moves"][0]["version"] == "1"


def test_a_trainings_own_promotion_is_in_the_history(trained, run):
    found = versions.listed(trained.folder, training.MODEL)
    (move,) = found["moves"]
    assert (move["what"], move["version"], move["stage"]) == ("training", "1", "Production")
    assert move["why"] == training.version(training.MODEL, 1).tags["promotion"]
    (version,) = found["versions"]
    assert version["run_id"] == trained.run.info.run_id
    assert version["style"] == pytest.approx(trained.run.data.metrics["summary/registered_style"], abs=1e-6)


def test_without_a_name_the_default_is_listed_and_the_others_are_named(store, run):
    add(0.2)
    add(0.3, name="another")
    with mlflow.start_run() as started:
        pass
    MlflowClient().create_registered_model("foreign")
    versions.add_foreign("foreign", started, {"a": "b"})
    printed = run("models")
    assert printed.startswith("socratic-gemma: 1 version,")
    assert "other models of this project: another" in printed
    assert "foreign" not in printed
    assert "no scores" in run("models", "foreign")


def test_without_the_default_the_others_are_named(store, run):
    add(0.3, name="another")
    assert run("models").splitlines()[-1] == "another"


@pytest.mark.parametrize(("given", "words"), [([], "'socratic-gemma'"), (["nobody"], "'nobody'"), (["a/b"], "'a/b'")])
def test_a_model_that_is_not_there_is_one_line(store, capsys, given, words):
    MlflowClient().search_experiments()
    assert f"the registry has no model {words}" in versions.refusal(capsys, "models", *given)


def test_what_a_tag_holds_steers_no_terminal(sqlite_store, run):
    add(0.2, step="\x1b[31m4\n0")
    printed = run("models")
    assert "\x1b" not in printed
    assert "\\x1b[31m4\\n0" in printed


def test_an_empty_model_is_listed(sqlite_store, run):
    MlflowClient().create_registered_model(NAME)
    assert "socratic-gemma: 0 versions" in run("models")
