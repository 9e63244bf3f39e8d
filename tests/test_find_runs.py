"""Which runs `socratic-mlflow compare` means: the last trainings, or those that are named. Real stores."""

from __future__ import annotations

import mlflow
from comparisons import add_run, cells
from mlflow import MlflowClient

from socratic_mlflow.find_runs import find_run

JAPANESE = "学習率の比較"


def test_the_last_five_finished_trainings_are_compared_and_evaluations_are_none(sqlite_store, run):
    for count in range(7):
        add_run(f"run-{count}", (0.0, 0.1 * count), start=count)
    with mlflow.start_run(run_name="evaluate something", tags={"job": "evaluate"}):
        mlflow.log_metric("eval/socratic_style", 0.99)
    assert [row["run"] for row in cells(run("compare"))] == ["run-6", "run-5", "run-4", "run-3", "run-2"]
    assert [row["run"] for row in cells(run("compare", "--last", 2))] == ["run-6", "run-5"]
    assert len(cells(run("compare", "--last", 50))) == 7


def test_the_run_around_a_sweep_is_no_training_though_it_has_the_fields_of_one(sqlite_store, run, refused):
    around = add_run("sweep", (), tags={"sweep": "true"}, start=9)
    assert "has no finished training" in refused("compare")
    for count in range(2):
        add_run(f"trial {count}", tags={"trial": str(count), "mlflow.parentRunId": around}, start=count)
    assert [row["run"] for row in cells(run("compare", "--last", 2))] == ["trial 1", "trial 0"]
    assert [row["run"] for row in cells(run("compare"))] == ["trial 1", "trial 0"]


def test_a_run_is_found_by_id_by_its_first_digits_and_by_name(store, run):
    one, other = add_run("quiet-fox-7"), add_run(JAPANESE)
    for text in (one, one[:8], one[:4], "quiet-fox-7"):
        if not other.startswith(text):
            assert find_run(text).info.run_id == one
    assert find_run(JAPANESE).info.run_id == other
    # The same run twice is one row.
    assert len(cells(run("compare", one, one[:9], "quiet-fox-7"))) == 1


def test_a_name_with_which_another_runs_id_begins_means_two_runs(store, run, refused):
    other = add_run("other")
    named = add_run(other[:6])
    line = refused("compare", other[:6])
    assert f"{other[:6]!r} means 2 runs" in line
    assert other[:12] in line
    assert named[:12] in line
    # A run whose name is the beginning of its own id is one.
    MlflowClient().update_run(named, name=named[:6])
    assert find_run(named[:6]).info.run_id == named


def test_a_name_that_looks_like_digits_is_found_and_one_with_quotes_too(store):
    digits, quoted = add_run("deadbeef"), add_run("it's")
    assert find_run("deadbeef").info.run_id == digits
    assert find_run("it's").info.run_id == quoted


def test_a_named_run_is_found_in_any_experiment_unless_one_is_named(store, run, refused):
    elsewhere = mlflow.create_experiment("elsewhere")
    add_run("far", experiment=elsewhere)
    add_run("near")
    assert {row["run"]: row["experiment"] for row in cells(run("compare", "far", "near"))} == {
        "far": "elsewhere",
        "near": "Default",
    }
    assert [row["run"] for row in cells(run("compare", "--experiment", "elsewhere"))] == ["far"]
    assert "no run 'near' in experiment 'elsewhere'" in refused("compare", "near", "--experiment", "elsewhere")
