"""Short forms in which a person may name a MODEL, and its loading. Imports nothing heavy by itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel

CHAMPION = "models:/socratic-gemma@champion"
TRAINED = "models:/NAME/VERSION (or /STAGE, @ALIAS), a run id or runs:/RUN_ID/adapter, or an adapter folder"
HELP = f"{TRAINED}, or base"

# Fields that say which base is loaded; what a training registered has its own.
BASE_FIELDS = ("run.preset", "model.", "quantization.")

_RUN_ID = re.compile("[0-9a-f]{32}")


def full_name(name: str) -> str:
    """`name` as `named_model` takes it: a bare run id (unless a folder has that name) becomes its runs:/ address."""
    return f"runs:/{name}/adapter" if _RUN_ID.fullmatch(name) and not Path(name).exists() else name


def check_full(name: str) -> None:
    """ValueError (one line) where a `full_name` names nothing or MLflow is away, before anything large is loaded.

    No store is made.
    """
    from socratic_mlflow.named_model import check

    with _store(name):
        check(name)


def check_base_fields(names: Sequence[str], fields: Mapping[str, Any]) -> None:
    """ValueError (one line) where `fields` say which base is loaded and each of `names`, in full, has its own."""
    idle = [key for key in fields if key.startswith(BASE_FIELDS)]
    if idle and all(map(_in_store, names)):
        raise ValueError(f"{idle[0]} has no effect here: {names[0]} has its own base")


def load_full(name: str, fields: Mapping[str, Any]) -> NamedModel:
    """Load a `full_name`; `fields` as `named_model.load` has them.

    ValueError (one line) where it cannot be had; ConnectionError where MLflow goes away meanwhile. No store is made.
    """
    from socratic_mlflow.named_model import load
    from socratic_mlflow.quiet import quiet_transformers

    quiet_transformers()
    check_base_fields([name], fields)
    with _store(name):
        return load(name, fields)


def _in_store(name: str) -> bool:
    return name.startswith(("models:/", "runs:/"))


def _store(name: str) -> contextlib.AbstractContextManager[None]:
    """MLflow's store, where `name` lies in it."""
    from socratic_mlflow.present_store import present_store

    return present_store() if _in_store(name) else contextlib.nullcontext()
