"""What a person calls a run (its id, the beginning of that, its name, or just the last ones) -> MLflow runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

# What every training logs, and an evaluation does not; a sweep's own run has it too, and is none.
_OF_TRAININGS, _OF_SWEEPS = "training.epochs", "sweep"
_FEWEST_DIGITS = 4


def last_trainings(experiment: Any, count: int) -> list[Any]:
    """The last `count` finished trainings of the experiment, the newest first; ValueError where there is none."""
    finished = _search([experiment.experiment_id], "attributes.status = 'FINISHED'")
    found = [run for run, _ in zip(_trainings(finished), range(count), strict=False)]
    if not found:
        raise ValueError(f"experiment {experiment.name!r} has no finished training; name a RUN or another --experiment")
    return found


def find_run(text: str, experiment: Any = None) -> Any:
    """The run that `text` means, in the experiment where given, else in all; ValueError (one line) if none or several."""
    run = _by_id(text) if re.fullmatch("[0-9a-f]{32}", text) else None
    if run:
        if run.info.lifecycle_stage != "active":
            raise ValueError(f"run {text} is deleted; restore it ('mlflow runs restore --run-id {text}') or leave it out")
        return run
    inside = [experiment.experiment_id] if experiment else _experiment_ids()
    found = list({run.info.run_id: run for run in (*_by_prefix(text, inside), *_by_name(text, inside))}.values())
    if len(found) == 1:
        return found[0]
    where = f"in experiment {experiment.name!r}" if experiment else "in this MLflow store"
    if not found:
        raise ValueError(
            f"no run {text!r} {where}; RUN is a run id, at least {_FEWEST_DIGITS} of its digits, or a run name"
        )
    ids = ", ".join(run.info.run_id[:12] for run in found[:5]) + (", ..." if len(found) > 5 else "")
    raise ValueError(f"{text!r} means {len(found)} runs {where} ({ids}); give more digits of the id")


def find_experiment(name: str | None) -> Any:
    """The experiment of that name, else the one of the environment, else Default; ValueError (one line) if it is not."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from socratic_mlflow.store_errors import is_missing

    client, name = MlflowClient(), name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name:
        if found := client.get_experiment_by_name(name):
            return found
        names = ", ".join(repr(each.name) for each in client.search_experiments(max_results=10))
        raise ValueError(f"there is no experiment {name!r}; there are {names}")
    number = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    try:
        return client.get_experiment(number)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise ValueError(f"there is no experiment with id {number}; give --experiment NAME") from None


def _by_id(run_id: str) -> Any:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from socratic_mlflow.store_errors import is_missing

    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        return None


def _by_prefix(text: str, experiments: Sequence[str]) -> list[Any]:
    if not re.fullmatch(f"[0-9a-f]{{{_FEWEST_DIGITS},31}}", text):
        return []
    return list(_search(experiments, f"attributes.run_id LIKE '{text}%'"))


def _by_name(text: str, experiments: Sequence[str]) -> list[Any]:
    # MLflow's filters know no escape: a name with both kinds of quotes cannot be asked for.
    quote = "'" if "'" not in text else '"'
    if quote in text or not text.strip():
        return []
    found = _search(experiments, f"attributes.run_name = {quote}{text}{quote}")
    return [run for run in found if run.info.run_name == text]


def _trainings(runs: Iterator[Any]) -> Iterator[Any]:
    return (run for run in runs if _OF_TRAININGS in run.data.params and _OF_SWEEPS not in run.data.tags)


def _search(experiments: Sequence[str], condition: str) -> Iterator[Any]:
    """Runs that are not deleted, the newest first; page by page, as far as they are asked for."""
    from mlflow import MlflowClient

    client, token = MlflowClient(), None
    while True:
        page = client.search_runs(
            list(experiments), condition, max_results=100, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        if not (token := page.token):
            return


def _experiment_ids() -> list[str]:
    from mlflow import MlflowClient

    client, found, token = MlflowClient(), [], None
    while True:
        page = client.search_experiments(page_token=token)
        found += [each.experiment_id for each in page]
        if not (token := page.token):
            return found
