"""`socratic-mlflow sweep`: trainings with other hyper-parameters, each a nested run; the best adapter is registered."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from socratic_mlflow.commands import _digests
from socratic_mlflow.config import Config, flatten, with_values
from socratic_mlflow.options import NOT_GIVEN, build_config, parse_values
from socratic_mlflow.quiet import quiet
from socratic_mlflow.run_config import is_run_config
from socratic_mlflow.sweep_folder import check_folder, tie
from socratic_mlflow.sweep_space import Dimension, read_space

# What may differ between workers of one sweep, and between its starts.
_MAY_DIFFER = ("run.", "registry.", "training.dataloader_", "training.save_total_limit")
_WAIT_S = 1.0


def sweep(n_trials: int, space: str, storage: str, given: Mapping[str, Any], yaml_path: str | None) -> int:
    """Begin, join or go on with a sweep, up to `n_trials` in all; returns the exit code.

    Fields in `given` (flags) are fixed; `space` and `storage` are 'default' where they are not given. ValueError (one line)
    for a user's mistake.
    """
    quiet()
    _check_storage(storage)
    from socratic_mlflow.model import cuda_available
    from socratic_mlflow.run_lifecycle import be_brief, run_of, store_trouble
    from socratic_mlflow.sweep_worker import Plan, Signals, alone

    be_brief()
    config = build_config(given, yaml_path, cuda_available)
    fixed = parse_values(given)
    dimensions = read_space(space, config.run.preset, fixed)
    definition = _definition(config, dimensions)
    # Of a run that is named as --config, its own folder is not meant.
    chosen = fixed.get("run.output_dir", "auto" if yaml_path and is_run_config(yaml_path) else config.run.output_dir)
    folder = Path(chosen if chosen != "auto" else _folder(config, definition))
    check_folder(folder)
    if trouble := store_trouble(run_of(folder / "journal")):
        raise ValueError(f"MLflow cannot be reached ({trouble}), and a sweep needs it to begin")
    url = f"sqlite:///{folder.absolute()}/study.db" if storage == NOT_GIVEN else storage
    plan = Plan(folder, with_values(config, {"run.output_dir": str(folder)}), tuple(dimensions), n_trials, url)
    from socratic_mlflow import sweep_run

    with Signals() as signals:
        with alone(folder):
            study = _join(plan, definition)
            parent = sweep_run.begin(plan)
        try:
            return _work(plan, study, parent, signals)
        except BaseException as error:
            with alone(folder):
                _end_badly(plan, study, error)
            raise


def _check_storage(url: str) -> None:
    """Raise ValueError where `mlflow run` was given a password in `url`: it logs all that it is given, as it is."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or url == NOT_GIVEN:
        return
    try:
        parts = make_url(url)
    except ArgumentError:
        # Said where it is used.
        return
    if parts.password or {"password", "passwd"} & parts.query.keys():
        raise ValueError(
            f"storage holds a password, which mlflow run has logged as a param of run {run_id}: delete that run, change "
            "the password, and give it in ~/.pgpass or PGPASSWORD (for PostgreSQL), not in -P storage="
        )


def _definition(config: Config, dimensions: list[Dimension]) -> dict[str, str]:
    """What makes trials of one sweep comparable: the space, the fixed fields, the contents of the data."""
    searched = {dimension.key: f"search({dimension.in_words()})" for dimension in dimensions}
    fields = {key: str(value) for key, value in flatten(config).items() if not key.startswith(_MAY_DIFFER)}
    return fields | searched | _digests(config)


def _folder(config: Config, definition: Mapping[str, str]) -> str:
    """The folder that output_dir=auto stands for: the same for the same command, which so goes on."""
    import mlflow

    from socratic_mlflow.redaction import without_credentials
    from socratic_mlflow.tracking import absolute

    store = absolute(without_credentials(mlflow.get_tracking_uri()))
    name = config.registry.registered_model_name
    digest = hashlib.sha256(json.dumps([definition, store, name], sort_keys=True).encode()).hexdigest()
    return f"outputs/sweep-{config.run.preset}-{digest[:8]}"


def _join(plan: Any, definition: Mapping[str, str]) -> Any:
    """The study, new or found; ValueError (one line) where it is another search or `resume` forbids it."""
    from socratic_mlflow.sweep_study import agree, latest, open_study

    study = open_study(plan.storage, plan.folder.name, plan.n_trials)
    tie(plan.folder, study, plan.storage)
    trials, resume = len(latest(study)), plan.config.run.resume
    if (resume, bool(trials)) in (("never", True), ("must", False)):
        raise ValueError(f"resume={resume}, but the study {study.study_name} in {plan.folder} has {trials} trials")
    agree(study, definition)
    print(f"sweep  {plan.folder}: {trials} trials so far, {plan.n_trials} in all; study {study.study_name}", flush=True)
    for dimension in plan.space:
        print(f"       {dimension.flag}: {dimension.in_words()}", flush=True)
    return study


def _work(plan: Any, study: Any, parent: str, signals: Any) -> int:
    """Trials, one after the other, until there are enough; then the end, by whichever worker comes to it first."""
    from socratic_mlflow import sweep_run
    from socratic_mlflow.sweep_study import to_do
    from socratic_mlflow.sweep_worker import alone

    said = False
    while True:
        with ExitStack() as claim:
            # Alone until the trial is claimed, so that two workers do not both make the last one.
            claim.enter_context(alone(plan.folder))
            todo = to_do(study, plan.n_trials)
            if todo == "done":
                return _conclude(plan, study)
            if todo == "try":
                _try(plan, study, parent, signals, claim)
        if todo == "try":
            with alone(plan.folder):
                sweep_run.show(plan, study)
                sweep_run.drop_checkpoints(plan, study)
            if signals.heard:
                # It came too late for that trial.
                raise KeyboardInterrupt(signals.heard)
        else:
            if not said:
                print("waiting for the last trials, which other workers have (or had, until they were killed)", flush=True)
            said = True
            time.sleep(_WAIT_S)


def _try(plan: Any, study: Any, parent: str, signals: Any, claim: ExitStack) -> None:
    """One trial; `claim` is given back once it is ours. One that is stopped, or cannot begin, is queued again."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    from socratic_mlflow.sweep_study import give_back, seed_next_trial, sign_of_life
    from socratic_mlflow.sweep_worker import TrialFailedError, alone, run_trial

    seed_next_trial(study, plan.config.training.seed, plan.n_trials)
    trial, value, state = study.ask(), None, TrialState.FAIL
    with sign_of_life(study, trial):
        claim.close()
        try:
            value, state = run_trial(plan, trial, parent, signals), TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except TrialFailedError as error:
            print(f"warning: {error}", flush=True)
        except (KeyboardInterrupt, ValueError, OSError):
            # Nobody is to see it failed and not queued yet: to them the sweep would be over, and its checkpoints useless.
            with alone(plan.folder):
                give_back(study, trial)
            raise
        except Exception:
            study.tell(trial, None, TrialState.FAIL)
            raise
    # One that was taken for dead meanwhile, while this machine slept say, is queued again already.
    study.tell(trial, value, state, skip_if_finished=True)


def _conclude(plan: Any, study: Any) -> int:
    """Register the best adapter, show how it went, end the run; returns the exit code."""
    from socratic_mlflow import sweep_run
    from socratic_mlflow.sweep_study import best_of, original
    from socratic_mlflow.sweep_worker import in_words

    sweep_run.show(plan, study)
    sweep_run.drop_checkpoints(plan, study)
    best = best_of(study)
    if best is None:
        text = f"none of {plan.n_trials} trials came to its end; what they printed is in {plan.folder / 'logs'}"
        sweep_run.end(plan, "FAILED", {"error": text})
        print(f"socratic-mlflow: error: {text}", file=sys.stderr, flush=True)
        return 1
    print(f"best   trial {original(best)}: {plan.metric} {best.value:.3f} with {in_words(best.params)}", flush=True)
    code, model = sweep_run.register_best(plan, best) if plan.config.registry.register else (0, "")
    sweep_run.end(plan, "FINISHED", {"registered_model": model} if model else None)
    if run_id := plan.output(original(best)).state().get("run_id"):
        print(f"again  socratic-mlflow train --config runs:/{run_id}/config.yaml", flush=True)
    return code


def _end_badly(plan: Any, study: Any, error: BaseException) -> None:
    """End the run as `error` has it, unless another worker is still at it or has ended it."""
    from optuna.trial import TrialState

    from socratic_mlflow import sweep_run
    from socratic_mlflow.sweep_study import to_do

    if study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        return
    if to_do(study, plan.n_trials) == "done":
        if sweep_run.is_over(plan):
            return
        if sweep_run.is_registered(plan, study):
            # A start that had nothing left to do does not undo what is done.
            sweep_run.end(plan, "FINISHED")
            return
    stopped = isinstance(error, KeyboardInterrupt | SystemExit)
    sweep_run.end(plan, "KILLED" if stopped else "FAILED", {"error": f"{type(error).__name__}: {error}"[:500]})
    if stopped:
        print(f"stopped; the same command goes on (files in {os.fspath(plan.folder)})", flush=True)
