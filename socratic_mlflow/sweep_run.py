"""The MLflow run of a sweep, below which its trials are nested, and the files that the sweep keeps.

Several workers write the same journal in turn, each while it is alone in the sweep's folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from socratic_mlflow.config import with_values
from socratic_mlflow.journal import Journal
from socratic_mlflow.lock import hold
from socratic_mlflow.options import as_params, build_config, to_yaml
from socratic_mlflow.redaction import without_credentials
from socratic_mlflow.sweep_plots import pictures
from socratic_mlflow.sweep_study import best_of, latest, original
from socratic_mlflow.sweep_worker import Plan, in_words
from socratic_mlflow.tracking import Tracker

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@contextmanager
def _tracker(plan: Plan) -> Iterator[Tracker]:
    """The sweep's run, for somebody who is alone in its folder; what is said to it is delivered at the end."""
    made_for_us = os.environ.get("MLFLOW_RUN_ID", "")
    tracker = Tracker(plan.folder / "journal", lambda line: print(line, flush=True), made_for_us)
    try:
        yield tracker
        tracker.drain()
    finally:
        tracker.close()


def begin(plan: Plan) -> str:
    """The run is running, and shows what is searched; returns its id. ConnectionError (one line) where MLflow is away:
    trials that do not know their parent would never be nested."""
    with _tracker(plan) as tracker:
        tracker.start(os.environ.get("MLFLOW_RUN_ID", ""))
        searched = {dimension.key for dimension in plan.space}
        fixed = {key: value for key, value in as_params(plan.config).items() if key not in searched}
        tracker.log_params(fixed | {f"space.{dimension.flag}": dimension.in_words() for dimension in plan.space})
        tracker.log_params({"search.sampler": "TPE", "search.pruner": "median", "search.metric": plan.metric})
        tracker.set_tags({"mlflow.runName": plan.folder.name, "preset": plan.config.run.preset, "sweep": "true"})
        tracker.set_tags({"n_trials": plan.n_trials, "storage": without_credentials(plan.storage)})
        tracker.log_text(to_yaml(plan.config), "config.yaml")
        tracker.drain()
        if not tracker.run_id:
            raise ConnectionError(f"MLflow cannot be reached ({tracker.trouble}), and a sweep needs it to begin")
        return tracker.run_id


def show(plan: Plan, study: Any) -> None:
    """Bring the run up to date: scores over the trials, the table of all, pictures, the best so far."""
    trials, best = latest(study), best_of(study)
    with _tracker(plan) as tracker:
        _log_scores(tracker, trials)
        tracker.log_table([_row(plan, trial) for trial in trials], "trials.json")
        if best:
            tracker.set_tags({"best_trial": original(best), "best_run": best.user_attrs.get("run_id", "")})
            tracker.set_tags({"mlflow.note.content": _description(plan, best)})
        run_id = tracker.run_id
    _send(run_id, lambda: pictures(study, plan.metric))


def _description(plan: Plan, best: FrozenTrial) -> str:
    values = f"trial {original(best)}, {plan.metric} {best.value:.3f} with {in_words(best.params)}"
    return f"A search: the best so far is {values}. Its pictures and the table of all trials are among the artifacts."


def _send(run_id: str, draw: Callable[[], dict[str, bytes]]) -> None:
    """The pictures as artifacts, each in its predecessor's place. Not by `log_image`: behind a run's many params MLflow
    shows next to nothing of such an image. Where MLflow is away, or Optuna cannot draw what people have added to the study,
    they come with a later trial."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Exception):
        for name, png in draw().items():
            (Path(scratch) / f"{name}.png").write_bytes(png)
        MlflowClient().log_artifacts(run_id, scratch)


def end(plan: Plan, status: str, tags: dict[str, Any] | None = None) -> None:
    """End the run FINISHED, FAILED or KILLED."""
    with _tracker(plan) as tracker:
        tracker.end(status, tags)


def is_over(plan: Plan) -> bool:
    """Whether the run was ended, by whichever worker, and not begun again since."""
    kinds = [record["kind"] for record, _ in Journal(plan.folder / "journal").records(kinds=("start", "end"))]
    return kinds[-1:] == ["end"]


def is_registered(plan: Plan, study: Any) -> bool:
    """Whether there is a best trial, and its adapter is registered where it is to be."""
    best = best_of(study)
    return best is not None and (not plan.config.registry.register or "model" in plan.output(original(best)).state())


def _log_scores(tracker: Tracker, trials: list[FrozenTrial]) -> None:
    """search/... with the number of trials that have ended as the step, in the order of their ends."""
    ended = sorted((trial for trial in trials if trial.state in _ENDED), key=lambda trial: trial.datetime_complete)
    best, pruned, failed = float("-inf"), 0, 0
    for step, trial in enumerate(ended, 1):
        pruned, failed = pruned + (trial.state == TrialState.PRUNED), failed + (trial.state == TrialState.FAIL)
        values: dict[str, float] = {"search/pruned": pruned, "search/failed": failed}
        if trial.state == TrialState.COMPLETE:
            best = max(best, trial.value)
            values |= {"search/value": trial.value, "search/best_value": best}
        tracker.log_metrics(values, step)


def _row(plan: Plan, trial: FrozenTrial) -> dict[str, Any]:
    reached = max(trial.intermediate_values, default=None)
    return {
        "trial": original(trial),
        "state": trial.state.name.lower(),
        plan.metric: trial.value if trial.state == TrialState.COMPLETE else None,
        "loss": trial.user_attrs.get("loss"),
        "last evaluation": trial.intermediate_values[reached] if reached is not None else None,
        "last step": reached,
        **{dimension.flag: trial.params.get(dimension.flag) for dimension in plan.space},
        "duration_s": round(trial.duration.total_seconds(), 1) if trial.duration else None,
        "run_id": trial.user_attrs.get("run_id", ""),
    }


def drop_checkpoints(plan: Plan, study: Any) -> None:
    """Delete the checkpoints of trials that have ended and are not the best one; the adapters stay."""
    best = best_of(study)
    for trial in latest(study):
        folder = plan.output(original(trial)).checkpoints
        if trial.state in _ENDED and (best is None or trial.number != best.number) and folder.is_dir():
            # Never through a link; and what cannot be deleted is no reason to stop.
            shutil.rmtree(folder, ignore_errors=True)


def register_best(plan: Plan, best: FrozenTrial) -> tuple[int, str]:
    """(exit code, models:/NAME/VERSION or '') of registering the best trial's adapter as a training's own would be."""
    from socratic_mlflow.sync_command import sync_one

    output = plan.output(original(best))
    with hold(output.folder):
        code = 0
        if "model" not in output.state():
            own = {f"registry.{name}": value for name, value in vars(plan.config.registry).items()}
            output.record(with_values(build_config({}, str(output.config_file)), own))
            code = sync_one(output)
        return code, output.state().get("model", "")
