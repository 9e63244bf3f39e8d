"""The thread that ships the journal: it never gives up, says little, and brings everything in its order."""

from __future__ import annotations

import os
import threading
import time

import flaky
import pytest
import servers
import stores
from mlflow import MlflowClient

from socratic_mlflow import shipper as module
from socratic_mlflow.journal import Journal
from socratic_mlflow.shipper import Shipper

TRAINING = {
    "kind": "training", "id": "0123456789abcdef", "time": 1, "tracking_uri": "", "run_id": "", "experiment_id": "",
    "experiment_name": "", "tags": {},
}  # fmt: skip


def metrics(step, name="train/loss"):
    return {"kind": "metrics", "time": step, "step": step, "values": {name: float(step)}}


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal")
    made.open()
    made.append(TRAINING)
    yield made
    made.close()


@pytest.fixture
def make(journal):
    """Make a shipper; returns (it, the lines that it says)."""
    made = []

    def make():
        said = []
        made.append(Shipper(journal, "the place", said.append))
        return made[-1], said

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def server(sqlite_store):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        yield server


@pytest.fixture
def hasty(monkeypatch):
    """No pauses worth waiting for."""
    for name in ("_PAUSE_S", "_FIRST_WAIT_S", "_LONGEST_WAIT_S"):
        monkeypatch.setattr(module, name, 0.01)


def until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_line_at_the_loss_and_one_at_the_recovery_however_often_it_fails(server, journal, make, hasty):
    shipper, said = make()
    shipper.start()
    for outage in (1, 2):
        journal.append(metrics(2 * outage))
        until(lambda: shipper.delivered)
        server.becomes(flaky.ERROR)
        before = len(server.calls)
        journal.append(metrics(2 * outage + 1))
        until(lambda before=before: len(server.calls) > before + 4)
        assert shipper.trouble == "it answers with error 5xx"
        server.becomes(flaky.PASS)
        until(lambda: shipper.delivered and not shipper.trouble)
    why = "cannot be reached (it answers with error 5xx)"
    assert said == 2 * [
        f"warning: MLflow at the place {why}; everything is kept in {journal.folder}",
        "note   MLflow at the place is back; what it has missed is being delivered",
    ]
    assert stores.steps(shipper.run_id, "train/loss") == [2, 3, 4, 5]


class NoWaiting(threading.Event):
    """Waits for nothing, and remembers for how long it should have."""

    def __init__(self, stop_after):
        super().__init__()
        self.waits, self._stop_after = [], stop_after

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if len(self.waits) == self._stop_after:
            self.set()
        return self.is_set()


def test_the_pause_between_two_attempts_grows_to_half_a_minute_and_no_further(server, journal, make):
    server.becomes(flaky.DROP)
    shipper, said = make()
    shipper._stopping = NoWaiting(8)
    shipper._work()
    assert shipper._stopping.waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(said) == 1


def test_after_a_recovery_the_pause_begins_anew(server, journal, make):
    attempts = iter([False, False, True, False, False])
    shipper, _ = make()
    shipper._stopping, shipper._attempt = NoWaiting(5), lambda: next(attempts)
    shipper._work()
    assert shipper._stopping.waits == [1, 2, 1, 1, 2]


def test_draining_ends_at_the_first_failure(server, journal, make):
    shipper, said = make()
    server.becomes(flaky.DROP)
    assert not shipper.drain()
    assert len(server.calls) == 1
    assert len(said) == 1
    assert not shipper.drain()
    assert len(said) == 1
    server.becomes(flaky.PASS)
    assert shipper.drain()
    assert (len(said), shipper.delivered, shipper.trouble) == (2, True, "")


def test_draining_ends_where_the_port_refuses(journal, make, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with stores.used(f"http://127.0.0.1:{servers.free_port()}"):
        shipper, _ = make()
        assert not shipper.drain()
        assert shipper.trouble == "connection refused"
        assert shipper.run_id == ""


def test_nothing_is_asked_where_all_is_delivered(server, journal, make):
    shipper, said = make()
    assert shipper.drain()
    before = len(server.calls)
    assert shipper.drain()
    assert make()[0].drain()
    assert (server.calls[before:], said) == ([], [])


@pytest.mark.parametrize("fate", [flaky.DROP, flaky.LOSE])
def test_what_other_threads_append_meanwhile_arrives_once_and_in_its_order(store, journal, make, hasty, fate):
    with flaky.serving(store) as server, stores.used(server.uri):
        shipper, _ = make()
        # One request in eleven fails.
        server.fate = lambda call: fate if len(server.calls) % 11 == 0 else flaky.PASS
        shipper.start()
        threads = [threading.Thread(target=append, args=(journal, name)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: shipper.delivered)
        shipper.stop()
        server.becomes(flaky.PASS)
        for name in ("a", "b"):
            assert stores.steps(shipper.run_id, name) == list(range(200))
            if store.startswith("file:"):
                # Its lines are in the order in which they arrived.
                history = MlflowClient().get_metric_history(shipper.run_id, name)
                assert [point.step for point in history] == list(range(200))


def append(journal, name):
    for step in range(200):
        journal.append(metrics(step, name))
        time.sleep(0.001)


def test_a_second_process_goes_on_where_the_first_one_stopped(server, journal, make):
    first, _ = make()
    journal.append(metrics(1))
    assert first.drain()
    journal.append(metrics(2))
    before = len(server.calls)
    second, _ = make()
    assert second.drain()
    assert second.run_id == first.run_id
    assert "POST runs/create" not in server.calls[before:]
    assert stores.steps(second.run_id, "train/loss") == [1, 2]


HOSTILE = [-1, 10**9, 10**30, True, False, "5", None, 1.5, float("nan"), [1], {}]


@pytest.mark.parametrize("offset", [*HOSTILE, 7, 200], ids=repr)
def test_whatever_place_is_noted_everything_arrives_once(sqlite_store, journal, make, offset):
    for step in (1, 2, 3):
        journal.append(metrics(step))
    shipper, _ = make()
    assert shipper.drain()
    journal.mark_delivered({"offset": offset, "run_id": shipper.run_id})
    assert make()[0].drain()
    assert stores.only_run().info.run_id == shipper.run_id
    assert stores.steps(shipper.run_id, "train/loss") == [1, 2, 3]


@pytest.mark.parametrize("shift", [-1, 1, 30])
def test_a_noted_place_inside_of_a_record_loses_none(sqlite_store, journal, make, shift):
    ends = [end for _, end in journal.records()]
    for step in (1, 2, 3):
        journal.append(metrics(step))
    journal.mark_delivered({"offset": ends[0] + shift, "run_id": ""})
    shipper, _ = make()
    assert shipper.drain()
    assert stores.steps(shipper.run_id, "train/loss") == [1, 2, 3]


def test_a_deleted_run_is_said_once_and_kept(sqlite_store, journal, make, hasty):
    shipper, _ = make()
    assert shipper.drain()
    MlflowClient().delete_run(shipper.run_id)
    journal.append(metrics(1))
    again, said = make()
    again.start()
    until(lambda: said)
    again.stop()
    assert not again.drain()
    assert said == [f"warning: MLflow at the place run {shipper.run_id} is deleted; everything is kept in {journal.folder}"]


def test_an_impossible_name_at_every_step_is_said_once(sqlite_store, journal, make):
    for step in range(5):
        journal.append(metrics(step, "train#loss"))
        journal.append(metrics(step))
    shipper, said = make()
    assert shipper.drain()
    assert len([line for line in said if "does not take" in line]) <= 10
    assert all("\n" not in line for line in said)
    assert said[0].startswith("warning: MLflow does not take ")
    assert stores.steps(shipper.run_id, "train/loss") == list(range(5))


def test_a_journal_that_has_become_shorter_ends_the_draining(sqlite_store, journal, make):
    for step in (1, 2, 3):
        journal.append(metrics(step))
    shipper, _ = make()
    os.truncate(journal.file, journal.file.stat().st_size - 5)
    outcome = []
    # A daemon: where this fails, it never ends.
    thread = threading.Thread(target=lambda: outcome.append(shipper.drain()), daemon=True)
    thread.start()
    thread.join(20)
    assert outcome == [False]


def test_a_journal_that_is_removed_ends_the_draining(sqlite_store, journal, make):
    shipper, _ = make()
    journal.file.unlink()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(shipper.drain()), daemon=True)
    thread.start()
    thread.join(20)
    assert outcome == [False]


def test_stopping_twice_or_before_the_start_is_harmless(sqlite_store, journal, make):
    shipper, _ = make()
    shipper.stop()
    shipper.stop()
    assert shipper.drain()
