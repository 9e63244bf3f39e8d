"""The configuration that an MLflow run holds (`runs:/RUN_ID/config.yaml`), read to repeat that run.

It decides what is learned and how it is scored; where files lie and how a start behaves is the new training's own. What
comes from a store is data: it may be read, and switches on no code. MLflow is loaded where a run is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Set
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from socratic_mlflow.config import Config, flatten
from socratic_mlflow.dialogues import dialogues_digest, read_questions, text_digest
from socratic_mlflow.launching import launched
from socratic_mlflow.style_profile import read_profile

# A path within the run's artifacts, without a way out of them.
_ADDRESS = re.compile(r"runs:/([0-9A-Za-z_-]{1,64})/((?:[\w-][\w.-]*/)*[\w-][\w.-]*\.ya?ml)")
_NOT_TAKEN = ("registry.register", "model.trust_remote_code")
_LIBRARY = "environment."


def is_run_config(path: str) -> bool:
    """Whether `path` means a run's artifact rather than a file."""
    return path.startswith("runs:/")


def taken_over(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's `values` (by dotted key) that decide the result.

    Not where its files lay: there, the finished training would be found again. Whether a base's own code runs and whether
    a model is registered is for the person to say now.
    """
    kept = {key: value for key, value in values.items() if key not in _NOT_TAKEN}
    return {key: value for key, value in kept.items() if key == "run.preset" or not key.startswith("run.")}


def rerun_folder(config: Config, uri: str) -> str:
    """The output_dir of a repetition: new for each run and changed field, and the same for the same command, which so goes
    on where it was interrupted."""
    own = {key: value for key, value in flatten(config).items() if not key.startswith("run.") and key not in _NOT_TAKEN}
    digest = hashlib.sha256(json.dumps([uri, own], sort_keys=True).encode()).hexdigest()
    return f"outputs/{config.run.preset}-rerun-{digest[:8]}"


@lru_cache(maxsize=8)
def fetch(uri: str, limit_bytes: int) -> tuple[str, dict[str, str]]:
    """(text of the artifact, params of its run); ValueError (one line) where it cannot be had or is too large."""
    match = _ADDRESS.fullmatch(uri)
    if not match:
        raise ValueError(f"{uri}: names no configuration of a run; it is runs:/RUN_ID/config.yaml")
    import mlflow

    from socratic_mlflow.redaction import without_credentials
    from socratic_mlflow.run_lifecycle import be_brief, store_trouble

    be_brief()
    store = without_credentials(mlflow.get_tracking_uri())
    if trouble := store_trouble():
        raise ValueError(f"{uri}: MLflow at {store} cannot be reached: {trouble}")
    run_id, artifact = match.groups()
    return _download(uri, store, run_id, artifact, limit_bytes), _params(uri, store, run_id)


def _params(uri: str, store: str, run_id: str) -> dict[str, str]:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return dict(MlflowClient().get_run(run_id).data.params)
    except MlflowException as error:
        raise ValueError(f"{uri}: {_why(error, store, run_id)}") from None


def _download(uri: str, store: str, run_id: str, artifact: str, limit_bytes: int) -> str:
    """The artifact's text; what a store has on its disk is measured before it is fetched."""
    from mlflow import MlflowClient

    from socratic_mlflow.files import read_text

    client, folder = MlflowClient(), artifact.rpartition("/")[0]
    try:
        client.get_run(run_id)
        sizes = {entry.path: entry.file_size or 0 for entry in client.list_artifacts(run_id, folder or None)}
        if artifact not in sizes:
            raise ValueError(f"run {run_id} has no artifact {artifact}; trainings of this project have config.yaml")
        if sizes[artifact] > limit_bytes:
            raise ValueError(f"it is larger than {limit_bytes // 1024} KiB")
        with tempfile.TemporaryDirectory() as scratch:
            file = client.download_artifacts(run_id, artifact, scratch)
            return read_text(Path(file), limit_bytes)
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from None
    # Whatever the store of artifacts raises, which may be another machine than the tracking server.
    except Exception as error:
        raise ValueError(f"{uri}: {_why(error, store, run_id)}") from None


def _why(error: Exception, store: str, run_id: str) -> str:
    from socratic_mlflow.store_errors import one_line

    if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
        return f"MLflow at {store} has no run {run_id}; check the id and MLFLOW_TRACKING_URI"
    return f"cannot be downloaded ({one_line(error)})"


def check_inputs(uri: str, params: Mapping[str, str], config: Config, given: Set[str]) -> None:
    """Raise ValueError (one line) where a file that the run read has other contents now: the result would be another.

    `given` are the dotted keys that a person has given anew, which are not compared. Where the machine or the processes are
    others than the run's, which changes roundings and dropout, a line says so.
    """
    for flag, keys, param, digest in _READ:
        before = params.get(param)
        if not before or given & set(keys):
            continue
        if (now := digest(config)) not in ("", before):
            raise ValueError(
                f"{uri}: {flatten(config)[keys[0]]} is not what that run read (digest {before[:12]}, now {now[:12]}); "
                f"restore it, or give --{flag} to train on what you name"
            )
    if others := _other_conditions(params, config):
        print(f"note   {uri} was made in another way, so the result may differ: {', '.join(others)}", flush=True)


def _other_conditions(params: Mapping[str, str], config: Config) -> list[str]:
    """'device CPU (2 threads) -> CPU (4 threads)' and the like, of what the run says about itself."""
    processes = config.run.num_processes if config.run.num_processes > 1 else launched()
    found = []
    if (before := params.get("run.num_processes")) and before != str(processes):
        found.append(f"num_processes {before} -> {processes}")
    if (before := params.get(f"{_LIBRARY}device")) and before != (now := _device(processes)):
        found.append(f"device {before} -> {now}")
    return found


def _device(processes: int) -> str:
    """What a training by so many processes would log as environment.device."""
    import torch

    from socratic_mlflow.model import device

    place = device()
    if place.type == "cuda":
        return str(torch.cuda.get_device_name(place))
    threads = torch.get_num_threads()
    # Several processes share the cores, unless somebody has said how many threads each is to have.
    return (
        f"CPU ({threads if processes == 1 or os.environ.get('OMP_NUM_THREADS') else max(1, threads // processes)} threads)"
    )


def _questions_digest(config: Config) -> str:
    """Of the questions that are asked; '' where the held-out dialogues give them, which are compared themselves."""
    if config.evaluation.questions == "heldout":
        return ""
    from socratic_mlflow.corpus import evenly

    return text_digest(evenly(read_questions(config.evaluation.questions)[0], config.evaluation.max_samples))


# What a training reads by its path: flag, its field and those that choose from it, the run's param with its digest, and
# how to get that.
_READ: tuple[tuple[str, tuple[str, ...], str, Callable[[Config], str]], ...] = (
    ("data", ("data.path",), "data.digest", lambda config: dialogues_digest(config.data.path)),
    ("questions", ("evaluation.questions", "evaluation.max_samples"), "evaluation.questions_digest", _questions_digest),
    (
        "style_profile",
        ("evaluation.style_profile",),
        "evaluation.style_profile_digest",
        lambda config: read_profile(config.evaluation.style_profile).digest(),
    ),
)


def other_libraries(params: Mapping[str, str]) -> list[str]:
    """'torch 2.12.0 -> 2.13.0' of each library whose version is another than the run had."""
    found = []
    for name, before in params.items():
        library = name.removeprefix(_LIBRARY)
        if not name.startswith(_LIBRARY) or library in ("device", "git_commit"):
            continue
        try:
            now = version(library)
        except PackageNotFoundError:
            now = "missing"
        if now != before:
            found.append(f"{library} {before} -> {now}")
    return found
