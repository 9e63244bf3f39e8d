"""Where the versions of a registered model stand: stage and alias, moved together, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.promotion_history import Move, moves, record
from socratic_mlflow.store_errors import is_missing

# Which alias a version in that stage bears.
ALIASES = {"Production": "champion", "Staging": "challenger", "Archived": ""}


@dataclass(frozen=True)
class Entry:
    """One registered version; `created_ms` since 1970, `run_id` may be empty."""

    version: str
    stage: str
    tags: Mapping[str, str]
    run_id: str
    created_ms: int


@dataclass(frozen=True)
class Standing:
    """All versions of the registered model `name`, the newest first; which version each alias names; the moves so far,
    the oldest first."""

    name: str
    versions: Sequence[Entry]
    aliases: Mapping[str, str]
    moves: Sequence[Move]

    @property
    def champion(self) -> Entry | None:
        """The version with the alias `champion`, else the newest in Production, else None."""
        by_alias = next((found for found in self.versions if found.version == self.aliases.get("champion")), None)
        return by_alias or self.newest("Production")

    def newest(self, stage: str) -> Entry | None:
        """The version that `models:/NAME/STAGE` loads, or None."""
        return next((found for found in self.versions if found.stage == stage), None)

    def version(self, number: str) -> Entry:
        """One version; ValueError (one line) where there is none of that number."""
        if found := next((found for found in self.versions if found.version == number), None):
            return found
        numbers = ", ".join(found.version for found in self.versions[:10]) or "none"
        raise ValueError(f"{self.name} has no version {number} (it was deleted, or never was); it has {numbers}")

    def aliases_of(self, number: str) -> list[str]:
        """All aliases of one version, a person's own among them."""
        return sorted(alias for alias, version in self.aliases.items() if version == number)

    def is_settled(self, number: str, stage: str) -> bool:
        """Whether the version stands alone in `stage`, with its alias and no other of this project's."""
        own = {alias for alias in self.aliases_of(number) if alias in ALIASES.values()}
        inside = [found.version for found in self.versions if found.stage == stage]
        alone = inside == [number] if ALIASES[stage] else number in inside
        return alone and own == {ALIASES[stage]} - {""}

    def disagreements(self) -> list[str]:
        """Sentences: where a stage and its alias name different versions, as after a move that was cut off."""
        return [line for stage in ("Production", "Staging") if (line := self._disagreement(stage))] or self._cut_off()

    def _disagreement(self, stage: str) -> str:
        newest, alias = self.newest(stage), ALIASES[stage]
        by_stage, by_alias = newest.version if newest else "", self.aliases.get(alias, "")
        if by_stage == by_alias:
            return ""
        last = self.moves[-1] if self.moves else None
        again = (
            (last.version, last.stage) if last and last.version in (by_stage, by_alias) else (by_alias or by_stage, stage)
        )
        return (
            f"{stage} holds {_version(by_stage)}, but @{alias} is {_version(by_alias)}: a move was cut off, or made "
            f"elsewhere; {_how_to_promote(self.name, *again)} brings them together"
        )

    def _cut_off(self) -> list[str]:
        last = self.moves[-1] if self.moves else None
        moved = last and next((found for found in self.versions if found.version == last.version), None)
        if not last or not moved or moved.stage == last.stage:
            return []
        return [
            f"the last move, {last.what} of version {last.version} to {last.stage} at {last.at}, was cut off before it "
            f"began, or undone elsewhere; {_how_to_promote(self.name, last.version, last.stage)} makes it"
        ]


def read_standing(name: str) -> Standing:
    """How it stands in MLflow's registry; ValueError (one line) where that has no model `name`."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise ValueError(f"the registry has no model {name!r}; 'socratic-mlflow models' names what it has") from None
    found = sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))
    versions = [
        Entry(str(each.version), each.current_stage, each.tags, each.run_id or "", each.creation_timestamp)
        for each in found
    ]
    return Standing(name, versions, {alias: str(of) for alias, of in model.aliases.items()}, moves(model.tags))


def move(name: str, version: str, stage: str, what: str, why: str, forced: bool = False) -> str:
    """Move a version into `stage`, with the alias that belongs there, and out of any other; who stood there is archived.
    Returns the version that stands there now: another one where somebody else has moved that at the same time. The tag
    `promotion` of each of them says why it stands where it does.

    The history comes first and the alias before the stage: wherever it is cut off, `Standing.disagreements` sees it, and
    the same call again completes it. Done twice, it changes nothing more.
    """
    from mlflow import MlflowClient

    client, alias = MlflowClient(), ALIASES[stage]
    model = client.get_registered_model(name)
    there = {each.current_stage: str(each.version) for each in model.latest_versions}
    replaces = str(model.aliases.get(alias, there.get(stage, ""))) if alias else ""
    record(client, model, what, version, stage, "" if replaces == version else replaces, why, forced)
    client.set_model_version_tag(name, version, "promotion", why)
    for left in {replaces, there.get(stage, "") if alias else ""} - {version, ""}:
        client.set_model_version_tag(name, left, "promotion", _replaced_by(version))
    _place(client, name, version, stage)
    for other in set(ALIASES.values()) - {alias, ""}:
        if str(model.aliases.get(other, "")) == version:
            client.delete_registered_model_alias(name, other)
    # MLflow knows no locks. Of two processes at once, each looks here after its own last step, and so whoever is the last
    # to look leaves what was recorded last, stage and alias alike.
    made = moves(client.get_registered_model(name).tags)
    last = next((each.version for each in reversed(made) if each.stage == stage), version) if alias else version
    if last != version:
        client.set_model_version_tag(name, version, "promotion", _replaced_by(last))
        _place(client, name, last, stage)
    return last


def _place(client: Any, name: str, version: str, stage: str) -> None:
    if alias := ALIASES[stage]:
        client.set_registered_model_alias(name, alias, version)
    client.transition_model_version_stage(name, version, stage, archive_existing_versions=bool(alias))


def _replaced_by(version: str) -> str:
    return f"version {version} has taken its place"


def _version(number: str) -> str:
    return f"version {number}" if number else "no version"


def _how_to_promote(name: str, version: str, stage: str) -> str:
    from socratic_mlflow.config import Config

    given = "" if name == Config().registry.registered_model_name else f" --name {name}"
    return f"'socratic-mlflow promote {version}{f' --stage {stage}' if stage != 'Production' else ''}{given}'"
