"""The Optuna study of a sweep: opened or joined, what is to be done next in it, and how a trial comes back.

A trial whose worker was killed (Optuna's own retry) or interrupted is queued again with the same values, under the number
of the first try: so it finds its output folder, and goes on from its checkpoint. Knows nothing of MLflow.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, Trial, TrialState

from socratic_mlflow.redaction import redact, without_credentials
from socratic_mlflow.sweep_space import Dimension

# Seconds between two signs of life of a worker, and after which one is taken for dead.
HEARTBEAT_S, GRACE_S = 10, 60
# A trial that takes its worker down again and again (the machine, for lack of memory) is given up.
_MOST_RETRIES = 5
_DEFINITION, _BEGUN = "definition", "begun"
# The user attribute of a trial that has come to its end, by which it is compared with others.
RANK = "rank"


def open_study(url: str, name: str, n_trials: int) -> Any:
    """The study `name` in the storage at `url`, made where it is missing; ValueError (one line) where it cannot be."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    # What is experimental in Optuna, a last step that is shorter, an axis with one value: nothing to be told about.
    warnings.filterwarnings("ignore", module=r"optuna\.")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # SQLite: how long a worker waits for another one's write.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        storage = RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES),
        )
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=min(5, _to_learn_from(n_trials))),
            load_if_exists=True,
        )
    # Whatever the driver of a database raises, also where there is none.
    except Exception as error:
        # SQLAlchemy's own texts go on with the statement and an address.
        reason = redact(" ".join(str(getattr(error, "orig", error)).split()))[:300]
        raise ValueError(f"the storage {without_credentials(url)} cannot be used ({reason})") from None


def seed_next_trial(study: Any, seed: int, n_trials: int) -> None:
    """Choose the next trial's values with a seed of its own: of one seed, a second worker and a second start would draw the
    very values that the first one has tried. For somebody who is alone in the sweep's folder."""
    number = len(study.get_trials(deepcopy=False))
    study.sampler = TPESampler(seed=(seed + number) % 2**32, n_startup_trials=min(10, _to_learn_from(n_trials)))


def _to_learn_from(n_trials: int) -> int:
    """How many trials come first, drawn by lot and never pruned; of a short search, too, the others learn from them."""
    return max(1, n_trials // 4)


def agree(study: Any, definition: Mapping[str, str]) -> None:
    """Write down what the study searches, once; ValueError (one line) where it is another search than `definition`."""
    before = study.user_attrs.get(_DEFINITION)
    if before is None:
        study.set_user_attr(_DEFINITION, json.dumps(definition))
        return
    known = json.loads(before)
    for key in {**known, **definition}:
        if known.get(key) != definition.get(key):
            raise ValueError(
                f"the sweep {study.study_name} was begun with {key}={known.get(key, 'not given')}, not "
                f"{definition.get(key, 'not given')}; its trials would not compare, so choose another output_dir"
            )


def suggest(trial: Trial, dimension: Dimension) -> Any:
    """The value of one field in this trial."""
    if dimension.choices:
        return trial.suggest_categorical(dimension.flag, dimension.choices)
    if dimension.type is int:
        step = int(dimension.step or 1)
        return trial.suggest_int(dimension.flag, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(dimension.flag, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def original(trial: Any) -> int:
    """The number of the first try of this trial, which its output folder bears."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def latest(study: Any) -> list[FrozenTrial]:
    """The last try of each trial, in the order of their first ones."""
    tries = {original(trial): trial for trial in sorted(study.get_trials(deepcopy=False), key=lambda each: each.number)}
    return [tries[number] for number in sorted(tries)]


def best_of(study: Any) -> FrozenTrial | None:
    """The trial of the highest rank (`selection.rank`), the first of equals; None where none has come to its end.

    Trials that a person has added from elsewhere teach the sampler; they have no rank, and no adapter here.
    """
    complete = [trial for trial in latest(study) if trial.state == TrialState.COMPLETE and RANK in trial.user_attrs]
    return max(complete, key=lambda trial: tuple(trial.user_attrs[RANK]), default=None)


def to_do(study: Any, n_trials: int) -> str:
    """'try' where a trial is waiting or to be made, 'wait' where the last ones are at work elsewhere, else 'done'.

    Those of workers that give no sign of life any more are queued again first.
    """
    optuna.storages.fail_stale_trials(study)
    _fail_unbegun(study)
    trials = latest(study)
    states = {trial.state for trial in trials}
    if TrialState.WAITING in states or len(trials) < n_trials:
        return "try"
    return "wait" if TrialState.RUNNING in states else "done"


@contextmanager
def sign_of_life(study: Any, trial: Trial) -> Iterator[None]:
    """While it is entered, the trial's worker is not taken for dead. (`optimize` gives signs of life, `ask` does not.)"""
    # The first one by ourselves: of a trial without any, Optuna never notices that its worker is dead.
    study._storage.record_heartbeat(trial._trial_id)
    with get_heartbeat_thread(trial._trial_id, study._storage):
        trial.set_user_attr(_BEGUN, trial.number)
        yield


def _fail_unbegun(study: Any) -> None:
    """Queue again what was left by a worker that was killed between the trial's creation and its first sign of life: Optuna
    takes none for dead that never gave one. Whoever is alone in the sweep's folder knows that nobody is just there."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(_BEGUN) != trial.number:
            give_back(study, trial)


def give_back(study: Any, trial: Any) -> None:
    """Let the next worker go on with a trial that was interrupted, however often. For somebody who is alone in the sweep's
    folder; without effect where it was taken for dead, and so queued again, before."""
    known = study.get_trials(deepcopy=True)[trial.number]
    if known.state != TrialState.RUNNING:
        return
    study.tell(known.number, state=TrialState.FAIL)
    # Not by Optuna's callback, which counts each time as a crash (`retry_history`), of which there may be a few only.
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=known.params,
            distributions=known.distributions,
            user_attrs=known.user_attrs,
            system_attrs={"failed_trial": known.number} | known.system_attrs,
        )
    )
