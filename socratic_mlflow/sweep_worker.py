"""One trial of a sweep: a training in a process of its own, whose journal is read as it grows, for values and pruning.

A process of its own gives all its memory back, takes nothing down with it where it crashes, and is the very training that
`socratic-mlflow train` would make of the same configuration.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna

from socratic_mlflow.config import Config, flatten, with_values
from socratic_mlflow.journal import Journal
from socratic_mlflow.lock import hold
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.quality import collapse
from socratic_mlflow.records import is_well_formed
from socratic_mlflow.redaction import redact
from socratic_mlflow.selection import rank
from socratic_mlflow.signals import listen, restore
from socratic_mlflow.sweep_space import Dimension
from socratic_mlflow.sweep_study import RANK, best_of, original, suggest

_POLL_S = 0.1
# How long a trial's folder may be in use: the last process in it writes its checkpoint.
_PATIENCE_S = 600.0
# After which a worker that waits says for whom.
_SILENT_S = 10.0


class TrialFailedError(Exception):
    """The training of a trial failed; the sweep goes on with another."""


@dataclass(frozen=True)
class Plan:
    """A sweep as one worker was given it: its folder, what all trials share, what is searched, how many trials in all."""

    folder: Path
    config: Config
    space: tuple[Dimension, ...]
    n_trials: int
    storage: str

    @property
    def metric(self) -> str:
        """Which score is searched for."""
        return self.config.evaluation.metric_for_best_model

    def output(self, number: int) -> OutputDir:
        """The output folder of the trial of that number."""
        return OutputDir(self.folder / f"trial-{number:03d}")

    def log(self, number: int) -> Path:
        """The file with all that the trial's training printed."""
        return self.folder / "logs" / f"trial-{number:03d}.log"


class Signals:
    """While it is entered, Ctrl-C, SIGTERM and a closed terminal reach the `child`, which ends with a checkpoint; where
    there is none, they raise KeyboardInterrupt."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.heard = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard and number != signal.SIGINT:
            # Only a second Ctrl-C is impatient: `mlflow run` sends SIGTERM a quarter of a second after the first.
            return
        self.heard = self.heard or signal.Signals(number).name
        if self.child is None:
            raise KeyboardInterrupt(self.heard)
        self.child.send_signal(number)


@contextmanager
def alone(folder: Path, patience_s: float = math.inf) -> Iterator[None]:
    """Hold the lock of `folder`, waiting for whoever has it (another worker may be registering a model for as long as that
    takes); ValueError (one line) where it takes longer than `patience_s`."""
    since, said = time.monotonic(), False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold(folder))
                break
            except ValueError as error:
                waited_s = time.monotonic() - since
                if " is in use by " not in str(error) or waited_s > patience_s:
                    raise
                if waited_s > _SILENT_S and not said:
                    print(f"waiting: {str(error).partition(';')[0]}", flush=True)
                    said = True
            time.sleep(_POLL_S)
        yield


def run_trial(plan: Plan, trial: Any, parent_run: str, signals: Signals) -> float:
    """Train with the trial's values; the score of its best checkpoint.

    TrialPruned, TrialFailedError, or KeyboardInterrupt where a person stopped it; ValueError (one line) for what would stop
    every trial.
    """
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    number = original(frozen)
    values = {dimension.key: suggest(trial, dimension) for dimension in plan.space}
    again = " goes on" if number != trial.number else ""
    print(f"trial {number}{again}: {in_words(trial.params)}", flush=True)
    output = plan.output(number)
    with alone(output.folder, _PATIENCE_S):
        # The process of a worker that was killed may still have to write its checkpoint.
        pass
    with _training(plan, number, values, parent_run) as child:
        signals.child = child
        try:
            pruned = _watch(plan, trial, output, child, number)
        finally:
            signals.child = None
    return _outcome(plan, trial, number, child.returncode, pruned, signals)


def in_words(params: Mapping[str, Any]) -> str:
    """A trial's values for a line of text."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in params.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


@contextmanager
def _training(plan: Plan, number: int, values: dict[str, Any], parent_run: str) -> Iterator[subprocess.Popen[bytes]]:
    """The training's process, which has a session of its own: a terminal's Ctrl-C goes to the worker alone."""
    own = {"run.output_dir": str(plan.output(number).folder), "run.resume": "auto", "registry.register": False}
    config = with_values(plan.config, values | own)
    arguments = [f"--{key}={value}" for key, value in flatten(config).items()]
    plan.log(number).parent.mkdir(exist_ok=True)
    with plan.log(number).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "socratic_mlflow.sweep_trial", *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(number, parent_run),
            start_new_session=True,
        )
    try:
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        child.wait()


def _environment(number: int, parent_run: str) -> dict[str, str]:
    """The trial's environment: its run is no longer the one that `mlflow run` made, but nested below the sweep's."""
    import mlflow

    tags = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT", "{}"))
    tags |= {"mlflow.parentRunId": parent_run, "mlflow.runName": f"trial {number}", "trial": str(number)}
    own = {"MLFLOW_RUN_CONTEXT": json.dumps(tags), "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"} | own


def _watch(plan: Plan, trial: Any, output: OutputDir, child: subprocess.Popen[bytes], number: int) -> str:
    """Report each evaluation until the process ends; why it was told to stop, or '' where it was not."""
    pruned, offset, ended, seen = "", 0, False, set[int]()
    while not ended:
        # Asked first, so that what it wrote last is read once more after its end.
        ended = child.poll() is not None
        for record, end in Journal(output.journal).records(offset):
            offset = end
            step, value = _evaluation(record, plan.metric)
            if pruned or step <= 0 or step in seen:
                continue
            seen.add(step)
            trial.report(value, step)
            print(f"  trial {number}, step {step}: {_word(plan)} {value:.3f}", flush=True)
            if trial.should_prune():
                pruned = f"at step {step}: {_word(plan)} {value:.3f} at most, below the other trials' median"
                child.terminate()
        time.sleep(0 if ended else _POLL_S)
    return pruned


def _evaluation(record: Mapping[str, Any], metric: str) -> tuple[int, float]:
    """(step, score) of an evaluation's record; step -1 for any other. Replies that have collapsed score 0, whatever their
    style: no checkpoint is chosen for it."""
    if record["kind"] != "metrics" or not is_well_formed(record) or f"eval/{metric}" not in record["values"]:
        return -1, 0.0
    return int(record["step"]), _score(record["values"][f"eval/{metric}"], record["values"].get("eval/hollow_share", 0.0))


def _score(value: float, hollow_share: float) -> float:
    return 0.0 if collapse(hollow_share) else round(float(value), 6)


def _word(plan: Plan) -> str:
    return plan.metric.removeprefix("socratic_")


def _outcome(plan: Plan, trial: Any, number: int, code: int, pruned: str, signals: Signals) -> float:
    """The value of a trial whose process has ended with `code`, or the exception that says how it ended instead."""
    output = plan.output(number)
    if code == 0:
        candidate = _candidate(output)
        metrics = candidate["metrics"]
        trial.set_user_attr("run_id", output.state().get("run_id", ""))
        trial.set_user_attr("step", candidate["step"])
        trial.set_user_attr("loss", metrics.get("loss"))
        # As among the checkpoints of one training: of equal scores, the lower loss.
        trial.set_user_attr(RANK, rank(metrics, plan.metric))
        return _score(metrics[plan.metric], metrics.get("hollow_share", 0.0))
    if signals.heard or (code == 130 and not pruned):
        raise KeyboardInterrupt(signals.heard or f"trial {number} was interrupted")
    if pruned:
        trial.set_user_attr("run_id", _say_pruned(output, pruned))
        print(f"trial {number} pruned {pruned}", flush=True)
        raise optuna.TrialPruned
    last = _last_line(plan.log(number))
    if code == 2 and best_of(trial.study) is None:
        # Nothing has worked so far: most likely the command's own fault, not that of this trial's values.
        raise ValueError(f"trial {number}: {last.removeprefix('socratic-mlflow: error: ')}")
    raise TrialFailedError(f"trial {number} failed (exit code {code}): {last}; more in {plan.log(number)}")


def _candidate(output: OutputDir) -> dict[str, Any]:
    """What the finished training has found to be its best: step, metrics and more."""
    found = [record for record, _ in Journal(output.journal).records() if record["kind"] == "register"]
    if not found or not is_well_formed(found[-1]):
        raise TrialFailedError(f"{output.journal} does not say what the training came to")
    return dict(found[-1]["candidate"])


def _say_pruned(output: OutputDir, why: str) -> str:
    """Tell the trial's run, which its process has left KILLED, that this was no accident; returns its id."""
    from socratic_mlflow.tracking import Tracker

    with hold(output.folder):
        tracker = Tracker(output.journal, lambda line: print(line, flush=True))
        try:
            tracker.set_tags({"pruned": why, "error": f"pruned {why}"})
            tracker.drain()
            return tracker.run_id
        finally:
            tracker.close()


def _last_line(file: Path) -> str:
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - 4000))
        lines = log.read().decode("utf-8", "replace").splitlines()
    return redact(next((line for line in reversed(lines) if line.strip()), "it said nothing"))[:500]
