"""Short forms in which a person may name a MODEL. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path

CHAMPION = "models:/socratic-gemma@champion"
HELP = "models:/NAME/VERSION (or /STAGE, @ALIAS), a run id or runs:/RUN_ID/adapter, an adapter folder, or base"

_RUN_ID = re.compile("[0-9a-f]{32}")


def full_name(name: str) -> str:
    """`name` as `named_model` takes it: a bare run id (unless a folder has that name) becomes its runs:/ address."""
    return f"runs:/{name}/adapter" if _RUN_ID.fullmatch(name) and not Path(name).exists() else name
