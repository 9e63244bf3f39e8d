"""A preset's training as a user starts it: how long the whole command takes, and what of it the evaluations are.

    python benchmarks/preset.py [--preset embedded] [--epochs 30] [--repeats N]

`socratic-mlflow train` in an empty folder with a new SQLite store, from its start to its exit, registration included. On a
GPU: `--preset gemma-2-2b-jpn-it`. Nothing stands beside it: this is the project's own promise, so run it alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Claim, add_arguments, publish

# Seconds, for the embedded preset's 30 epochs on two cores; what any preset's evaluations add to the rest of its training.
_MOST_S, _MOST_ADDED = 300, 0.15
# They would have the run elsewhere.
_ELSEWHERE = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI")


def train(preset: str, epochs: int) -> tuple[float, float]:
    """(seconds from the command's start to its end, time of the evaluations over that of the rest of the training)."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        here = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        given = ["--preset", preset, "--epochs", str(epochs), "--output_dir", "out"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "socratic_mlflow", "train", *given],
            cwd=folder,
            env=here | {"MLFLOW_TRACKING_URI": store},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        share = _share(store)
        return seconds, share / (1 - share)


def _share(store: str) -> float:
    from mlflow import MlflowClient

    (run,) = MlflowClient(store).search_runs(["0"])
    return float(run.data.metrics["summary/evaluation_share"])


def main() -> None:
    """Train, and print both figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    seconds, added = zip(*(train(args.preset, args.epochs) for _ in range(args.repeats)), strict=True)
    promised = args.preset == "embedded" and args.epochs == 30
    claims = [
        Claim(
            f"{args.preset}, {args.epochs} epochs, the whole command", "s", seconds, at_most=_MOST_S if promised else None
        ),
        Claim("its evaluations, over the rest of the training", "share", added, at_most=_MOST_ADDED),
    ]
    publish("A preset", claims, args, preset=args.preset, epochs=args.epochs)


if __name__ == "__main__":
    main()
