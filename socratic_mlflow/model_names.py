"""Short forms in which a person may name a MODEL, and its loading. Imports nothing heavy by itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel

CHAMPION = "models:/socratic-gemma@champion"
TRAINED = "models:/NAME/VERSION (or /STAGE, @ALIAS), a run id or runs:/RUN_ID/adapter, or an adapter folder"
HELP = f"{TRAINED}, or base"

_RUN_ID = re.compile("[0-9a-f]{32}")


def full_name(name: str) -> str:
    """`name` as `named_model` takes it: a bare run id (unless a folder has that name) becomes its runs:/ address."""
    return f"runs:/{name}/adapter" if _RUN_ID.fullmatch(name) and not Path(name).exists() else name


def load_full(name: str, fields: Mapping[str, Any]) -> NamedModel:
    """Load a `full_name`; `fields` as `named_model.load` has them.

    ValueError (one line) where it cannot be had; ConnectionError where MLflow goes away meanwhile. No store is made.
    """
    from socratic_mlflow.named_model import load
    from socratic_mlflow.present_store import present_store
    from socratic_mlflow.quiet import quiet_transformers

    quiet_transformers()
    in_store = name.startswith(("models:/", "runs:/"))
    idle = [key for key in fields if key.startswith(("run.preset", "model.", "quantization."))]
    if in_store and idle:
        raise ValueError(f"{idle[0]} has no effect here: {name} has its own base")
    with present_store() if in_store else contextlib.nullcontext():
        return load(name, fields)
