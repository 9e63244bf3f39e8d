"""The curves of a plot: as few points as can be seen, the same from wherever a process begins to deliver."""

from __future__ import annotations

import math
import random

import pytest
from journals import opened

from socratic_mlflow.curves import Curve, Curves, JournalCurves
from socratic_mlflow.journal import Journal


def curve_of(values):
    curve = Curve()
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    return curve.points()


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000])
def test_few_points_stay_as_they_are(count):
    values = [math.sin(step) for step in range(count)]
    assert curve_of(values) == list(enumerate(values, 1))


@pytest.mark.parametrize("count", [1001, 1002, 2000, 2001, 4003, 20_000])
def test_however_many_are_added_some_two_thousand_stay_and_none_that_can_be_seen_is_lost(count):
    draw = random.Random(count)
    values = [draw.gauss(0, 1) for _ in range(count)]
    points = curve_of(values)
    stretch = 2 ** math.ceil(math.log2(count / 1000))
    assert len(points) <= 2001
    assert points == sorted(points)
    assert points[-1] == (count, values[-1])
    assert all(values[step - 1] == value for step, value in points)
    kept = dict(points)
    for start in range(0, count, stretch):
        part = values[start : start + stretch]
        found = [kept[step] for step in range(start + 1, start + 1 + len(part)) if step in kept]
        assert (min(found), max(found)) == (min(part), max(part))


def test_one_step_at_which_the_loss_jumped_stays():
    values = [1.0] * 30_000
    values[17_777] = 9.0
    points = curve_of(values)
    assert (17_778, 9.0) in points
    assert len(points) < 2001


def test_what_is_no_number_hides_no_number():
    values = [math.nan] * 5000
    values[100::200] = [1.0] * 25
    points = curve_of(values)
    assert [value for _, value in points if value == value] == [1.0] * 25
    assert math.isnan(points[-1][1])
    assert len(points) <= 2001


def test_infinities_are_kept():
    values = [1.0] * 5000
    values[3000], values[4000] = math.inf, -math.inf
    assert {(3001, math.inf), (4001, -math.inf)} <= set(curve_of(values))


def test_a_step_that_comes_again_counts_once():
    curve = Curve()
    for step, value in [(1, 1.0), (2, 2.0), (2, 9.0), (1, 9.0), (3, 3.0)]:
        curve.add(step, value)
    assert curve.points() == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_metrics_that_no_panel_shows_are_left_out():
    curves = Curves()
    curves.add(1, {"train/loss": 1.0, "train/grad_norm": 2.0, "eval/socratic_style_low": 0.1, "x": 1.0})
    assert curves.history() == {"train/loss": [(1, 1.0)], "eval/socratic_style_low": [(1, 0.1)]}


def plot(step):
    return {"kind": "plot", "time": step, "key": "training_progress", "step": step}


@pytest.fixture
def journal(tmp_path):
    """Five thousand steps, with a plot after every thousandth and what else a journal holds."""
    made = opened(tmp_path / "journal")
    made.append({"kind": "training", "id": "x"})
    for step in range(1, 5001):
        made.append({"kind": "metrics", "time": step, "step": step, "values": {"train/loss": math.sin(step), "other": 1.0}})
        if step % 1000 == 0:
            made.append(plot(step))
            made.append({"kind": "tags", "values": {"a": "b"}})
    yield made
    made.close()


def steps_of(history):
    return [step for step, _ in history["train/loss"]]


def test_each_plot_shows_what_stands_before_it(journal):
    curves = JournalCurves(journal)
    for step in (1000, 2000, 5000):
        found = curves.until(plot(step))
        assert set(found) == {"train/loss"}
        assert steps_of(found)[-1] == step
        assert steps_of(found)[0] < 9


def test_a_process_that_begins_in_the_middle_draws_the_same(journal):
    one = JournalCurves(journal)
    pictures = {step: one.until(plot(step)) for step in range(1000, 5001, 1000)}
    for step, picture in pictures.items():
        assert JournalCurves(Journal(journal.folder)).until(plot(step)) == picture


def test_plots_may_be_asked_for_again_in_any_order(journal):
    curves, expected = JournalCurves(journal), {}
    for step in (1000, 2000, 3000, 4000, 5000):
        expected[step] = JournalCurves(journal).until(plot(step))
    for step in (3000, 3000, 1000, 2000, 5000, 4000, 5000, 1000):
        assert curves.until(plot(step)) == expected[step]


def test_a_plot_that_is_not_in_the_journal_shows_all_and_spoils_no_other(journal):
    curves = JournalCurves(journal)
    expected = curves.until(plot(5000))
    journal.append({"kind": "metrics", "time": 1, "step": 6000, "values": {"train/loss": 1.0}})
    assert steps_of(curves.until(plot(7)))[-1] == 6000
    assert curves.until(plot(5000)) == expected


def test_it_goes_on_where_the_journal_has_grown(journal):
    curves = JournalCurves(journal)
    curves.until(plot(5000))
    journal.append({"kind": "metrics", "time": 1, "step": 5001, "values": {"train/loss": 7.0}})
    journal.append(plot(5001))
    assert curves.until(plot(5001))["train/loss"][-1] == (5001, 7.0)


def test_lines_that_are_damaged_or_odd_cost_their_own_values_only(tmp_path):
    journal = opened(tmp_path / "journal")
    odd = [
        {"kind": "metrics", "time": 1, "step": "x", "values": {"train/loss": 5.0}},
        {"kind": "metrics", "time": 1, "step": 2, "values": ["train/loss"]},
        {"kind": "metrics", "time": 1, "step": 2, "values": {"train/loss": "5"}},
        {"kind": "plot", "time": 1, "key": 5, "step": 9},
        {"kind": "plot"},
        {"kind": "earlier", "step": -1, "values": {"train/loss": 5.0}},
        {"kind": "earlier", "step": 2, "values": {"train/loss": "5"}},
    ]
    good = {"kind": "metrics", "time": 1, "step": 1, "values": {"train/loss": 1.0}}
    for record in [good, *odd, good | {"step": 3}, good | {"step": 4}, plot(9)]:
        journal.append(record)
    lines = journal.file.read_bytes().splitlines(keepends=True)
    lines[8] = lines[8][:30] + b"#" + lines[8][31:]
    journal.file.write_bytes(b"".join(lines))
    assert JournalCurves(journal).until(plot(9)) == {"train/loss": [(1, 1.0), (4, 1.0)]}
    journal.close()
