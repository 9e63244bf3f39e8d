"""What the tests of trackers share."""

from __future__ import annotations

from mlflow import MlflowClient


def run_of(tracker):
    """The run, with all that was said so far."""
    assert tracker.drain()
    return MlflowClient().get_run(tracker.run_id)
