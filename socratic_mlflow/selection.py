"""Which checkpoint of a training is the best: by the chosen score, never a collapsed one over one that has not collapsed.

Reads the Trainer's own log of evaluations, so that a training that goes on from a checkpoint chooses as one that never
stopped. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from socratic_mlflow.quality import collapse


def evaluations(log_history: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Step -> everything that was logged of the evaluation at that step, under the Trainer's names (`eval_NAME`)."""
    found: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        values = {name: value for name, value in entry.items() if name.startswith("eval_")}
        if values:
            found.setdefault(entry["step"], {}).update(values)
    return found


def rank(metrics: Mapping[str, float], metric: str) -> tuple[bool, float, float]:
    """The higher the better: not collapsed, then the score, then the lower loss. `metrics` has names without `eval_`."""
    loss = metrics.get("loss", math.inf)
    # NaN compares as neither higher nor lower, so that the first checkpoint would win whatever comes later.
    # Rounded, since the mean of the same scores in another order differs in its last bits, and is a tie.
    score = round(metrics[metric], 6)
    return not collapse(metrics.get("hollow_share", 0.0)), score, -math.inf if math.isnan(loss) else -loss


def best_step(log_history: Sequence[Mapping[str, Any]], metric: str) -> int | None:
    """The step whose checkpoint is the best, the first of equals; step 0 is the untrained base and no candidate."""
    ranks = {
        step: rank({name.removeprefix("eval_"): value for name, value in values.items()}, metric)
        for step, values in evaluations(log_history).items()
        if step > 0 and f"eval_{metric}" in values
    }
    return max(ranks, key=ranks.__getitem__, default=None)
