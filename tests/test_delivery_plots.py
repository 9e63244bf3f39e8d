"""Plots are drawn when they are delivered: once, from all that was logged before, and without holding up the rest."""

from __future__ import annotations

import io
import sys
import threading
import time

import flaky
import numpy as np
import pytest
import stores
from deliveries import END, deliver, metrics, new_journal, no_refusal  # noqa: F401
from mlflow import MlflowClient
from PIL import Image
from servers import wait_until

from socratic_mlflow import plots
from socratic_mlflow.curves import JournalCurves
from socratic_mlflow.delivery import Delivery
from socratic_mlflow.plots import NotNowError, draw, draw_apart
from socratic_mlflow.store_errors import AwayError
from socratic_mlflow.tracking import Tracker

PLOT = {"kind": "plot", "time": 1_700_000_050_000, "key": "training_progress", "step": 3}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def picture_of(run_id, step):
    """The pixels of the one picture that the run has of `step`."""
    paths = [path for path in stores.artifacts(run_id, "images") if f"+step+{step}+" in path and path.endswith(".png")]
    assert len(paths) == 1, paths
    return np.asarray(Image.open(MlflowClient().download_artifacts(run_id, paths[0])).convert("RGB"))


def test_a_plot_shows_the_metrics_before_it_and_no_later_ones(store, journal):
    for step in (1, 2, 3):
        journal.append(metrics(step))
    journal.append(PLOT)
    journal.append(metrics(4))
    _, run_id = deliver(journal)
    expected = draw({"train/loss": [(step, 1.0 / step) for step in (1, 2, 3)]})
    assert (picture_of(run_id, 3) == pixels(expected)).all()


def test_another_process_draws_the_very_same():
    history = {"train/loss": [(1, 2.0), (2, float("nan")), (3, float("inf"))], "eval/socratic_style": [(0, 0.1)]}
    assert (pixels(draw_apart(history, threading.Event())) == pixels(draw(history))).all()


@pytest.mark.parametrize("program", ["/nowhere", "/bin/false", ""], ids=["missing", "failing", "unknown"])
def test_where_another_process_cannot_draw_this_one_does(monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    history = {"train/loss": [(1, 2.0)]}
    assert draw_apart(history, threading.Event()) == draw(history)


@pytest.fixture
def hanging(monkeypatch, tmp_path):
    """Another process never has a picture ready."""
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))


def test_a_process_that_never_answers_is_waited_for_no_longer_than_its_time(hanging, monkeypatch):
    monkeypatch.setattr(plots, "_PATIENCE_S", 0.2)
    history = {"train/loss": [(1, 2.0)]}
    assert draw_apart(history, threading.Event()) == draw(history)


def test_whoever_stops_does_not_wait_for_a_plot_and_has_it_drawn_at_once(hanging, store, tmp_path):
    tracker = Tracker(tmp_path / "journal", no_refusal)
    tracker.ship()
    tracker.log_metrics({"train/loss": 1.0}, 1)
    tracker.log_plot("training_progress", 1)
    deadline = time.monotonic() + 30
    while not (tracker.run_id and stores.steps(tracker.run_id, "train/loss")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The other process would take a minute; whoever ends a process waits a few seconds.
    assert tracker.end("KILLED", patience_s=20)
    assert MlflowClient().get_run(tracker.run_id).info.status == "KILLED"
    assert stores.image_steps(tracker.run_id) == [1]
    assert stores.logged_twice(tracker.run_id) == []
    tracker.close()


def test_what_another_process_draws_is_not_drawn_here_once_more(monkeypatch):
    monkeypatch.setattr(plots, "draw", None)
    # Longer than one look at the other process, and more than a pipe holds.
    history = {"train/loss": [(step, 1 / (step + 1)) for step in range(20_000)]}
    assert draw_apart(history, threading.Event()).startswith(b"\x89PNG")


def test_a_stop_while_another_process_draws_is_heard(hanging):
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    with pytest.raises(NotNowError):
        draw_apart({}, stopping)


def test_a_stop_is_no_failure(hanging):
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(NotNowError):
        draw_apart({}, stopping)


@pytest.mark.parametrize("apart", [False, True])
def test_without_matplotlib_all_but_the_plots_arrives(store, journal, monkeypatch, apart):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    if apart:
        monkeypatch.setattr(sys, "executable", "/bin/false")
    for step in (1, 2, 3):
        journal.append(metrics(step))
    for step in (2, 3):
        journal.append(PLOT | {"step": step})
    journal.append(metrics(4))
    journal.append(END)
    refused = {}
    delivery = Delivery(journal, refused.__setitem__)
    delivery.draw = (lambda history: draw_apart(history, threading.Event())) if apart else draw
    _, run_id = deliver(journal, delivery)
    assert list(refused) == ["plot training_progress"]
    assert refused["plot training_progress"].startswith("it cannot be drawn: ModuleNotFoundError: ")
    assert "\n" not in refused["plot training_progress"]
    assert stores.steps(run_id, "train/loss") == [1, 2, 3, 4]
    assert (stores.only_run().info.status, stores.image_steps(run_id)) == ("FINISHED", [])


def test_a_plot_that_the_run_has_is_not_drawn_again(store, journal):
    journal.append(metrics(1))
    journal.append(PLOT)
    _, run_id = deliver(journal)
    before = stores.artifacts(run_id)
    again = Delivery(journal, no_refusal)
    again.draw = None
    deliver(journal, again)
    assert stores.artifacts(run_id) == before


def test_a_plot_that_failed_is_the_same_picture_later(sqlite_store, journal):
    for step in range(1, 6):
        journal.append(metrics(step))
        journal.append(PLOT | {"step": step})
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        delivery = Delivery(journal, no_refusal)
        drawn = []
        delivery.draw = lambda history: drawn.append(history) or draw(history)
        server.fate = lambda call: flaky.DROP if len(drawn) in (2, 4) and len(server.calls) % 3 else flaky.PASS
        for _ in range(60):
            try:
                deliver(journal, delivery)
                break
            except AwayError:
                continue
        server.becomes(flaky.PASS)
        deliver(journal, delivery)
    (run,) = MlflowClient().search_runs(["0"])
    assert stores.image_steps(run.info.run_id) == [1, 2, 3, 4, 5]
    for step in range(1, 6):
        expected = draw({"train/loss": [(number, 1.0 / number) for number in range(1, step + 1)]})
        assert (picture_of(run.info.run_id, step) == pixels(expected)).all()
    # The newest one is a plain file as well.
    newest = MlflowClient().download_artifacts(run.info.run_id, "training_progress.png")
    assert (np.asarray(Image.open(newest).convert("RGB")) == pixels(expected)).all()


def test_a_plot_that_was_said_before_a_kill_is_delivered_by_the_next_process(store, tmp_path):
    killed = Tracker(tmp_path / "journal", no_refusal)
    killed.log_metrics({"train/loss": 1.0}, 1)
    killed.log_plot("training_progress", 1)
    killed.log_metrics({"train/loss": 0.5}, 2)
    # Nothing was delivered, and nobody closes it.
    again = Tracker(tmp_path / "journal", print)
    again.log_plot("training_progress", 1)
    again.log_metrics({"train/loss": 9.0}, 2)
    again.log_metrics({"train/loss": 0.25}, 3)
    again.log_plot("training_progress", 3)
    assert again.drain()
    assert stores.image_steps(again.run_id) == [1, 3]
    expected = draw({"train/loss": [(1, 1.0), (2, 0.5), (3, 0.25)]})
    assert (picture_of(again.run_id, 3) == pixels(expected)).all()
    again.close()
    killed.close()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_plots_that_an_earlier_process_sent_without_noting_it_are_not_made_twice(store, tmp_path, kept):
    earlier = Tracker(tmp_path / "journal", no_refusal)
    for step in (1, 2, 3):
        earlier.log_metrics({"train/loss": 1.0 / step}, step)
        earlier.log_plot("training_progress", step)
        if step == kept:
            assert earlier.drain()
            noted = (tmp_path / "journal/delivered.json").read_bytes()
    assert earlier.drain()
    run_id = earlier.run_id
    earlier.close()
    # The disk was full: what was noted last is older than what was sent.
    (tmp_path / "journal/delivered.json").unlink()
    if kept:
        (tmp_path / "journal/delivered.json").write_bytes(noted)
    again = Tracker(tmp_path / "journal", print)
    assert again.drain()
    assert again.run_id == run_id
    assert stores.image_steps(run_id) == [1, 2, 3]
    assert stores.logged_twice(run_id) == []
    again.close()


def test_what_was_logged_before_the_journal_is_drawn_and_not_sent(store, tmp_path):
    tracker = Tracker(tmp_path / "journal", no_refusal)
    tracker.log_earlier({"train/loss": [(1, 3.0), (2, 2.0)], "eval/loss": [(2, 2.5)]})
    tracker.log_metrics({"train/loss": 1.0}, 3)
    tracker.log_plot("training_progress", 3)
    assert tracker.drain()
    expected = {"train/loss": [(1, 3.0), (2, 2.0), (3, 1.0)], "eval/loss": [(2, 2.5)]}
    assert JournalCurves(tracker._journal).until(PLOT) == expected
    assert (picture_of(tracker.run_id, 3) == pixels(draw(expected))).all()
    assert MlflowClient().get_run(tracker.run_id).data.metrics == {"train/loss": 1.0}
    tracker.close()


def test_after_a_plot_the_metrics_go_on_while_the_training_does(store, tmp_path, monkeypatch):
    monkeypatch.setattr("socratic_mlflow.shipper._PAUSE_S", 0.01)
    tracker = Tracker(tmp_path / "journal", no_refusal)
    tracker.ship()
    for step in range(1, 4):
        tracker.log_metrics({"train/loss": 1.0 / step}, step)
        tracker.log_plot("training_progress", step)
    assert tracker.drain()
    assert stores.image_steps(tracker.run_id) == [1, 2, 3]
    assert stores.steps(tracker.run_id, "train/loss") == [1, 2, 3]
    tracker.close()


def test_plots_that_come_quicker_than_they_are_drawn_leave_the_oldest_out(store, tmp_path, monkeypatch):
    monkeypatch.setattr("socratic_mlflow.shipper._MOST_PLOTS_WAITING", 2)
    tracker = Tracker(tmp_path / "journal", no_refusal)
    for step in range(1, 6):
        tracker.log_plot("training_progress", step)
        tracker.log_metrics({"train/loss": 1.0 / step}, step)
    assert tracker.drain()
    assert stores.image_steps(tracker.run_id) == [4, 5]
    assert stores.steps(tracker.run_id, "train/loss") == [1, 2, 3, 4, 5]
    tracker.close()


@pytest.mark.parametrize("killed", [False, True])
def test_beside_a_training_drawing_rests_and_nothing_else_waits_for_it(store, tmp_path, monkeypatch, killed):
    monkeypatch.setattr("socratic_mlflow.shipper._PAUSE_S", 0.01)
    # For longer than any test may take.
    monkeypatch.setattr("socratic_mlflow.shipper._REST_AFTER_DRAWING", 1e9)
    monkeypatch.setattr("socratic_mlflow.shipper._LONGEST_REST_S", 1e4)
    tracker = Tracker(tmp_path / "journal", no_refusal)
    tracker.log_plot("training_progress", 1)
    tracker.ship()
    wait_until(lambda: tracker.run_id and stores.image_steps(tracker.run_id) == [1], "the first plot has arrived")
    tracker.log_metrics({"train/loss": 1.0}, 2)
    tracker.log_plot("training_progress", 2)
    tracker.log_metrics({"train/loss": 0.5}, 3)
    tracker.log_table([{"reply": "a"}], "samples/3.json")
    tracker.log_plot("training_progress", 3)
    tracker.log_metrics({"train/loss": 0.25}, 4)
    wait_until(lambda: stores.steps(tracker.run_id, "train/loss") == [2, 3, 4], "what stands behind the plots has arrived")
    assert tracker._shipper._rested > time.monotonic() + 60
    assert stores.image_steps(tracker.run_id) == [1]
    assert tracker._shipper.stop()
    # Who goes on after a kill does not know what was sent ahead.
    last = Tracker(tmp_path / "journal", no_refusal) if killed else tracker
    last.log_metrics({"train/loss": 0.125}, 5)
    assert last.drain()
    assert stores.image_steps(tracker.run_id) == [1, 2, 3]
    assert stores.steps(tracker.run_id, "train/loss") == [2, 3, 4, 5]
    assert stores.logged_twice(tracker.run_id) == []
    assert stores.table(tracker.run_id, "samples/3.json") == [{"reply": "a"}]
    last.close()
    tracker.close()
