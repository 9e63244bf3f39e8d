"""Which version was moved where, when, why and by whom: one tag of the registered model for each move."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from socratic_mlflow.cli_models import STAGES
from socratic_mlflow.redaction import redact

# Of the moves to each stage, so that many trainings that end in Staging do not push out who was champion.
KEPT = 25
# Numbered, since clocks differ; of two processes that took the same number, the time decides.
_KEY = re.compile(r"history\.([0-9]{1,40})\.(.{1,60})")
_VERSION = re.compile("[0-9]{1,9}")
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
    return [move for _, move in _by_key(tags)]


def _by_key(tags: Mapping[str, str]) -> list[tuple[str, Move]]:
    found = sorted((int(key[1]), key[2], key[0]) for name in tags if (key := _KEY.fullmatch(name)))
    return [(key, move) for _, _, key in found if (move := _read(tags[key]))]


def _read(text: str) -> Move | None:
    """The move, or None: anybody may have edited the tag."""
    try:
        values = json.loads(text)
        move = Move(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {spec.name: bool if spec.name == "forced" else str for spec in fields(Move)}
    if not all(isinstance(getattr(move, name), kind) for name, kind in kinds.items()) or move.stage not in STAGES:
        return None
    return move if all(_VERSION.fullmatch(number) for number in (move.version, move.replaces or "0")) else None


def record(
    client: Any, model: Any, what: str, version: str, stage: str, replaces: str, why: str, forced: bool = False
) -> None:
    """Add a move to the registered `model`'s tags, and drop the oldest of that stage beyond `KEPT`.

    A move that stands there as the last one already (it was cut off, and is made again) is not added twice.
    """
    known, now = _by_key(model.tags), datetime.now(UTC)
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    move = Move(at, what, version, stage, replaces, redact(why)[:_LONGEST_WHY], _user(), forced)
    if known and _is_made_again(move, known[-1][1]):
        return
    number = 1 + max((int(found[1]) for name in model.tags if (found := _KEY.fullmatch(name))), default=0)
    # Without colons, since the file store makes a file name of it.
    key = f"history.{number:06}.{now:%Y-%m-%dT%H-%M-%S.%f}Z"
    client.set_registered_model_tag(model.name, key, json.dumps(asdict(move), ensure_ascii=False))
    of_stage = [old for old, move in known if move.stage == stage]
    for old in of_stage[: max(0, len(of_stage) + 1 - KEPT)]:
        client.delete_registered_model_tag(model.name, old)


def _is_made_again(move: Move, last: Move) -> bool:
    if (move.version, move.stage, move.forced) != (last.version, last.stage, last.forced):
        return False
    # Where somebody else has stood there since, it is another move; where it was cut off late, it replaces nobody any more.
    return not move.replaces or (move.what, move.replaces) == (last.what, last.replaces)


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
        if move.replaces and [move.replaces] != line[-1:]:
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


def _user() -> str:
    """The name by which MLflow would log a run of this process."""
    from mlflow.tracking.context.registry import resolve_tags

    return str(resolve_tags().get("mlflow.user", "unknown"))
