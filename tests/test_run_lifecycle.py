"""How a run begins and ends, on both kinds of store: also by an exception, a signal, kill -9, and on a full disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import disks
import flaky
import mlflow
import pytest
import stores
from mlflow import MlflowClient

from socratic_mlflow import run_lifecycle
from socratic_mlflow.journal import Journal
from socratic_mlflow.run_lifecycle import (
    deliver,
    evaluation_run,
    left_running,
    open_tracker,
    point_to,
    training_run,
    undelivered,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "journal"


@pytest.fixture
def said():
    return []


def run_of(tracker):
    return MlflowClient().get_run(tracker.run_id)


def test_an_evaluation_that_ends_well_is_finished_and_all_of_it_delivered(store):
    with evaluation_run() as tracker:
        assert run_of(tracker).info.status == "RUNNING"
        tracker.log_metrics({"eval/style": 0.5}, 0)
    assert stores.only_run().info.status == "FINISHED"
    assert stores.only_run().data.metrics == {"eval/style": 0.5}
    assert not tracker.folder.exists()


def test_an_evaluation_can_be_added_to(store):
    with evaluation_run() as first:
        first.log_metrics({"eval/style": 0.5}, 0)
    with evaluation_run(first.run_id) as second:
        second.log_metrics({"compare/style": 0.1}, 0)
    run = stores.only_run()
    assert run.info.run_id == first.run_id == second.run_id
    assert (run.info.status, len(run.data.metrics)) == ("FINISHED", 2)
    assert stores.logged_twice(run.info.run_id) == []


ERRORS = [
    (ValueError("正しくない値"), "FAILED"),
    (KeyboardInterrupt("SIGTERM"), "KILLED"),
    (SystemExit(2), "KILLED"),
    (MemoryError(), "FAILED"),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_a_run_that_ends_badly_says_how(store, folder, said, error, status, kind):
    with (
        pytest.raises(type(error)),
        training_run(folder, said.append) if kind == "training" else evaluation_run() as tracker,
    ):
        tracker.log_metrics({"train/loss": 2.0}, 1)
        raise error
    run = stores.only_run()
    assert run.info.status == status
    assert run.info.end_time is not None
    assert run.data.tags["error"] == f"{type(error).__name__}: {error}"
    assert run.data.metrics == {"train/loss": 2.0}
    assert mlflow.active_run() is None
    if status == "FAILED":
        lines = stores.artifact_text(run.info.run_id, "error.txt").splitlines()
        assert lines[0].startswith("Traceback")
        assert lines[-1] == (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    assert left_running(folder) == ""


def test_a_long_error_is_cut_and_its_last_lines_are_kept(store, folder, said):
    with pytest.raises(ValueError, match="word"), training_run(folder, said.append):
        raise ValueError("word " * 10_000 + "".join(f"\nline {number}" for number in range(1000)))
    run = stores.only_run()
    assert len(run.data.tags["error"]) == 500
    lines = stores.artifact_text(run.info.run_id, "error.txt").splitlines()
    assert lines == [f"line {number}" for number in range(900, 1000)]


def test_no_secret_of_an_exception_reaches_mlflow_or_the_journal(store, folder, said, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "s3cret-value-77")
    secrets = ("s3cret-value-77", "hunter22", "hf_" + "Ab1" * 8)
    with pytest.raises(RuntimeError), training_run(folder, said.append) as tracker:
        tracker.log_params({"p": "s3cret-value-77"})
        tracker.log_table([{"reply": "hf_" + "Ab1" * 8}], "t.json")
        raise RuntimeError(f"no access with {secrets[0]} at https://ada:{secrets[1]}@host/x or {secrets[2]}")
    run = stores.only_run()
    assert run.data.tags["error"] == "RuntimeError: no access with *** at https://***@host/x or ***"
    kept = [path.read_bytes().decode() for path in folder.rglob("*") if path.is_file()]
    shown = [stores.artifact_text(run.info.run_id, file) for file in stores.artifacts(run.info.run_id)]
    everything = "\n".join([*kept, *shown, *run.data.tags.values(), *run.data.params.values(), *said])
    assert "error.txt" in everything
    assert [secret for secret in secrets if secret in everything] == []


def test_the_run_that_mlflow_run_made_is_used(store, folder, said, monkeypatch):
    made = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with training_run(folder, said.append) as tracker:
        assert tracker.drain()
        assert tracker.run_id == made
    assert stores.only_run().info.run_id == made
    assert "see_run" not in stores.only_run().data.tags


def test_a_run_is_continued_and_the_one_made_for_it_points_there(store, folder, said, monkeypatch):
    with pytest.raises(KeyboardInterrupt), training_run(folder, said.append) as begun:
        raise KeyboardInterrupt("SIGTERM")
    assert run_of(begun).info.status == "KILLED"
    made = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with training_run(folder, said.append) as tracker:
        assert tracker.drain()
        run = run_of(tracker)
        assert run.info.run_id == begun.run_id
        assert run.info.status == "RUNNING"
        assert "error" not in run.data.tags
        tracker.end("FINISHED")
    assert run_of(tracker).info.status == "FINISHED"
    assert MlflowClient().get_run(made).data.tags["see_run"] == begun.run_id


def test_a_run_made_for_a_command_that_has_nothing_to_do_points_to_the_finished_one(store, monkeypatch):
    made, other = (MlflowClient().create_run("0").info.run_id for _ in range(2))
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    point_to(other)
    point_to(made)
    assert MlflowClient().get_run(made).data.tags["see_run"] == other
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    point_to(other)


KILLED = """
import os, pathlib, signal, sys
from socratic_mlflow.run_lifecycle import training_run
with training_run(pathlib.Path(sys.argv[1]), print) as tracker:
    tracker.log_metrics({"train/loss": 2.0}, 1)
    if sys.argv[2] == "delivered":
        assert tracker.drain()
        assert tracker.run_id
    tracker.log_metrics({"train/loss": 1.0}, 2)
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", ["delivered", "nothing delivered"])
def test_an_orphan_is_closed_with_who_it_was(store, folder, said, before):
    given = [sys.executable, "-c", KILLED, str(folder), before]
    done = subprocess.run(given, capture_output=True, text=True, env=os.environ | {"MLFLOW_TRACKING_URI": store})
    assert done.returncode == -signal.SIGKILL, done.stderr
    who = f"process {done.stdout.split()[-1]} on {socket.gethostname()}"
    assert left_running(folder) == who
    with open_tracker(folder, said.append) as tracker:
        assert tracker.drain()
    run = stores.only_run()
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == f"{who} was killed: it ended without a word"
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]
    assert left_running(folder) == ""
    with training_run(folder, said.append) as tracker:
        assert tracker.drain()
        assert run_of(tracker).info.status == "RUNNING"
        assert "error" not in run_of(tracker).data.tags
        tracker.log_metrics({"train/loss": 9.0}, 2)
        tracker.log_metrics({"train/loss": 0.5}, 3)
        tracker.end("FINISHED")
    points = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert stores.only_run().info.status == "FINISHED"


def test_a_training_that_waits_for_its_registration_is_no_orphan(store, folder, said):
    with training_run(folder, said.append) as tracker:
        tracker.write({"kind": "register", "candidate": {}, "questions": [], "profile": "", "description": ""})
        assert tracker.drain()
    assert left_running(folder) == ""
    with open_tracker(folder, said.append) as tracker:
        assert tracker.drain()
    assert stores.only_run().info.status == "RUNNING"


def test_no_journal_was_left_by_nobody(folder):
    assert left_running(folder) == ""
    assert not folder.exists()


@pytest.mark.parametrize("start", [{"kind": "start"}, {"kind": "start", "pid": [1], "host": 5, "time": None}])
def test_a_start_without_a_process_is_no_error(store, folder, said, start):
    journal = Journal(folder)
    journal.open()
    journal.append(start)
    journal.close()
    assert isinstance(left_running(folder), str)


@pytest.mark.parametrize("delivered_before", [True, False])
def test_on_a_full_disk_the_run_ends_all_the_same(store, tmp_path, said, delivered_before):
    with disks.tiny(tmp_path / "disk") as disk:
        with pytest.raises(OSError, match="No space left"), training_run(disk / "journal", said.append) as tracker:
            tracker.log_metrics({"train/loss": 2.0}, 1)
            if delivered_before:
                assert tracker.drain()
            disks.fill(disk)
            while True:
                tracker.log_text("x" * 500, "some.txt")
        run = stores.only_run()
        assert run.info.status == "FAILED"
        assert "No space left" in run.data.tags["error"]
        assert run.data.metrics == {"train/loss": 2.0}


def test_what_happens_while_mlflow_is_away_is_told_when_it_is_back(sqlite_store, folder, said):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(flaky.DROP)
        with pytest.raises(ValueError, match="wrong"), training_run(folder, said.append) as tracker:
            tracker.log_metrics({"train/loss": 2.0}, 1)
            assert tracker.run_id == ""
            raise ValueError("wrong")
        assert undelivered(tracker, folder.parent) == (
            f"MLflow has not received everything; all of it is in {folder}. Once MLflow can be reached, "
            f"'socratic-mlflow sync {folder.parent}' delivers it"
        )
        lost, kept = said
        assert lost.startswith(f"warning: MLflow at {server.uri} cannot be reached (the connection broke off); ")
        assert kept == f"warning: {undelivered(tracker, folder.parent)}"
        server.becomes(flaky.PASS)
        with open_tracker(folder, said.append) as tracker:
            assert tracker.drain()
            assert undelivered(tracker, folder.parent) == ""
        run = stores.only_run()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ValueError: wrong")
    assert run.data.metrics == {"train/loss": 2.0}


def test_an_evaluation_without_mlflow_is_an_error_of_one_line(sqlite_store, monkeypatch):
    waits = []
    monkeypatch.setattr(run_lifecycle.time, "sleep", waits.append)
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(flaky.DROP)
        with (
            pytest.raises(ConnectionError, match=r"MLflow cannot be reached \(the connection broke off\)") as caught,
            evaluation_run(),
        ):
            raise AssertionError("not to be begun")
    assert "\n" not in str(caught.value)
    assert sum(waits) == 30


def test_a_short_absence_is_waited_for(sqlite_store, folder, said, monkeypatch):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(flaky.DROP)
        monkeypatch.setattr(run_lifecycle.time, "sleep", lambda _: server.becomes(flaky.PASS))
        with open_tracker(folder, said.append) as tracker:
            deliver(tracker)
        assert stores.only_run().info.run_id == tracker.run_id
