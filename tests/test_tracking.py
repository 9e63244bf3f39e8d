"""The MLflow run, on both kinds of store."""

from __future__ import annotations

import os

import mlflow
import numpy as np
import pytest
import stores
from mlflow import MlflowClient

from socratic_mlflow.tracking import Tracker, check_store, open_run, without_credentials


@pytest.fixture
def tracker(store):
    return Tracker(MlflowClient().create_run("0").info.run_id)


def run_of(tracker):
    return MlflowClient().get_run(tracker.run_id)


def test_metrics_arrive_with_their_step_and_one_time_stamp(tracker):
    tracker.log_metrics({"train/loss": 1.5, "memory/rss_gib": 2}, step=7)
    tracker.log_metrics({"train/loss": 1.25}, step=8)
    history = MlflowClient().get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(7, 1.5), (8, 1.25)]
    memory = MlflowClient().get_metric_history(tracker.run_id, "memory/rss_gib")[0]
    assert (memory.step, memory.value, memory.timestamp) == (7, 2.0, history[0].timestamp)


def test_more_metrics_and_params_than_one_request_takes_all_arrive(tracker):
    tracker.log_metrics({f"m{number}": number for number in range(1001)}, step=1)
    tracker.log_params({f"p{number}": number for number in range(101)})
    data = run_of(tracker).data
    assert data.metrics == {f"m{number}": number for number in range(1001)}
    assert data.params == {f"p{number}": str(number) for number in range(101)}


def test_a_param_with_another_value_becomes_a_tag_and_raises_nothing(tracker):
    MlflowClient().log_param(tracker.run_id, "training.epochs", "30")
    tracker.log_params({"training.epochs": 3, "lora.r": 16})
    tracker.log_params({"training.epochs": 30, "lora.r": 16})
    data = run_of(tracker).data
    assert data.params == {"training.epochs": "30", "lora.r": "16"}
    assert {name: value for name, value in data.tags.items() if name.startswith("changed.")} == {
        "changed.training.epochs": "3"
    }


def test_a_table_and_a_text_come_back_as_they_were(tracker):
    rows = [{"question": "正義とは？", "score": 0.5}, {"question": "勇気とは？", "score": 1.0}]
    tracker.log_table(rows, "samples/step_000004.json")
    tracker.log_table([], "samples/step_000008.json")
    tracker.log_text("lora: {r: 16}\n", "config.yaml")
    assert stores.artifacts(tracker.run_id) == ["config.yaml", "samples/step_000004.json"]
    assert stores.table(tracker.run_id, "samples/step_000004.json") == rows
    assert tracker.read_table("samples/step_000004.json") == rows
    assert stores.artifact_text(tracker.run_id, "config.yaml") == "lora: {r: 16}\n"


def test_images_are_kept_by_step(tracker):
    for step in (0, 20):
        tracker.log_image(np.full((40, 60, 3), 200, dtype=np.uint8), "training_progress", step)
    assert stores.image_steps(tracker.run_id) == [0, 20]


def test_a_dataset_is_an_input_with_a_digest_of_its_rows(tracker):
    digest = tracker.log_dataset([{"question": "正義とは？"}], "questions", "evaluation", "bundled")
    other = tracker.log_dataset([{"question": "勇気とは？"}], "more_questions", "training", "bundled")
    inputs = {each.dataset.name: each for each in run_of(tracker).inputs.dataset_inputs}
    assert inputs["questions"].dataset.digest == digest != other == inputs["more_questions"].dataset.digest
    assert [(tag.key, tag.value) for tag in inputs["questions"].tags] == [("mlflow.data.context", "evaluation")]


def test_a_run_that_ends_well_is_finished(store):
    with open_run() as tracker:
        assert mlflow.active_run().info.run_id == tracker.run_id
        assert run_of(tracker).info.status == "RUNNING"
    assert mlflow.active_run() is None
    assert stores.only_run().info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("正しくない値"), "FAILED"), (KeyboardInterrupt("SIGTERM"), "KILLED"), (SystemExit(2), "KILLED")],
)
def test_a_run_that_ends_badly_says_how(store, error, status):
    with pytest.raises(type(error)), open_run():
        raise error
    run = stores.only_run()
    assert run.info.status == status
    assert run.data.tags["error"] == f"{type(error).__name__}: {error}"
    assert mlflow.active_run() is None


def test_a_long_error_is_cut(store):
    with pytest.raises(ValueError, match="word"), open_run():
        raise ValueError("word " * 10_000)
    assert len(stores.only_run().data.tags["error"]) == 500


def test_the_run_that_mlflow_run_made_is_used(store, monkeypatch):
    made = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with open_run() as tracker:
        assert tracker.run_id == made
    assert stores.only_run().info.run_id == made
    assert stores.only_run().info.status == "FINISHED"


def test_a_run_is_continued_and_the_one_made_for_it_points_there(store, monkeypatch):
    begun, made = (MlflowClient().create_run("0").info.run_id for _ in range(2))
    MlflowClient().set_terminated(begun, "KILLED")
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with open_run(begun) as tracker:
        assert tracker.run_id == begun
        assert run_of(tracker).info.status == "RUNNING"
    assert MlflowClient().get_run(begun).info.status == "FINISHED"
    assert MlflowClient().get_run(made).data.tags["see_run"] == begun
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_run_that_ends_well_after_all_holds_no_old_error(store):
    with pytest.raises(ValueError, match="disk full"), open_run() as tracker:
        raise ValueError("disk full")
    with open_run(tracker.run_id):
        pass
    run = stores.only_run()
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags


def test_a_store_that_works_passes_the_check(store):
    assert check_store() is None


def test_a_deleted_run_cannot_go_on(store):
    run_id = MlflowClient().create_run("0").info.run_id
    assert check_store(run_id) is None
    MlflowClient().delete_run(run_id)
    with pytest.raises(ValueError, match=f"run {run_id}, which holds this training, is deleted"):
        check_store(run_id)
    with pytest.raises(ValueError, match="cannot be used"):
        check_store("0" * 32)


def test_metrics_of_an_earlier_start_are_left_as_they_are(store):
    with open_run() as tracker:
        tracker.log_metrics({"train/loss": 2.0}, step=1)
        tracker.log_metrics({"train/loss": 1.0}, step=2)
        tracker.log_table([{"reply": "old"}], "samples/step_000002.json")
    with open_run(tracker.run_id) as again:
        again.log_metrics({"train/loss": 9.0, "eval/loss": 3.0}, step=2)
        again.log_metrics({"train/loss": 0.5}, step=3)
        again.log_table([{"reply": "new"}], "samples/step_000002.json")
    points = MlflowClient().get_metric_history(tracker.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert stores.steps(tracker.run_id, "eval/loss") == [2]
    assert stores.table(tracker.run_id, "samples/step_000002.json") == [{"reply": "old"}]


def test_the_file_store_without_its_opt_in_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    try:
        with pytest.raises(ValueError, match=r"cannot be used.*MLFLOW_ALLOW_FILE_STORE") as caught:
            check_store()
    finally:
        mlflow.set_tracking_uri(before)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://ada:secret@tracking.example:5000/mlflow?x=1", "https://tracking.example:5000/mlflow?x=1"),
        ("postgresql+psycopg://ada:p%40ss@db/mlflow", "postgresql+psycopg://db/mlflow"),
        ("https://token@host", "https://host"),
        ("https://ada:a@b@host/path", "https://host/path"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("file:./mlruns", "file:./mlruns"),
        ("http://localhost:5000", "http://localhost:5000"),
    ],
)
def test_user_and_password_are_left_out_of_an_address(uri, shown):
    assert without_credentials(uri) == shown
