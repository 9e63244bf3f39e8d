"""The weights of `socratic_tone` are what calibration/fit_tone.py makes of the ratings, and agree with the judge."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from socratic_mlflow import tone_weights
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import socratic_style, socratic_tone

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def fit_tone(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_tone", repository / "calibration" / "fit_tone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judged(fit_tone: ModuleType, shared_data: Path) -> dict[str, Any]:
    """Features, ratings and questions of the real replies."""
    rows = fit_tone.read(str(shared_data / "judged_replies_dev.jsonl"))
    replies = [row["reply"] for row in rows]
    y, questions = np.array([row["tone"] for row in rows]), np.array([row["question_id"] for row in rows])
    return {"rows": rows, "replies": replies, "x": fit_tone.features(replies), "y": y, "questions": questions}


@pytest.fixture(scope="module")
def invented(fit_tone: ModuleType) -> dict[str, Any]:
    """Ratings with known weights: 300 replies to 10 questions, each feature in half of them."""
    rng = np.random.default_rng(7)
    lowers = np.array([name in fit_tone.LOWERS for name in fit_tone.NAMES])
    weights = np.where(lowers, -1.0, 1.0) * rng.uniform(0.5, 1.0, len(lowers))
    x = rng.integers(0, 2, (300, len(lowers))).astype(float)
    y = x @ weights + rng.normal(0, 0.05, len(x))
    return {"x": x, "y": y, "weights": weights, "questions": np.arange(300) % 10}


def test_fitting_the_ratings_again_gives_the_constants(fit_tone: ModuleType, judged: dict[str, Any]) -> None:
    base, weights = fit_tone.scaled(fit_tone.fit(judged["x"], judged["y"]))
    assert base == tone_weights.BASE
    assert weights == tone_weights.WEIGHTS


def test_the_file_of_constants_is_as_the_script_writes_it(
    fit_tone: ModuleType, judged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_tone, "CONSTANTS", tmp_path / "tone_weights.py")
    fit_tone.write(*fit_tone.scaled(fit_tone.fit(judged["x"], judged["y"])), len(judged["rows"]))
    assert (tmp_path / "tone_weights.py").read_bytes() == Path(tone_weights.__file__).read_bytes()


def test_the_tone_agrees_with_the_judge_on_questions_it_has_not_seen(fit_tone: ModuleType, judged: dict[str, Any]) -> None:
    unseen = fit_tone.left_out_predictions(judged["x"], judged["y"], judged["questions"])
    assert fit_tone.spearman(unseen, judged["y"]) >= 0.70


def test_it_agrees_as_it_ships_and_by_no_single_question(fit_tone: ModuleType, judged: dict[str, Any]) -> None:
    scores = np.array([socratic_tone(reply) for reply in judged["replies"]])
    assert fit_tone.spearman(scores, judged["y"]) >= 0.75
    for question in np.unique(judged["questions"]):
        rest = judged["questions"] != question
        assert fit_tone.spearman(scores[rest], judged["y"][rest]) >= 0.70


def test_the_style_agrees_less(fit_tone: ModuleType, judged: dict[str, Any]) -> None:
    scores = np.array([socratic_style(reply) for reply in judged["replies"]])
    assert fit_tone.spearman(scores, judged["y"]) == pytest.approx(0.59, abs=0.02)


def test_every_weight_points_in_its_direction(fit_tone: ModuleType) -> None:
    names = [feature.name for feature in SOCRATIC.tone]
    assert list(tone_weights.WEIGHTS) == names == fit_tone.NAMES
    assert set(names) > fit_tone.LOWERS
    for feature in SOCRATIC.tone:
        assert (feature.weight < 0) == (feature.name in fit_tone.LOWERS), feature.name
        assert feature.weight == tone_weights.WEIGHTS[feature.name] != 0


def test_the_scale_runs_from_a_polite_statement_to_everything() -> None:
    weights = tone_weights.WEIGHTS
    assert tone_weights.BASE + weights["polite"] + weights["asks_nothing"] == pytest.approx(0, abs=0.003)
    assert tone_weights.BASE + sum(weight for weight in weights.values() if weight > 0) == pytest.approx(1)


def test_a_fit_finds_the_weights_that_made_the_ratings(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    fitted = fit_tone.fit(invented["x"], invented["y"])
    # The penalty shrinks them, by up to penalty / (penalty + replies / 4).
    shrunk = 300 / 4 / (300 / 4 + fit_tone.PENALTY)
    assert np.corrcoef(fitted, invented["weights"])[0, 1] > 0.99
    assert np.all(np.abs(fitted) < np.abs(invented["weights"]))
    assert np.all(np.abs(fitted) > (shrunk - 0.15) * np.abs(invented["weights"]))


def test_a_fit_keeps_each_direction_against_the_ratings(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    fitted = fit_tone.fit(invented["x"], -invented["y"])
    lowers = np.array([name in fit_tone.LOWERS for name in fit_tone.NAMES])
    assert fitted == pytest.approx(np.where(lowers, -1, 1) * fit_tone.LEAST_WEIGHT)


def test_a_constant_on_the_ratings_changes_no_weight(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    assert fit_tone.fit(invented["x"], invented["y"] + 3) == pytest.approx(fit_tone.fit(invented["x"], invented["y"]))


def test_a_prediction_has_not_seen_its_question(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    x, y, questions = invented["x"], invented["y"].copy(), invented["questions"]
    before = fit_tone.left_out_predictions(x, y, questions)
    y[questions == 3] = np.random.default_rng(1).permutation(y[questions == 3]) * 5
    after = fit_tone.left_out_predictions(x, y, questions)
    assert np.array_equal(before[questions == 3], after[questions == 3])
    assert not np.any(before[questions == 4] == after[questions == 4])


def test_the_scaled_weights_are_in_proportion(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    base, weights = fit_tone.scaled(invented["weights"])
    assert np.array(list(weights.values())) / invented["weights"] == pytest.approx(
        weights["kane"] / invented["weights"][0], rel=0.02
    )
    assert base + weights["polite"] + weights["asks_nothing"] == pytest.approx(0, abs=0.005)
    assert base + sum(weight for weight in weights.values() if weight > 0) == pytest.approx(1)


def test_a_features_row_says_what_a_reply_has(fit_tone: ModuleType) -> None:
    x = fit_tone.features(["なるほど。君は海を見たかね？", "{海を見ました。"])
    found = [{name for name, has in zip(fit_tone.NAMES, row, strict=True) if has} for row in x]
    assert found == [{"kane", "kimi", "opening"}, {"polite", "asks_nothing", "markup"}]


def test_the_rank_correlation_shares_ranks_among_ties(fit_tone: ModuleType) -> None:
    assert fit_tone.spearman(np.array([1, 2, 3]), np.array([10, 20, 30])) == pytest.approx(1)
    assert fit_tone.spearman(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert fit_tone.spearman(np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])) == pytest.approx(0)


def test_an_interval_is_over_questions(fit_tone: ModuleType, invented: dict[str, Any]) -> None:
    y, questions = invented["y"] + invented["questions"], invented["questions"]
    low, high = fit_tone.interval(lambda draw: y[draw].mean(), questions, times=200)
    assert low + 1 < y.mean() < high - 1
    assert (low, high) == fit_tone.interval(lambda draw: y[draw].mean(), questions, times=200)
    # Of one question alone nothing can be drawn but itself.
    assert fit_tone.interval(lambda draw: y[draw].mean(), np.zeros(len(y)), times=50) == pytest.approx((y.mean(), y.mean()))


def test_the_script_prints_its_tables(
    fit_tone: ModuleType,
    judged: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared_data: Path,
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_tone.py", str(shared_data / "judged_replies_dev.jsonl")])
    constants = Path(tone_weights.__file__).read_bytes()
    fit_tone.main()
    printed = capsys.readouterr()
    assert printed.err == ""
    for name in fit_tone.NAMES:
        assert f"| `{name}`: " in printed.out
    assert Path(tone_weights.__file__).read_bytes() == constants
