"""What the registry already knows of a version's scores: from its training, and from `evaluate`. Asks no model anything."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.promotion import DECIDING
from socratic_mlflow.store_errors import is_missing

if TYPE_CHECKING:
    from socratic_mlflow.standing import Entry

JUDGED_BY = ("questions_digest", "style_profile_digest", "max_new_tokens")
_DEFAULT_METRIC = "socratic_style"


@dataclass(frozen=True)
class Scores:
    """`metrics` (those of `DECIDING`), and `judged_by`, which is equal for scores that compare; `metric` is the one that
    chooses. `at_ms` is when, in milliseconds since 1970."""

    metrics: Mapping[str, float]
    judged_by: tuple[str, ...]
    metric: str
    at_ms: int


def number(tags: Mapping[str, Any], name: str) -> float | None:
    """A finite number, or None where `tags` hold none under that name."""
    try:
        value = float(tags[name])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def judged_by(tags: Mapping[str, str], prefix: str = "") -> tuple[str, ...]:
    """What must be equal for two scores to compare; empty where `tags` do not say it all."""
    found = tuple(tags.get(prefix + name, "") for name in JUDGED_BY)
    return found if all(found) else ()


def comparable(ours: Entry, theirs: Entry, name: str) -> tuple[Scores, Scores] | None:
    """The scores of two versions of `name` on the same questions: those of their trainings, else the newest that
    `evaluate` has logged of both; None where there are none."""
    trained = _of_training(ours), _of_training(theirs)
    if trained[0] and trained[1] and trained[0].judged_by == trained[1].judged_by:
        return trained[0], trained[1]
    pairs = []
    for tag in sorted(tag for tag in ours.tags.keys() & theirs.tags.keys() if tag.startswith("evaluated.")):
        our, their = _of_evaluation(ours, tag, name), _of_evaluation(theirs, tag, name)
        if our and their and our.judged_by == their.judged_by:
            pairs.append((our, their))
    return max(pairs, key=lambda pair: pair[0].at_ms, default=None)


def _of_training(entry: Entry) -> Scores | None:
    by, metrics = judged_by(entry.tags), _metrics(entry.tags, "eval.")
    if not by or not metrics:
        return None
    run = _run(entry.tags.get("run_id", entry.run_id))
    return Scores(metrics, by, _metric(run.data.params if run else {}), entry.created_ms)


def _of_evaluation(entry: Entry, tag: str, name: str) -> Scores | None:
    """What the run that the tag names has logged, if it is a run of `evaluate` of this very version."""
    found = re.search(r"run ([0-9a-f]{32})$", entry.tags[tag])
    run = _run(found[1]) if found else None
    if not run or run.data.tags.get("evaluated_version") != f"models:/{name}/{entry.version}":
        return None
    by, metrics = judged_by(run.data.params, "evaluation."), _metrics(run.data.metrics, "eval/")
    return Scores(metrics, by, _metric(run.data.params), run.info.start_time) if by and metrics else None


def _metrics(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    found = {name: number(values, prefix + name) for name in DECIDING}
    return {name: value for name, value in found.items() if value is not None} if None not in found.values() else {}


def _metric(params: Mapping[str, str]) -> str:
    name = params.get("evaluation.metric_for_best_model", _DEFAULT_METRIC)
    return name if name in DECIDING[:2] else _DEFAULT_METRIC


def _run(run_id: str) -> Any:
    """The run, or None where MLflow does not have it (any more)."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient().get_run(run_id) if run_id else None
    except MlflowException as error:
        if not is_missing(error):
            raise
        return None
