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

# Seconds, for the embedded preset's 30 epochs on two cores; any preset's evaluations, as a share of its training.
_MOST_S, _MOST_SHARE = 300, 0.15


def train(preset: str, epochs: int) -> tuple[float, float]:
    """(seconds from the command's start to its end, share of the training that the evaluations took)."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        given = ["--preset", preset, "--epochs", str(epochs), "--output_dir", "out"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "socratic_mlflow", "train", *given],
            cwd=folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": store},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return seconds, _share(store)


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
    seconds, shares = zip(*(train(args.preset, args.epochs) for _ in range(args.repeats)), strict=True)
    promised = args.preset == "embedded" and args.epochs == 30
    claims = [
        Claim(
            f"{args.preset}, {args.epochs} epochs, the whole command", "s", seconds, at_most=_MOST_S if promised else None
        ),
        Claim("of the training, its evaluations", "share", shares, at_most=_MOST_SHARE),
    ]
    publish("A preset", claims, args, preset=args.preset, epochs=args.epochs)


if __name__ == "__main__":
    main()
