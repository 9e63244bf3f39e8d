"""A journal's metrics -> the curves of a plot, as few points as can be seen. Standard library only.

Memory and the time to draw do not depend on how many steps were logged; where a process begins to read does not change
the picture, since all of them read from the journal's first record on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from socratic_mlflow.journal import Journal, Record
from socratic_mlflow.plots import DRAWN
from socratic_mlflow.records import is_well_formed

# (step, value)
Point = tuple[int, float]
# Stretches of steps that a curve is made of, more than a panel is wide in pixels. Even, so that they merge in pairs.
_STRETCHES = 1000


class Curve:
    """One metric: every point up to 1,000, then of each stretch of steps the lowest and the highest.

    Drawn, that looks like all of them; leaving out every second point would lose the one step at which a loss jumped.
    """

    def __init__(self) -> None:
        self._stretches: list[list[Point]] = []
        self._points_a_stretch, self._count = 1, 0
        self._last: Point | None = None

    def add(self, step: int, value: float) -> None:
        """One more point; at a step up to which there are points already the first one stays."""
        if self._last is not None and step <= self._last[0]:
            return
        self._last = (step, value)
        if self._count % self._points_a_stretch == 0:
            self._stretches.append([])
        self._stretches[-1] = _extremes([*self._stretches[-1], self._last])
        self._count += 1
        if len(self._stretches) > _STRETCHES:
            pairs = zip_longest(self._stretches[::2], self._stretches[1::2], fillvalue=())
            self._stretches = [_extremes([*one, *two]) for one, two in pairs]
            self._points_a_stretch *= 2

    def points(self) -> list[Point]:
        """(step, value) in order, at most 2,001, the last one that was added among them."""
        kept = [point for stretch in self._stretches for point in stretch]
        return kept if self._last is None or kept[-1] is self._last else [*kept, self._last]


def _extremes(points: Sequence[Point]) -> list[Point]:
    """The lowest and the highest, in the order of their steps; one that is no number only where there is nothing else."""
    known = [point for point in points if not math.isnan(point[1])] or points
    low, high = min(known, key=_value), max(known, key=_value)
    return [low] if low is high else sorted((low, high))


def _value(point: Point) -> float:
    return point[1]


class Curves:
    """The curves of all metrics that a plot shows."""

    def __init__(self) -> None:
        self._curves: dict[str, Curve] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """What was logged at one step; metrics that no plot shows are left out."""
        for name in values.keys() & DRAWN:
            self._curves.setdefault(name, Curve()).add(step, values[name])

    def history(self) -> dict[str, list[Point]]:
        """Metric name -> [(step, value), ...]."""
        return {name: curve.points() for name, curve in self._curves.items()}


class JournalCurves:
    """The curves up to each plot of a journal in turn: it goes on reading where it stood."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._restart()

    def until(self, plot: Record) -> dict[str, list[Point]]:
        """The metrics that stand before the record `plot`, which may be asked for again."""
        if not self._is_at(plot) and not self._read_to(plot):
            # It stands before the place where this was: one that could not be delivered then.
            self._restart()
            self._read_to(plot)
        return self._curves.history()

    def _restart(self) -> None:
        self._curves, self._offset = Curves(), 0
        self._at: Record = {}

    def _is_at(self, plot: Record) -> bool:
        return (self._at.get("key"), self._at.get("step")) == (plot["key"], plot["step"])

    def _read_to(self, plot: Record) -> bool:
        """Read on behind the record `plot`; False where it does not come any more."""
        self._at = {}
        for record, end in self._journal.records(self._offset, ("metrics", "earlier", "plot")):
            self._offset = end
            if not is_well_formed(record):
                continue
            if record["kind"] != "plot":
                self._curves.add(record["step"], record["values"])
            elif (record["key"], record["step"]) == (plot["key"], plot["step"]):
                self._at = record
                return True
        return False
