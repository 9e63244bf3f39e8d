"""Two models' scores on the same questions -> which one is better, and whether that is more than chance. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.bootstrap import Interval, paired_difference
from socratic_mlflow.quality import collapse

COMPARED = {"socratic_style": "style", "socratic_tone": "tone"}
# With fewer questions a percentile interval excludes zero too often: see calibration/few_questions.py.
FEWEST_QUESTIONS = 20


@dataclass(frozen=True)
class Scored:
    """One model: its name, its metrics (`evaluation.judge`), and one row a question with its scores."""

    name: str
    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]


def differences(ours: Scored, theirs: Scored) -> dict[str, Interval]:
    """For each score the mean of ours minus theirs, question by question, with its 95% bootstrap interval."""
    return {
        name: paired_difference([row[name] for row in ours.rows], [row[name] for row in theirs.rows]) for name in COMPARED
    }


def verdicts(ours: Scored, theirs: Scored) -> list[str]:
    """Sentences: a collapse first, since the scores of a collapsed model mean nothing, then one for each score."""
    found = []
    for one, other in ((ours, theirs), (theirs, ours)):
        if (reason := collapse(one.metrics["hollow_share"])) and not collapse(other.metrics["hollow_share"]):
            found.append(f"{one.name} has collapsed ({reason}) and is the worse one, whatever it scores")
    return found + [_verdict(name, ours, theirs, difference) for name, difference in differences(ours, theirs).items()]


def _verdict(name: str, ours: Scored, theirs: Scored, difference: Interval) -> str:
    word, higher = COMPARED[name], ours if difference.mean > 0 else theirs
    figures = f"{difference.mean:+.3f}, 95% interval {difference.low:+.3f} to {difference.high:+.3f}"
    if len(ours.rows) < FEWEST_QUESTIONS:
        return f"{word}: too few questions to tell ({figures}); ask at least {FEWEST_QUESTIONS}"
    if not difference.excludes_zero:
        return f"{word}: no real difference ({figures}); other questions could turn it round"
    return f"{word}: {higher.name} scores higher, and the difference is real ({figures})"
