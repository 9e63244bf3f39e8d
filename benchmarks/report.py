"""What every benchmark here says in the same way: a table of both sides with their ratio, JSON, on request an MLflow run.

A `Claim` holds what was measured, several times over; where there is an alternative, the two were measured in turn, so that
the pair's ratio holds on a machine whose speed drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One line of a table. `ours` and `theirs` (empty where nothing stands beside it) are the measured values, in `unit`.

    The limits are those of ours / theirs, or of ours alone where there is no `theirs`.
    """

    what: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def judged(self) -> list[float]:
        """What the limits are about: the ratios pair by pair, or the values."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.theirs else list(self.ours)

    def verdict(self) -> str:
        """The median against the limits: 'met', 'missed', or '' where there is none."""
        middle = statistics.median(self.judged())
        low = self.at_least is None or middle >= self.at_least
        high = self.at_most is None or middle <= self.at_most
        return "" if self.at_least is None and self.at_most is None else "met" if low and high else "missed"

    def row(self) -> list[str]:
        """The cells of the table."""
        limits = [] if self.at_least is None else [f"at least {self.at_least:g}"]
        limits += [] if self.at_most is None else [f"at most {self.at_most:g}"]
        ratio = _spread(self.judged()) if self.theirs else ""
        theirs = f"{self.against}: {_spread(self.theirs)}" if self.theirs else ""
        return [f"{self.what} ({self.unit})", _spread(self.ours), theirs, ratio, " ".join(limits), self.verdict()]


def _spread(values: Sequence[float]) -> str:
    """Median, and in brackets the least and the greatest."""
    middle, least, most = (f"{value:.3g}" for value in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def peak_resident() -> int:
    """Bytes; not getrusage's figure, which begins with that of the process that started this one."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let `peak_resident` begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json FILE and --mlflow EXPERIMENT."""
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--mlflow", metavar="EXPERIMENT", help="log them to this MLflow experiment as well")


def publish(title: str, claims: Sequence[Claim], args: argparse.Namespace, **setting: Any) -> None:
    """Print the table (Markdown), and write and log it where `args` ask for it; `setting` says what was measured."""
    machine = _machine()
    head = ["", "this project", "against", "ratio", "target", ""]
    print(f"\n## {title}\n\n{', '.join(f'{name} {value}' for name, value in (machine | setting).items())}\n")
    for cells in (head, ["---"] * len(head), *(claim.row() for claim in claims)):
        print("| " + " | ".join(cells) + " |")
    found = {"title": title, "machine": machine, "setting": setting, "claims": [asdict(claim) for claim in claims]}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    if args.mlflow:
        _log(found, claims, args.mlflow)


def _machine() -> dict[str, str]:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    libraries = {name: version(name) for name in ("torch", "transformers", "mlflow")}
    return {"cores": str(os.cpu_count()), "gpu": gpu, "python": platform.python_version()} | libraries


def _log(found: dict[str, Any], claims: Sequence[Claim], experiment: str) -> None:
    import mlflow

    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=found["title"]):
        mlflow.log_params(found["machine"] | found["setting"])
        mlflow.log_dict(found, "benchmark.json")
        for number, claim in enumerate(claims):
            mlflow.log_metric(f"claim_{number:02d}", statistics.median(claim.judged()))
