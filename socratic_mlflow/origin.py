"""Where a named model comes from: its registered version, its run, and what those know of it. Changes nothing there.

A folder says itself which run it belongs to; MLflow is asked about that only where the folder names the store in use, for
a folder from elsewhere must not decide with whom this machine talks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.bootstrap import Interval
from socratic_mlflow.config import Config, flatten
from socratic_mlflow.style_profile import StyleProfile, parse_profile, read_profile

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel

_PROFILE = "style_profile.yaml"
_SCORES = ("socratic_style", "socratic_tone")


@dataclass(frozen=True)
class Origin:
    """What is known of a model; text is empty and mappings lack what is not.

    `version` is models:/NAME/VERSION, `params` a training's by dotted key, `scores` means in [0, 1] with their 95%
    intervals by metric (bounds NaN where they are unknown), `evaluated` what evaluations have found since.
    """

    run_id: str = ""
    version: str = ""
    step: str = ""
    data_digest: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Interval] = field(default_factory=dict)
    evaluated: tuple[str, ...] = ()


_NOTHING = Origin()


def trace(named: NamedModel) -> Origin:
    """All that is known of `named`."""
    if named.name == "base":
        return Origin()
    if not named.name.startswith(("models:/", "runs:/")):
        return _of_folder(Path(named.name), named.config)
    return _of_run(_run_id(named), named.version)


def profile_of(named: NamedModel, wanted: str | None) -> StyleProfile:
    """The style profile `wanted`, else the one that `named` was trained with, else the default."""
    if wanted:
        return read_profile(wanted)
    if (run_id := _run_id(named)) and (text := _style_profile(run_id)):
        return parse_profile(text, f"runs:/{run_id}/{_PROFILE}")
    is_own = not named.name.startswith(("models:/", "runs:/"))
    return read_profile((named.config if is_own else Config()).evaluation.style_profile)


def _run_id(named: NamedModel) -> str:
    if named.version:
        # Anybody can edit a tag, and this one becomes part of an address.
        found = str(named.version.tags.get("run_id", ""))
        return found if re.fullmatch(r"[\w-]+", found, re.ASCII) else ""
    return _run_of_logged(named) if named.name.startswith(("models:/", "runs:/")) else ""


def _style_profile(run_id: str) -> str:
    """Its text, or empty where the run has none or is gone; ValueError (one line) where it cannot be read."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from socratic_mlflow.store_errors import is_missing, why

    try:
        held = mlflow.MlflowClient().list_artifacts(run_id)
        there = any(file.path == _PROFILE for file in held)
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{_PROFILE}")) if there else ""
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and is_missing(error):
            return ""
        raise ValueError(f"runs:/{run_id}/{_PROFILE}: cannot be read ({why(error)})") from None


def _run_of_logged(named: NamedModel) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    if named.name.startswith("runs:/"):
        return named.name.split("/")[1]
    try:
        return str(mlflow.get_logged_model(named.model_id).source_run_id or "") if named.model_id else ""
    except MlflowException:
        return ""


def _of_folder(folder: Path, config: Config) -> Origin:
    from socratic_mlflow.output_dir import OutputDir

    output = next((OutputDir(place) for place in folder.resolve().parents[:2] if (place / "run.yaml").is_file()), None)
    state = output.state() if output else {}
    if output is None or not state:
        return Origin()
    params = {key: str(value) for key, value in flatten(config).items()}
    known = Origin(data_digest=state.get("data_digest", ""), params=params)
    is_best = folder.resolve() == output.best_adapter.resolve()
    if not is_best or not state.get("run_id") or state["tracking_uri"] != _store():
        return known
    return _of_run(state["run_id"], None, known)


def _store() -> str:
    import mlflow

    from socratic_mlflow.redaction import without_credentials
    from socratic_mlflow.tracking import absolute

    return absolute(without_credentials(mlflow.get_tracking_uri()))


def _of_run(run_id: str, version: Any, known: Origin = _NOTHING) -> Origin:
    """What the run knows, and the version that was made of it; what neither does stays as in `known`."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        run = client.get_run(run_id).data if run_id else None
    except MlflowException:
        run = None
    version = version or (_version(client, run.tags.get("registered_model", "")) if run else None)
    tags = version.tags if version else {}
    params = {**run.params} if run else {}
    return Origin(
        run_id=run_id,
        version=f"models:/{version.name}/{version.version}" if version else "",
        step=tags.get("step", ""),
        data_digest=tags.get("data_digest") or params.get("data.digest", "") or known.data_digest,
        params=params or known.params,
        scores=_scores(client, run_id, tags) if tags else {},
        evaluated=tuple(value for name, value in sorted(tags.items()) if name.startswith("evaluated.")),
    )


def _version(client: Any, uri: str) -> Any:
    """The version that a run's tag names, or None."""
    from mlflow.exceptions import MlflowException

    name, _, number = uri.removeprefix("models:/").rpartition("/")
    try:
        return client.get_model_version(name, number) if name else None
    except MlflowException:
        return None


def _scores(client: Any, run_id: str, tags: Mapping[str, str]) -> dict[str, Interval]:
    """Those of the version's step: the means from its tags, the bounds from its run's metrics."""
    found = {}
    for name in _SCORES:
        low, high = (_metric(client, run_id, f"eval/{name}_{end}", tags.get("step", "")) for end in ("low", "high"))
        # Anybody can edit a tag.
        with contextlib.suppress(KeyError, ValueError):
            found[name] = Interval(float(tags[f"eval.{name}"]), low, high)
    return found


def _metric(client: Any, run_id: str, key: str, step: str) -> float:
    from mlflow.exceptions import MlflowException

    try:
        points = client.get_metric_history(run_id, key)
    except MlflowException:
        points = []
    return next((float(point.value) for point in points if str(point.step) == step), float("nan"))
