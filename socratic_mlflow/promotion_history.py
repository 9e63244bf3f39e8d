"""Which version was moved where, when, why and by whom: one tag of the registered model for each move."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from socratic_mlflow.redaction import redact

# Of the moves to each stage, so that many trainings that end in Staging do not push out who was champion.
KEPT = 25
_PREFIX = "history."
# A tag of a registered model takes 5,000 characters in MLflow's database.
_LONGEST_WHY = 500


@dataclass(frozen=True)
class Move:
    """One move of `version` into `stage`, where `replaces` (may be empty) stood; `at` is UTC in ISO 8601.

    `what` is promote, rollback or training (which moves what it registers).
    """

    at: str
    what: str
    version: str
    stage: str
    replaces: str
    why: str
    by: str
    forced: bool = False


def moves(tags: Mapping[str, str]) -> list[Move]:
    """What the tags of a registered model hold, the oldest first; a tag that is no move is passed over."""
    found = [_read(tags[key]) for key in sorted(tags) if key.startswith(_PREFIX)]
    return [move for move in found if move]


def _read(text: str) -> Move | None:
    try:
        values = json.loads(text)
        move = Move(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {spec.name: bool if spec.name == "forced" else str for spec in fields(Move)}
    return move if all(isinstance(getattr(move, name), kind) for name, kind in kinds.items()) else None


def record(
    client: Any, model: Any, what: str, version: str, stage: str, replaces: str, why: str, forced: bool = False
) -> None:
    """Add a move to the registered `model`'s tags, and drop the oldest of that stage beyond `KEPT`.

    A move that stands there as the last one already (it was cut off, and is made again) is not added twice.
    """
    last = moves(model.tags)[-1:]
    if last and (last[0].version, last[0].stage, last[0].forced) == (version, stage, forced):
        return
    now = datetime.now(UTC)
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    move = Move(at, what, version, stage, replaces, redact(why)[:_LONGEST_WHY], _user(), forced)
    # Sorts by time; without colons, since the file store makes a file name of it.
    key = f"{_PREFIX}{now:%Y-%m-%dT%H-%M-%S.%f}Z"
    client.set_registered_model_tag(model.name, key, json.dumps(asdict(move), ensure_ascii=False))
    of_stage = [old for old in sorted(model.tags) if old.startswith(_PREFIX) and _stage(model.tags[old]) == stage]
    for old in of_stage[: max(0, len(of_stage) + 1 - KEPT)]:
        client.delete_registered_model_tag(model.name, old)


def champions_before(made: Sequence[Move], present: str) -> list[str]:
    """The versions that `rollback` may go back to from the champion `present` ('' where there is none), the nearest first.

    Like undo: each rollback goes one further back, and what it left is not gone back to.
    """
    line: list[str] = []
    for move in made:
        if move.stage != "Production":
            continue
        if move.what == "rollback":
            _go_back(line, move.version)
            continue
        # The champion may have been moved elsewhere since, in MLflow's UI say.
        if move.replaces and move.version != (line or [""])[-1]:
            _go_back(line, move.replaces)
        if line[-1:] != [move.version]:
            line.append(move.version)
    if present in line:
        del line[len(line) - 1 - line[::-1].index(present) :]
    return [version for version in dict.fromkeys(reversed(line)) if version != present]


def _go_back(line: list[str], version: str) -> None:
    """Let `line` end with `version`."""
    if version in line:
        del line[len(line) - line[::-1].index(version) :]
    else:
        line.append(version)


def _stage(text: str) -> str:
    move = _read(text)
    return move.stage if move else ""


def _user() -> str:
    """The name by which MLflow would log a run of this process."""
    from mlflow.tracking.context.registry import resolve_tags

    return str(resolve_tags().get("mlflow.user", "unknown"))
