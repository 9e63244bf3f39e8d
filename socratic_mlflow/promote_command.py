"""`socratic-mlflow promote` and `rollback`: a version's stage and alias, moved together, with a word on why."""

from __future__ import annotations

import re

from socratic_mlflow.config import Config
from socratic_mlflow.known_scores import comparable, number
from socratic_mlflow.plain_table import safe, write
from socratic_mlflow.present_store import present_store
from socratic_mlflow.promotion import compare
from socratic_mlflow.promotion_history import champions_before
from socratic_mlflow.quality import collapse
from socratic_mlflow.standing import ALIASES, Entry, Standing, move, read_standing


def promote(version: str, stage: str, name: str | None, force: bool) -> int:
    """Move `version` into `stage`; returns the exit code. ValueError (one line) where there is no such version, or where
    something speaks against it and `force` is not given."""
    if not re.fullmatch(r"[0-9]{1,9}", version):
        raise ValueError(f"VERSION is {version!r}; it takes a number, as 'socratic-mlflow models' lists it")
    with present_store():
        standing = read_standing(name or Config().registry.registered_model_name)
        entry = standing.version(str(int(version)))
        if standing.is_settled(entry.version, stage):
            return write(f"version {entry.version} of {safe(standing.name)} stands in {_place(stage)} already")
        good, why = _judge(standing, entry, stage)
        if not good and not force:
            raise ValueError(f"version {entry.version} stays where it is: {why} (--force moves it all the same)")
        # Behind a semicolon stands what could be done instead.
        because = why if good else f"forced, though {why.partition(';')[0]}"
        return _move(standing, entry, stage, "promote", because, forced=not good)


def rollback(name: str | None) -> int:
    """Make the champion before the present one the champion again; ValueError (one line) where none is known."""
    with present_store():
        standing = read_standing(name or Config().registry.registered_model_name)
        present = standing.champion
        number_ = present.version if present else ""
        if present and standing.moves and _is_cut_off(standing, present):
            last = standing.moves[-1]
            return _move(standing, present, "Production", last.what, last.why, last.forced)
        before = champions_before(standing.moves, number_)
        known = {entry.version: entry for entry in standing.versions}
        target = next((known[version] for version in before if version in known), None)
        if target is None:
            raise ValueError(_nowhere(standing, number_, before))
        gone = before[: before.index(target.version)]
        why = f"rolled back from version {number_}" if number_ else "rolled back, after a time without a champion"
        why += f"; version {', '.join(gone)}, champion in between, is deleted" if gone else ""
        return _move(standing, target, "Production", "rollback", why)


def _is_cut_off(standing: Standing, present: Entry) -> bool:
    """Whether the last move has given `present` the alias and not got as far as the stage: that comes first."""
    last = standing.moves[-1]
    return (last.version, last.stage) == (present.version, "Production") and not standing.is_settled(
        present.version, "Production"
    )


def _nowhere(standing: Standing, present: str, before: list[str]) -> str:
    state = f"version {present} is the champion" if present else "there is no champion"
    known = f"the one before it (version {before[0]}) is deleted" if before else "none before it is recorded"
    return f"{standing.name}: {state} and {known}; 'socratic-mlflow promote VERSION' makes any other the champion"


def _judge(standing: Standing, entry: Entry, stage: str) -> tuple[bool, str]:
    """(whether the version may go there without force, why)."""
    champion = standing.champion
    if champion and champion.version == entry.version:
        if stage == "Production":
            return True, f"stage and alias of version {entry.version} are brought together"
        return False, "it is the champion, and none would be left; 'promote' another or 'rollback' first"
    if stage == "Archived":
        return True, "archived by hand"
    if reason := collapse(number(entry.tags, "eval.hollow_share") or 0.0):
        return False, f"it has collapsed ({reason})"
    if stage == "Staging":
        return True, "moved to Staging by hand"
    return _compare(standing.name, entry, champion) if champion else (True, "there was no champion")


def _compare(name: str, entry: Entry, champion: Entry) -> tuple[bool, str]:
    scores = comparable(entry, champion, name)
    if scores is None:
        return False, (
            f"no scores are known of it and of the champion (version {champion.version}) on the same questions; 'socratic-"
            f"mlflow evaluate models:/{name}/{entry.version} --against models:/{name}/{champion.version}' asks both"
        )
    ours, theirs = scores
    return compare(ours.metrics, champion.version, theirs.metrics, ours.metric)


def _move(standing: Standing, entry: Entry, stage: str, what: str, why: str, forced: bool = False) -> int:
    champion = standing.champion
    stands = move(standing.name, entry.version, stage, what, why, forced)
    if stands != entry.version:
        raise ValueError(f"somebody else has moved version {stands} to {stage} at the same time, and there it stays")
    lines = [f"version {entry.version} of {safe(standing.name)} is now in {_place(stage)}: {safe(why)}"]
    if stage == "Production" and champion and champion.version != entry.version:
        back = f"promote {champion.version}" if what == "rollback" else "rollback"
        other = "" if standing.name == Config().registry.registered_model_name else f" --name {safe(standing.name)}"
        # Who had the alias alone was in no stage to be archived from.
        state = "is archived" if champion.stage == "Production" else "was the champion"
        lines.append(f"version {champion.version} {state}; 'socratic-mlflow {back}{other}' makes it the champion again")
    return write(*lines)


def _place(stage: str) -> str:
    return f"{stage} and @{ALIASES[stage]}" if ALIASES[stage] else stage
