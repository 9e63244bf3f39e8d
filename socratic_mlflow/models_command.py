"""`socratic-mlflow models`: the versions of a registered model, what they score, where they stand and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from socratic_mlflow.config import Config
from socratic_mlflow.known_scores import judged_by, number
from socratic_mlflow.plain_table import safe, table, write
from socratic_mlflow.present_store import present_store
from socratic_mlflow.quality import collapse
from socratic_mlflow.standing import Entry, Standing, read_standing

_HEADINGS = ("version", "stage", "alias", "style", "tone", "hollow", "step", "registered (UTC)", "run", "")
_NUMBERS = ("version", "style", "tone", "hollow", "step")
# Moves that the listing shows; --json has all.
_LAST_MOVES = 5
# What every version that this project registers has, and others hardly.
_OWN_TAG = "style_profile_digest"


def models(name: str | None, as_json: bool) -> int:
    """List the versions of `name`, else of the default model; returns the exit code. ValueError (one line) where the
    registry has neither."""
    with present_store():
        default = Config().registry.registered_model_name
        others = [] if name else [each for each in _names() if each != default]
        try:
            standing = read_standing(name or default)
        except ValueError:
            if not others:
                raise ValueError(f"the registry has no model {name or default!r}; a training registers one") from None
            return _only_names(default, others, as_json)
        return write(_json(standing) if as_json else "\n".join(_lines(standing, others)))


def _names() -> list[str]:
    """The registered models that have a version made by this project."""
    from mlflow import MlflowClient

    client, found, token = MlflowClient(), [], None
    while True:
        page = client.search_registered_models(page_token=token)
        found += [each.name for each in page if any(_OWN_TAG in version.tags for version in each.latest_versions)]
        if not (token := page.token):
            return sorted(found)


def _only_names(default: str, names: list[str], as_json: bool) -> int:
    if as_json:
        return write(json.dumps({"models": names}, ensure_ascii=False))
    return write(f"there is no model {default}; 'socratic-mlflow models NAME' lists one of:", *map(safe, names))


def _lines(standing: Standing, others: list[str]) -> Iterator[str]:
    best, champion = _best(standing), standing.champion
    reference = judged_by(champion.tags) if champion else ()
    odd = [entry for entry in standing.versions if reference and _is_scored(entry) and judged_by(entry.tags) != reference]
    count = len(standing.versions)
    yield f"{safe(standing.name)}: {count} version{'s' * (count != 1)}, the newest first"
    yield ""
    yield table(_HEADINGS, [_row(standing, entry, entry is best, entry in odd) for entry in standing.versions], _NUMBERS)
    yield ""
    if odd:
        yield "~ judged by other questions, another style or token limit than the champion: not to be compared with it"
    yield from (f"warning: {safe(line)}" for line in standing.disagreements())
    if standing.moves:
        yield "last moves:"
        yield from (f"  {line}" for line in _moves(standing))
    if others:
        yield f"other models of this project: {', '.join(map(safe, others))}"


def _row(standing: Standing, entry: Entry, best: bool, odd: bool) -> tuple[str, ...]:
    collapsed = collapse(number(entry.tags, "eval.hollow_share") or 0.0)
    remark = "collapsed" if collapsed else "best style" if best else "" if _is_scored(entry) else "no scores"
    return (
        entry.version,
        "" if entry.stage == "None" else entry.stage,
        " ".join(f"@{alias}" for alias in standing.aliases_of(entry.version)),
        ("~" if odd else "") + _shown(entry, "eval.socratic_style"),
        ("~" if odd else "") + _shown(entry, "eval.socratic_tone"),
        _shown(entry, "eval.hollow_share"),
        entry.tags.get("step", ""),
        _date(entry)[:16].replace("T", " "),
        entry.run_id[:8],
        remark,
    )


def _best(standing: Standing) -> Entry | None:
    """The version with the highest style among those that were judged as the champion was and have not collapsed."""
    champion = standing.champion
    reference = judged_by(champion.tags) if champion else ()
    found = [
        entry
        for entry in standing.versions
        if reference
        and _is_scored(entry)
        and judged_by(entry.tags) == reference
        and not collapse(number(entry.tags, "eval.hollow_share") or 0.0)
    ]
    return max(found, key=lambda entry: number(entry.tags, "eval.socratic_style") or 0.0) if len(found) > 1 else None


def _is_scored(entry: Entry) -> bool:
    return number(entry.tags, "eval.socratic_style") is not None


def _shown(entry: Entry, tag: str) -> str:
    value = number(entry.tags, tag)
    return "-" if value is None else f"{value:.3f}"


def _date(entry: Entry) -> str:
    """When it was registered, UTC in ISO 8601."""
    return datetime.fromtimestamp(entry.created_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moves(standing: Standing) -> Iterator[str]:
    for move in reversed(standing.moves[-_LAST_MOVES:]):
        instead = f" instead of version {move.replaces}" if move.replaces else ""
        yield safe(f"{move.at}  {move.what} by {move.by}: version {move.version} to {move.stage}{instead}: {move.why}")


def _json(standing: Standing) -> str:
    champion = standing.champion
    found: dict[str, Any] = {
        "name": standing.name,
        "champion": champion.version if champion else None,
        "versions": [_object(standing, entry, champion) for entry in standing.versions],
        "moves": [asdict(move) for move in standing.moves],
        "warnings": standing.disagreements(),
    }
    # No terminal is steered by it: what is not ASCII is escaped.
    return json.dumps(found, indent=1)


def _object(standing: Standing, entry: Entry, champion: Entry | None) -> dict[str, Any]:
    hollow = number(entry.tags, "eval.hollow_share")
    return {
        "version": entry.version,
        "stage": entry.stage,
        "aliases": standing.aliases_of(entry.version),
        "style": number(entry.tags, "eval.socratic_style"),
        "tone": number(entry.tags, "eval.socratic_tone"),
        "loss": number(entry.tags, "eval.loss"),
        "hollow_share": hollow,
        "collapsed": bool(collapse(hollow or 0.0)),
        "compares_with_champion": bool(
            champion and judged_by(entry.tags) and judged_by(entry.tags) == judged_by(champion.tags)
        ),
        "step": number(entry.tags, "step"),
        "registered_at": _date(entry),
        "run_id": entry.run_id,
        "base_model": entry.tags.get("base_model"),
        "promotion": entry.tags.get("promotion"),
    }
