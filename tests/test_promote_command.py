"""`socratic-mlflow promote` and `rollback`: stage and alias move together. Real registries: SQLite, files, HTTP."""

from __future__ import annotations

import os
import subprocess
import sys

import flaky
import mlflow
import pytest
import servers
import stores
import versions
from mlflow import MlflowClient
from versions import NAME, add, standing

from socratic_mlflow.promotion_history import moves


@pytest.fixture(params=["sqlite", "file", "http"])
def registry(request, tmp_path, empty_database):
    """A new store of every kind in turn."""
    kind = "sqlite" if request.param == "http" else request.param
    with stores.used(stores.make(tmp_path / "store", kind, empty_database)) as uri:
        if request.param != "http":
            yield uri
            return
        with flaky.serving(uri) as server, stores.used(server.uri):
            yield server.uri


def history():
    return moves(MlflowClient().get_registered_model(NAME).tags)


def test_stage_and_alias_move_together(registry, run):
    for style in (0.2, 0.3, 0.4):
        add(style)
    assert "version 1 of socratic-gemma is now in Production and @champion: there was no champion" in run("promote", "1")
    assert standing() == {1: ("Production", ["champion"]), 2: ("None", []), 3: ("None", [])}
    run("promote", "2", "--stage", "Staging")
    run("promote", "3", "--stage", "Staging")
    assert standing() == {1: ("Production", ["champion"]), 2: ("Archived", []), 3: ("Staging", ["challenger"])}
    printed = run("promote", "3")
    assert "style 0.400 is at least the 0.200 of version 1 on the same questions" in printed
    assert "version 1 is archived; 'socratic-mlflow rollback' makes it the champion again" in printed
    assert standing() == {1: ("Archived", []), 2: ("Archived", []), 3: ("Production", ["champion"])}
    assert mlflow.MlflowClient().get_model_version(NAME, "3").tags["promotion"].startswith("style 0.400 is at least")


def test_a_challenger_is_archived_with_its_alias_and_a_persons_own_alias_stays(sqlite_store, run):
    add(0.2)
    MlflowClient().set_registered_model_alias(NAME, "my-favourite", "1")
    run("promote", "1", "--stage", "Staging")
    assert sorted(standing()[1][1]) == ["challenger", "my-favourite"]
    run("promote", "1", "--stage", "Archived")
    assert standing() == {1: ("Archived", ["my-favourite"])}


def test_the_history_says_what_when_who_and_why(sqlite_store, run, refused):
    add(0.4)
    add(0.3)
    run("promote", "1")
    assert "style 0.300 is below the 0.400 of version 1" in refused("promote", "2")
    run("promote", "2", "--force")
    run("rollback")
    first, second, third = history()
    assert (first.what, first.version, first.stage, first.replaces) == ("promote", "1", "Production", "")
    assert not first.forced
    assert (second.version, second.replaces, second.forced) == ("2", "1", True)
    assert second.why == "forced, though style 0.300 is below the 0.400 of version 1 on the same questions"
    assert (third.what, third.version, third.replaces, third.why) == ("rollback", "1", "2", "rolled back from version 2")
    assert all(move.by and move.at.endswith("Z") and move.at[:2] == "20" for move in history())


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ({"style": 0.9, "hollow": 0.8}, "it has collapsed (80% of the replies are empty"),
        ({"style": 0.1}, "style 0.100 is below the 0.400 of version 1 on the same questions"),
        (
            {"style": 0.9, "questions": "others"},
            "evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1' asks",
        ),
        ({"style": 0.9, "style_profile_digest": "another"}, "on the same questions; 'socratic-mlflow evaluate"),
        ({"style": 0.9, "max_new_tokens": "7"}, "on the same questions; 'socratic-mlflow evaluate"),
        ({"style": "nan"}, "no scores are known of it and of the champion (version 1)"),
        ({"style": "a lot"}, "no scores are known"),
    ],
)
def test_what_is_worse_collapsed_or_unknown_is_refused_unless_forced(sqlite_store, run, refused, ours, words):
    add(0.4)
    run("promote", "1")
    add(**ours)
    before = history()
    assert words in refused("promote", "2")
    assert standing() == {1: ("Production", ["champion"]), 2: ("None", [])}
    assert history() == before
    run("promote", "2", "--force")
    assert standing() == {1: ("Archived", []), 2: ("Production", ["champion"])}


def test_a_collapsed_version_is_no_challenger_either_and_can_be_archived(sqlite_store, run, refused):
    add(0.9, hollow=0.8)
    assert "it has collapsed" in refused("promote", "1", "--stage", "Staging")
    run("promote", "1", "--stage", "Archived")
    assert standing() == {1: ("Archived", [])}


def test_an_honest_version_takes_over_from_a_collapsed_champion_whatever_its_style(sqlite_store, run):
    add(0.9, hollow=0.8)
    add(0.1)
    run("promote", "1", "--force")
    assert "version 1 has collapsed" in run("promote", "2")


def test_the_champion_cannot_leave_its_place_empty_unless_forced(sqlite_store, run, refused):
    add(0.4)
    run("promote", "1")
    for stage in ("Staging", "Archived"):
        assert "it is the champion, and none would be left" in refused("promote", "1", "--stage", stage)
    run("promote", "1", "--stage", "Archived", "--force")
    assert standing() == {1: ("Archived", [])}
    assert "version 1 of socratic-gemma is now in Production" in run("rollback")


def test_the_scores_of_evaluate_decide_where_those_of_the_trainings_do_not_compare(sqlite_store, run, refused):
    add(0.4)
    add(0.9, questions="others")
    run("promote", "1")
    evaluated = {number: evaluation(number, style) for number, style in (("1", 0.6), ("2", 0.5))}
    assert "style 0.500 is below the 0.600 of version 1 on the same questions" in refused("promote", "2")
    # A later one of one version alone, on other questions, and one that is of another version, say nothing.
    evaluation("2", 0.99, digest="else", tag="evaluated.socratic.else")
    MlflowClient().set_model_version_tag(NAME, "2", "evaluated.socratic.8digits", f"style 0.9; run {evaluated['1']}")
    assert "no scores are known" in refused("promote", "2")
    evaluation("2", 0.7)
    assert "style 0.700 is at least the 0.600 of version 1" in run("promote", "2")


def evaluation(version, style, digest="digest", tag="evaluated.socratic.8digits"):
    """What `evaluate` leaves in MLflow of one version; returns the run's id."""
    judged = {"questions_digest": digest, "style_profile_digest": "p", "max_new_tokens": "6"}
    with mlflow.start_run() as run:
        mlflow.set_tag("evaluated_version", f"models:/{NAME}/{version}")
        mlflow.log_params({f"evaluation.{name}": value for name, value in judged.items()})
        mlflow.log_metrics({"eval/socratic_style": style, "eval/socratic_tone": 0.5, "eval/hollow_share": 0.0})
    MlflowClient().set_model_version_tag(NAME, version, tag, f"style {style} on 4 questions; run {run.info.run_id}")
    return run.info.run_id


def test_each_rollback_goes_one_further_back_and_promote_goes_forward(registry, run, refused):
    for style in (0.1, 0.2, 0.3):
        number = add(style)
        run("promote", number)
    assert "version 2 of socratic-gemma is now in Production and @champion: rolled back from version 3" in run("rollback")
    assert "version 2 is archived; 'socratic-mlflow promote 2' makes it the champion again" in run("rollback")
    assert standing() == {1: ("Production", ["champion"]), 2: ("Archived", []), 3: ("Archived", [])}
    assert "version 1 is the champion and none before it is recorded" in refused("rollback")
    run("promote", "3")
    run("rollback")
    assert standing()[1] == ("Production", ["champion"])


def test_a_rollback_passes_over_a_deleted_version_and_says_so(sqlite_store, run, refused):
    for style in (0.1, 0.2, 0.3):
        run("promote", add(style))
    MlflowClient().delete_model_version(NAME, "2")
    assert "rolled back from version 3; version 2, champion in between, is deleted" in run("rollback")
    assert standing() == {1: ("Production", ["champion"]), 3: ("Archived", [])}


def test_a_rollback_without_a_known_champion_before_is_refused(sqlite_store, run, refused):
    add(0.1)
    assert "there is no champion and none before it is recorded" in refused("rollback")
    run("promote", "1")
    run("promote", add(0.2))
    MlflowClient().delete_model_version(NAME, "1")
    assert "the one before it (version 1) is deleted" in refused("rollback")


def test_a_champion_that_was_made_elsewhere_is_rolled_back_to_the_last_recorded_one(sqlite_store, run):
    for style in (0.1, 0.2, 0.3):
        add(style)
    run("promote", "1")
    run("promote", "2")
    MlflowClient().set_registered_model_alias(NAME, "champion", "3")
    run("rollback")
    assert standing() == {1: ("Archived", []), 2: ("Production", ["champion"]), 3: ("None", [])}


def test_what_stands_there_already_stays_and_is_not_recorded_again(sqlite_store, run):
    add(0.2)
    run("promote", "1")
    assert "stands in Production and @champion already" in run("promote", "1")
    assert len(history()) == 1


def test_a_champion_by_stage_alone_gets_its_alias(sqlite_store, run):
    add(0.2)
    MlflowClient().transition_model_version_stage(NAME, "1", "Production")
    assert "warning: Production holds version 1, but @champion is no version" in run("models")
    run("promote", "1")
    assert standing() == {1: ("Production", ["champion"])}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["promote", "7"], "socratic-gemma has no version 7 (it was deleted, or never was); it has 2, 1"),
        (["promote", "best"], "VERSION is 'best'; it takes a number"),
        (["promote", "0"], "has no version 0"),
        (["promote", "1", "--name", "nobody"], "the registry has no model 'nobody'"),
        (["promote", "1", "--name", "it's"], "the registry has no model"),
        (["promote", "1", "--stage", "Prod"], "invalid choice: 'Prod'"),
        (["rollback", "--name", "nobody"], "the registry has no model 'nobody'"),
        (["rollback"], "there is no champion and none before it is recorded"),
    ],
)
def test_a_mistake_is_one_line(sqlite_store, refused, given, words):
    add(0.1)
    add(0.2)
    assert words in refused(*given)
    assert standing() == {1: ("None", []), 2: ("None", [])}


def test_a_version_by_another_project_is_refused_unless_forced(sqlite_store, run, refused):
    add(0.1)
    run("promote", "1")
    with mlflow.start_run() as started:
        pass
    versions.add_foreign(NAME, started, {})
    assert "no scores are known of it" in refused("promote", "2")
    run("promote", "2", "--force")
    assert standing()[2] == ("Production", ["champion"])
    assert history()[-1].why.startswith("forced, though no scores are known of it")
    assert "evaluate" not in history()[-1].why


def test_a_registry_that_does_not_answer_is_one_line(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{servers.free_port()}"}
    command = [sys.executable, "-m", "socratic_mlflow", "promote", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be reached: connection refused" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("given", [["models"], ["promote", "1"], ["rollback"], ["compare"]])
@pytest.mark.parametrize("uri", ["sqlite:///{}/mlflow.db", "file:{}/mlruns", "sqlite:///mlflow.db"])
def test_where_nothing_was_trained_no_store_is_made(tmp_path, refused, monkeypatch, given, uri):
    monkeypatch.chdir(tmp_path)
    with stores.used(uri.format(tmp_path)):
        assert "there is no MLflow store at" in refused(*given)
    assert list(tmp_path.iterdir()) == []
