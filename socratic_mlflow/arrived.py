"""Which metrics a run holds already. Reads no more of it than it must: a long training has a million values."""

from __future__ import annotations

from typing import Any


class Arrived:
    """The metrics of the run `run_id` as they stand now."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        # Of each metric, a store tells the value at the last step together with the run.
        self._last = {metric.key: metric.step for metric in client.get_run(run_id).data._metric_objs}
        self._steps: dict[str, set[int]] = {}

    def has(self, name: str, step: int) -> bool:
        """Whether the run holds the metric `name` at `step`."""
        if step > self._last.get(name, -1):
            return False
        if name not in self._steps:
            self._steps[name] = {point.step for point in self._client.get_metric_history(self._run_id, name)}
        return step in self._steps[name]
