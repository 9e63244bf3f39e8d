"""What docs/server/compose.yaml says, as a test can run it: the same commands, on loopback, without containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "server"
# ${NAME}, ${NAME:-default} and ${NAME:?message}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def services(**variables: str) -> dict[str, Any]:
    """{name: service} with `variables` filled in as compose does; ValueError for one that is required and missing."""
    file = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return dict(_filled(file["services"], variables))


def _filled(part: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {name: _filled(value, variables) for name, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, variables) for value in part]
    return _VARIABLE.sub(lambda found: _value(found, variables), part) if isinstance(part, str) else part


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, rest = found.groups()
    value = variables.get(name, "")
    if not value and kind == ":?":
        raise ValueError(rest)
    return value or (rest if kind == ":-" else "")
