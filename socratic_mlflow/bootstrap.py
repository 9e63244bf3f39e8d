"""How sure a mean over replies is: bootstrap intervals, and whether two models differ on the same questions.

Percentile bootstrap over questions (Efron 1979, Ann. Statist. 7(1)) by scipy, with a fixed seed: the same values give the
same interval. It tells of the choice of questions only; replies are greedy, so there is no other chance in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float]) -> Interval:
    """The mean of `values` (one a question) and its interval, which is the mean itself for fewer than two values."""
    import numpy as np
    from scipy.stats import bootstrap

    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else 0.0
    if len(array) < 2:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (array,),
        np.mean,
        n_resamples=_RESAMPLES,
        # Bounds memory: a block of resamples at a time, about 8 MB, however many questions there are.
        batch=max(1, 1_000_000 // len(array)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Mean of `ours` minus `theirs`, question by question, and its interval; ValueError where the numbers differ."""
    if len(ours) != len(theirs):
        raise ValueError(f"a paired comparison needs the same questions; {len(ours)} and {len(theirs)} values were given")
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])
