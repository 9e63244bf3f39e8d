"""Bootstrap intervals, against what mathematics says of them: the normal approximation, exact cases, and coverage."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import numpy as np
import pytest

from socratic_mlflow import bootstrap
from socratic_mlflow.bootstrap import Interval, interval, paired_difference

Z = statistics.NormalDist().inv_cdf(0.975)


def drawn(seed: int, count: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.betavariate(2, 3) for _ in range(count)]


def width(found: Interval) -> float:
    return found.high - found.low


def test_of_a_large_sample_it_is_the_normal_approximation() -> None:
    values = drawn(0, 2000)
    mean, error = statistics.fmean(values), statistics.pstdev(values) / math.sqrt(len(values))
    found = interval(values)
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(mean - Z * error, abs=0.05 * error)
    assert found.high == pytest.approx(mean + Z * error, abs=0.05 * error)


def test_of_zeros_and_ones_it_is_the_binomial_distribution() -> None:
    # The mean of a resample of 12 ones among 30 is binomial: its quantiles are known exactly, in steps of 1/30.
    found = interval([1.0] * 12 + [0.0] * 18)
    tail = [sum(math.comb(30, k) * 0.4**k * 0.6 ** (30 - k) for k in range(upto + 1)) for upto in range(31)]
    low = next(k for k, below in enumerate(tail) if below >= 0.025)
    high = next(k for k, below in enumerate(tail) if below >= 0.975)
    assert (found.low, found.high) == (pytest.approx(low / 30), pytest.approx(high / 30))


def test_two_values_have_their_three_means_and_the_interval_is_from_one_to_the_other() -> None:
    assert interval([0.2, 0.8]) == Interval(pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.8))


def test_one_value_and_none_have_no_width() -> None:
    assert interval([0.3]) == Interval(0.3, 0.3, 0.3)
    assert interval([]) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -2 / 3])
@pytest.mark.filterwarnings("error")
def test_a_constant_is_its_own_interval(value: float) -> None:
    found = interval([value] * 37)
    assert (found.mean, found.low, found.high) == (pytest.approx(value), pytest.approx(value), pytest.approx(value))


def test_the_same_values_give_the_same_interval_whatever_else_was_drawn() -> None:
    values = drawn(1, 40)
    once = interval(values)
    np.random.seed(123)
    np.random.random(7)
    assert interval(values) == once
    assert interval([value + 1 for value in values]).low == pytest.approx(once.low + 1)


def test_it_holds_the_mean_and_no_more_than_the_values() -> None:
    for seed in range(5):
        values = drawn(seed, 3 + 7 * seed)
        found = interval(values)
        assert min(values) <= found.low < found.mean < found.high <= max(values)


def test_four_times_the_questions_give_half_the_width() -> None:
    values = drawn(2, 60)
    assert width(interval(values * 4)) == pytest.approx(width(interval(values)) / 2, rel=0.05)


def test_it_covers_the_true_mean_in_about_95_of_100_samples() -> None:
    covered = 0
    for seed in range(400):
        found = interval(drawn(1000 + seed, 50))
        covered += found.low <= 2 / 5 <= found.high
    # Three binomial standard errors around 0.95, and a little less: the percentile method is short for 50 values.
    assert 0.91 <= covered / 400 <= 0.98


def test_memory_stays_bounded_for_many_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    mean = np.mean

    def watched(values: Any, axis: int | None = None) -> Any:
        sizes.append(np.size(values))
        return mean(values, axis=axis)

    monkeypatch.setattr(bootstrap, "_RESAMPLES", 200)
    monkeypatch.setattr(np, "mean", watched)
    interval([0.1, 0.9] * 10_000)
    assert 10**5 < max(sizes) <= 10**6


def test_a_paired_difference_knows_that_the_questions_are_the_same() -> None:
    rng = random.Random(3)
    ours = drawn(4, 50)
    theirs = [value - 0.05 + rng.gauss(0, 0.02) for value in ours]
    found = paired_difference(ours, theirs)
    one, other = interval(ours), interval(theirs)
    assert found.mean == pytest.approx(one.mean - other.mean)
    assert width(found) < width(interval(ours)) / 3
    # What each interval alone could not tell, the pairs do.
    assert one.low < other.high
    assert found.excludes_zero


def test_a_paired_difference_turns_around_with_its_sides() -> None:
    ours, theirs = drawn(5, 30), drawn(6, 30)
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=0.01)


def test_a_model_does_not_differ_from_itself() -> None:
    values = drawn(7, 30)
    assert paired_difference(values, values) == Interval(0.0, 0.0, 0.0)
    assert not paired_difference(values, values).excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_an_interval_excludes_zero_where_it_lies_on_one_side(low: float, high: float, excludes: bool) -> None:
    assert Interval((low + high) / 2, low, high).excludes_zero is excludes


def test_a_paired_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="needs the same questions; 2 and 1 values were given"):
        paired_difference([0.1, 0.2], [0.3])
