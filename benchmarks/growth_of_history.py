"""Whether tracking slows down with the steps that were logged: 1,000 beside 100,000.

    python benchmarks/growth_of_history.py [--few 1000] [--many 100000] [--repeats 3] [--json FILE]

Each repetition fills a journal as a training does, in a process of its own, delivers it to a new SQLite store, and goes on
in it: one step more, one plot more, a start of the next process. Every ratio is many / few, so 1 says that nothing grows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, publish

# What is measured after so many steps: name -> (unit, the most that the ratio may be).
MEASURED = {
    "a step's record in the journal": ("ms", 1.5),
    "curves and picture of one more plot": ("s", 1.5),
    "delivery of 1,000 steps to SQLite": ("s", 1.5),
    "the same 1,000 steps by MlflowClient.log_batch alone": ("s", None),
    "delivery of 1,000 steps after an answer that was lost": ("s", None),
    "start of a process that goes on": ("s", None),
    "memory that the tracking has taken": ("MiB", None),
}


def values_at(step: int) -> dict[str, float]:
    """What a training logs at every step."""
    return {
        "train/loss": 1 + math.exp(-step / 5000) + 0.1 * math.sin(step * step),
        "train/learning_rate": 1e-4 / (1 + step),
        "train/grad_norm": abs(math.sin(step)),
        "train/epoch": step / 1000,
        "train/tokens_per_s": 1000 + math.sin(step),
        "memory/rss_gib": 1.0 + 1e-7 * step,
    }


def measure(steps: int, folder: Path) -> dict[str, float]:
    """Everything of MEASURED, after `steps` steps."""
    from socratic_mlflow.importing import quick_imports

    # As a training does it: the garbage collector never looks through what was imported, which takes as long as hundreds of
    # steps and fell into some measurements and not into others.
    with quick_imports():
        import mlflow
        import psutil

        from socratic_mlflow.tracking import Tracker

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.MlflowClient().search_experiments()
        process = psutil.Process()
        tracker = Tracker(folder / "journal", print)
        # What is imported at the first use is no growth.
        _log(tracker, 1, 11)
        tracker.log_plot("training_progress", 10)
        tracker.drain()
    before = process.memory_info().rss
    # As the shipper finds it, again and again, and not as one heap of everything.
    for start in range(11, steps + 1, 1000):
        _log(tracker, start, min(start + 1000, steps + 1))
        tracker.drain()
    found = {
        "a step's record in the journal": 1000 * _seconds(lambda: _log(tracker, steps + 1, steps + 1001)) / 1000,
        "delivery of 1,000 steps to SQLite": _seconds(tracker.drain),
        # At steps that the journal never comes to.
        "the same 1,000 steps by MlflowClient.log_batch alone": _by_mlflow(tracker.run_id, steps + 10_000),
    }
    # The curves up to here are read once in a training; what each plot costs is the next one's.
    for step in (steps + 1000, steps + 1001):
        tracker.log_metrics(values_at(step), step)
        tracker.log_plot("training_progress", step)
        found["curves and picture of one more plot"] = _seconds(tracker.drain)
    found["memory that the tracking has taken"] = (process.memory_info().rss - before) / 2**20
    tracker.close()
    return found | _going_on(folder / "journal", steps)


def _by_mlflow(run_id: str, first: int) -> float:
    """Seconds that MLflow's own client takes for 1,000 steps, in as few requests as it allows, once it has sent one row."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    # Each step at a time of its own, as the journal has them.
    steps = range(first, first + 1000)
    rows = [Metric(name, value, now + step, step) for step in steps for name, value in values_at(step).items()]
    client = MlflowClient()
    client.log_batch(run_id, metrics=[Metric("train/loss", 1.0, now, first - 1)])
    batches = [rows[start : start + 1000] for start in range(0, len(rows), 1000)]
    return _seconds(lambda: [client.log_batch(run_id, metrics=batch) for batch in batches])


def _going_on(folder: Path, steps: int) -> dict[str, float]:
    from socratic_mlflow.journal import Journal
    from socratic_mlflow.tracking import Tracker

    start: list[Tracker] = []
    seconds = _seconds(lambda: start.append(Tracker(folder, print)))
    (tracker,) = start
    _log(tracker, steps + 2001, steps + 3001)
    state = Journal(folder).delivered()
    tracker.drain()
    tracker.close()
    # MLflow has the last 1,000 steps, and this process was never told.
    Journal(folder).mark_delivered(state)
    again = Tracker(folder, print)
    lost = _seconds(again.drain)
    again.close()
    return {
        "start of a process that goes on": seconds,
        "delivery of 1,000 steps after an answer that was lost": lost,
    }


def _log(tracker: Any, first: int, end: int) -> None:
    for step in range(first, end):
        tracker.log_metrics(values_at(step), step)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_a_process_of_its_own(steps: int) -> dict[str, float]:
    """`measure`, where no other measurement has left anything behind."""
    with tempfile.TemporaryDirectory() as folder:
        given = [sys.executable, __file__, "--measure", str(steps), "--folder", folder]
        done = subprocess.run(given, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure both, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    add_arguments(parser)
    args = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder)))
        return
    pairs = [(in_a_process_of_its_own(args.many), in_a_process_of_its_own(args.few)) for _ in range(args.repeats)]
    claims = [
        Claim(
            f"{what}, after {args.many:,}", unit, [many[what] for many, _ in pairs], [few[what] for _, few in pairs],
            f"after {args.few:,}", at_most=limit,
        )
        for what, (unit, limit) in MEASURED.items()
    ]  # fmt: skip
    publish("Growth with the steps logged", claims, args, metrics_a_step=len(values_at(1)))


if __name__ == "__main__":
    main()
