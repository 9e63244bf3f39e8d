"""Which checkpoint is the best, from logs such as the Trainer keeps them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from socratic_mlflow.selection import best_step, evaluations, rank

NAN = float("nan")


def log(*rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Rows of (step, style, loss, hollow share) as a training logs them: losses and generated scores in two entries."""
    entries: list[dict[str, Any]] = []
    for step, style, loss, hollow in rows:
        entries += [
            {"loss": 3.0, "learning_rate": 1e-3, "step": step},
            {"eval_loss": loss, "eval_runtime": 0.1, "epoch": step / 10, "step": step},
            {"eval_socratic_style": style, "eval_socratic_tone": 1 - style, "eval_hollow_share": hollow, "step": step},
        ]
    return entries


def best(*rows: tuple[Any, ...], metric: str = "socratic_style") -> int | None:
    return best_step(log(*rows), metric)


def test_the_higher_score_is_the_better_one() -> None:
    assert best((2, 0.3, 1.0, 0.0), (4, 0.7, 2.0, 0.0), (6, 0.5, 0.5, 0.0)) == 4


def test_the_metric_decides_which_score_is_meant() -> None:
    rows = ((2, 0.3, 1.0, 0.0), (4, 0.7, 1.0, 0.0))
    assert best(*rows, metric="socratic_style") == 4
    assert best(*rows, metric="socratic_tone") == 2


@pytest.mark.parametrize("rows", [((2, 1.0, 0.1, 1.0), (4, 0.7, 9.0, 0.0)), ((2, 0.7, 9.0, 0.0), (4, 1.0, 0.1, 1.0))])
def test_a_collapsed_one_loses_whatever_its_score_loss_and_place(rows: tuple[tuple[Any, ...], ...]) -> None:
    assert best(*rows) == next(step for step, style, *_ in rows if style == 0.7)


def test_even_a_score_of_zero_is_better_than_a_collapsed_one() -> None:
    assert best((2, 1.0, 1.0, 0.51), (4, 0.0, 9.0, 0.5)) == 4


def test_among_collapsed_ones_the_score_decides() -> None:
    assert best((2, 0.4, 1.0, 1.0), (4, 0.6, 1.0, 0.6), (6, 0.5, 1.0, 0.9)) == 4


def test_ties_go_to_the_lower_loss() -> None:
    assert best((2, 0.5, 1.2, 0.0), (4, 0.5, 1.1, 0.0), (6, 0.5, 1.3, 0.0)) == 4
    assert best((2, 0.5, 1.2, 1.0), (4, 0.5, 1.1, 1.0)) == 4


def test_of_equals_the_first_is_taken() -> None:
    assert best((2, 0.5, 1.0, 0.0), (4, 0.5, 1.0, 0.0)) == 2


@pytest.mark.parametrize("lost", [NAN, math.inf])
def test_a_diverged_loss_loses_a_tie_wherever_it_stands(lost: float) -> None:
    assert best((2, 0.5, lost, 0.0), (4, 0.5, 9.0, 0.0)) == 4
    assert best((2, 0.5, 9.0, 0.0), (4, 0.5, lost, 0.0)) == 2
    assert best((2, 0.5, lost, 0.0), (4, 0.5, lost, 0.0)) == 2
    # A tie only: a better score is better with any loss.
    assert best((2, 0.5, 9.0, 0.0), (4, 0.6, lost, 0.0)) == 4


def test_the_untrained_base_is_no_candidate() -> None:
    assert best((0, 0.9, 0.1, 0.0), (2, 0.1, 1.0, 0.0)) == 2
    assert best((0, 0.9, 0.1, 0.0)) is None


def test_without_an_evaluation_there_is_no_best() -> None:
    assert best_step([], "socratic_style") is None
    assert best_step([{"loss": 1.0, "step": 2}, {"train_runtime": 3.0, "step": 4}], "socratic_style") is None


def test_an_evaluation_without_the_score_is_no_candidate() -> None:
    entries = [*log((2, 0.1, 1.0, 0.0)), {"eval_loss": 0.1, "step": 4}]
    assert best_step(entries, "socratic_style") == 2


def test_scores_alone_are_enough() -> None:
    entries = [{"eval_socratic_style": style, "step": step} for step, style in ((2, 0.1), (4, 0.3), (6, 0.3))]
    assert best_step(entries, "socratic_style") == 4


def test_the_entries_of_one_step_are_one_evaluation() -> None:
    found = evaluations(log((0, 0.5, 1.0, 0.0), (2, 0.75, 0.9, 0.1)))
    scores = {"eval_socratic_style": 0.75, "eval_socratic_tone": 0.25, "eval_hollow_share": 0.1}
    assert found[2] == {"eval_loss": 0.9, "eval_runtime": 0.1} | scores
    assert list(found) == [0, 2]


def test_a_resumed_log_chooses_as_an_uninterrupted_one() -> None:
    rows = ((2, 0.5, 1.2, 0.0), (4, 1.0, 1.0, 1.0), (6, 0.5, 1.1, 0.0), (8, 0.4, 0.9, 0.0))
    whole = log(*rows)
    for cut in range(1, len(rows)):
        # What comes back from trainer_state.json, and what is logged after it.
        resumed = json.loads(json.dumps(log(*rows[:cut]))) + log(*rows[cut:])
        assert best_step(resumed, "socratic_style") == best_step(whole, "socratic_style") == 6


def test_rank_compares_collapse_then_score_then_loss() -> None:
    worst_to_best = [
        {"socratic_style": 0.4, "loss": 0.1, "hollow_share": 1.0},
        {"socratic_style": 1.0, "loss": 0.1, "hollow_share": 1.0},
        {"socratic_style": 0.1, "loss": NAN, "hollow_share": 0.0},
        {"socratic_style": 0.1, "loss": 2.0, "hollow_share": 0.5},
        {"socratic_style": 0.1, "loss": 1.0, "hollow_share": 0.2},
        {"socratic_style": 0.2, "loss": 3.0, "hollow_share": 0.0},
    ]
    ranks = [rank(metrics, "socratic_style") for metrics in worst_to_best]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
