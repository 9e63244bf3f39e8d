"""What a person names as MODEL (a registered version, a run's model, an adapter folder, `base`) -> a model that answers.

Knows nothing of what is asked. Commands that take a MODEL read it here, so that all understand the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.model_names import HELP
from socratic_mlflow.options import build_config, read_yaml
from socratic_mlflow.untrusted import read_object

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat


@dataclass(frozen=True)
class NamedModel:
    """A loaded model: `name` as it was given, `config` it was made with, and the registry's version where it is one."""

    name: str
    model: Any
    chat: ChatFormat
    config: Config
    version: Any = None
    model_id: str | None = None


def check(name: str) -> None:
    """Raise ValueError (one line) where `name` names nothing, without loading anything large."""
    if name.startswith(("models:/", "runs:/")):
        _version(name)
    elif name != "base" and not (Path(name) / "adapter_config.json").is_file():
        raise ValueError(f"{name}: no adapter folder (it has no adapter_config.json); MODEL is {HELP}")


def load(name: str, fields: Mapping[str, Any]) -> NamedModel:
    """Load `name`; `fields` (dotted keys) say which base where the name does not. ValueError (one line) if it cannot be."""
    check(name)
    if name.startswith(("models:/", "runs:/")):
        return _from_mlflow(name)
    return _from_base(name, fields) if name == "base" else _from_folder(Path(name), fields)


def _from_mlflow(uri: str) -> NamedModel:
    import mlflow
    from mlflow.exceptions import MlflowException

    from socratic_mlflow.serving import SocraticModel

    version = _version(uri)
    # The number, not the stage or alias: those may move between here and the loading.
    fixed = f"models:/{version.name}/{version.version}" if version else uri
    try:
        loaded = mlflow.pyfunc.load_model(fixed)
        model = loaded.unwrap_python_model()
    except (MlflowException, OSError) as error:
        raise ValueError(f"{uri}: cannot be loaded ({_one_line(error)}); MODEL is {HELP}") from None
    if type(model).__name__ != SocraticModel.__name__:
        raise ValueError(f"{uri}: is no model that this project registered")
    found = NamedModel(uri, model.model, model.chat, model.config, version, loaded.metadata.model_id)
    # MLflow holds on to the object that the model's code has set: what is large is not to stay with it.
    vars(model).clear()
    return found


def _version(uri: str) -> Any:
    """The registry's version that `uri` means, or None where it names no registered model."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if re.fullmatch(r"runs:/.+/.+|models:/m-\w+", uri):
        return None
    if not re.fullmatch(r"models:/[^/@]+(/[^/@]+|@[^/@]+)", uri):
        raise ValueError(f"{uri}: names no model; MODEL is {HELP}")
    try:
        client = MlflowClient()
        return client.get_model_version(*get_model_name_and_version(client, uri))
    except MlflowException as error:
        raise ValueError(f"{uri}: is not in the registry ({_one_line(error)}); MODEL is {HELP}") from None


def _from_base(name: str, fields: Mapping[str, Any]) -> NamedModel:
    from socratic_mlflow.model import cuda_available, load_base, load_tokenizer, resolve_dtype
    from socratic_mlflow.tokens import ChatFormat

    config = resolve_dtype(build_config(fields, None, cuda_available))
    chat = ChatFormat(load_tokenizer(config.model))
    return NamedModel(name, load_base(config.model, config.quantization).eval(), chat, config)


def _from_folder(folder: Path, fields: Mapping[str, Any]) -> NamedModel:
    from socratic_mlflow.model import load_adapter

    base = _from_base(str(folder), {**_beside(folder), **fields})
    return NamedModel(str(folder), load_adapter(base.model, str(folder)), base.chat, base.config)


def _beside(folder: Path) -> dict[str, Any]:
    """The configuration in the output folder that an adapter lies in; without one, the base that the adapter names.

    Whether a base's own code runs is for the person to say, not for a file that came with an adapter.
    """
    parents = folder.resolve().parents[:2]
    if file := next((place / "config.yaml" for place in parents if (place / "config.yaml").exists()), None):
        values = {key: value for key, value in read_yaml(str(file)).items() if not key.startswith("run.")}
        if values.pop("model.trust_remote_code", False):
            from socratic_mlflow.progress import say

            say(f"note   trust_remote_code in {file} has no effect; give it yourself if you trust the base's own code")
        return values
    base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    return {"model.base_model": base} if isinstance(base, str) and base else {}


def with_evaluation(config: Config, fields: Mapping[str, Any]) -> Config:
    """`config` with what of `fields` says how to evaluate."""
    return with_values(config, {key: value for key, value in fields.items() if key.startswith("evaluation.")})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
