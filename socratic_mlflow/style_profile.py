"""What a speaking style is, as data: named features with phrases and weights. Knows no text and computes no score.

A profile says what `style.py` looks for. The Socratic one is written in `socratic.py`; others are small YAML files
(`read_profile`), such as `profiles/gozaru.yaml`. Standard library and, where a file is read, PyYAML.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a feature of a whole reply can be apart from phrases; `style.py` defines each.
MEASURES = ("markup", "literal_escape", "outer_quotes", "latin_debris")
PLACES = ("ends", "starts", "opens", "contains")

_PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Feature:
    """One thing that a sentence or a reply can have, and what it is worth.

    A sentence has it if it ends in one of `ends`, starts with one of `starts`, has one of `opens` at its start or behind
    a comma, or has one of `contains` anywhere. `unless` are longer phrases that do not count at the same place. `after`
    is how many characters must stand before an ending, so that the bare ending is no sentence. `first` looks at a reply's
    first sentence only, `absent` turns the feature around (the reply has it if no sentence does). Instead of phrases a
    feature of a reply may name a `measure`.
    """

    name: str
    weight: float
    what: str = ""
    ends: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    after: int = 0
    first: bool = False
    absent: bool = False
    measure: str = ""


@dataclass(frozen=True)
class StyleProfile:
    """A speaking style: `style` features are added up in each sentence, `tone` features in the reply, from `tone_base` on."""

    name: str
    style: tuple[Feature, ...]
    tone: tuple[Feature, ...]
    tone_base: float = 0.0
    what: str = ""

    def digest(self) -> str:
        """SHA-256 in hexadecimal of all that can change a score."""
        scoring = dataclasses.asdict(self)
        del scoring["what"]
        for feature in (*scoring["style"], *scoring["tone"]):
            del feature["what"]
        return hashlib.sha256(json.dumps(scoring, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def shipped() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in _PROFILES.glob("*.yaml"))


def read_profile(name_or_file: str) -> StyleProfile:
    """The shipped profile of that name, or the one in a YAML file; ValueError (file, line, what is allowed) otherwise."""
    if name_or_file == "socratic":
        from socratic_mlflow.socratic import SOCRATIC

        return SOCRATIC
    path = _PROFILES / f"{name_or_file}.yaml" if name_or_file in shipped() else Path(name_or_file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(
            f"style_profile {name_or_file}: cannot be read ({reason}); give a YAML file or one of {', '.join(shipped())}"
        ) from None
    return parse_profile(text, name_or_file)


def parse_profile(text: str, where: str) -> StyleProfile:
    """The profile in YAML `text`; ValueError names `where` it stands, the line, the field and what is allowed."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ValueError(f"{where}:{line}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
    return _Reader(where).profile(root)


def to_yaml(profile: StyleProfile) -> str:
    """The profile as YAML that `parse_profile` reads back to the same value; what has its default is left out."""
    import yaml

    def entry(feature: Feature) -> dict[str, Any]:
        given = {spec.name: getattr(feature, spec.name) for spec in dataclasses.fields(feature)}
        defaults = {spec.name: spec.default for spec in dataclasses.fields(feature)}
        kept = {name: value for name, value in given.items() if value != defaults[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    content = {
        "name": profile.name,
        "what": profile.what,
        "style": [entry(feature) for feature in profile.style],
        "tone_base": profile.tone_base,
        "tone": [entry(feature) for feature in profile.tone],
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None))


class _Reader:
    """YAML nodes -> profile. Nodes and not loaded values, because they know their line."""

    def __init__(self, where: str) -> None:
        self._where = where

    def profile(self, root: Any) -> StyleProfile:
        fields = self._mapping(root, ("name", "what", "style", "tone_base", "tone"), "a profile")
        for name in ("name", "style", "tone"):
            if name not in fields:
                raise self._error(root, f"a profile needs the field {name!r}")
        style = self._features(fields["style"], "style")
        if any(feature.weight < 0 for feature in style) or sum(feature.weight for feature in style) > 1 + 1e-9:
            raise self._error(fields["style"], "the weights under style must be at least 0 and add up to at most 1")
        base = self._number(fields["tone_base"], "tone_base", 0, 1) if "tone_base" in fields else 0.0
        return StyleProfile(
            name=self._text(fields["name"], "name"),
            what=self._text(fields["what"], "what") if "what" in fields else "",
            style=style,
            tone=self._features(fields["tone"], "tone"),
            tone_base=base,
        )

    def _features(self, node: Any, section: str) -> tuple[Feature, ...]:
        if getattr(node, "id", "") != "sequence" or not node.value:
            raise self._error(node, f"{section} must be a list of features that is not empty")
        features = tuple(self._feature(item, section) for item in node.value)
        names = [feature.name for feature in features]
        for item, name in zip(node.value, names, strict=True):
            if names.count(name) > 1:
                raise self._error(item, f"two features under {section} are called {name!r}")
        return features

    def _feature(self, node: Any, section: str) -> Feature:
        fields = self._mapping(node, tuple(spec.name for spec in dataclasses.fields(Feature)), "a feature")
        for name in ("name", "weight"):
            if name not in fields:
                raise self._error(node, f"a feature needs the field {name!r}")
        values: dict[str, Any] = {
            "name": self._text(fields["name"], "name"),
            "weight": self._number(fields["weight"], "weight", -1, 1),
        }
        for name in (*PLACES, "unless"):
            if name in fields:
                values[name] = self._phrases(fields[name], name)
        if "after" in fields:
            values["after"] = int(self._number(fields["after"], "after", 0, 100, whole=True))
        for name in ("first", "absent"):
            if name in fields:
                values[name] = self._flag(fields[name], name)
        for name in ("what", "measure"):
            if name in fields:
                values[name] = self._text(fields[name], name)
        self._check_feature(node, Feature(**values), section)
        return Feature(**values)

    def _check_feature(self, node: Any, feature: Feature, section: str) -> None:
        phrases = [place for place in PLACES if getattr(feature, place)]
        if feature.measure and feature.measure not in MEASURES:
            raise self._error(node, f"measure is {feature.measure!r}; allowed: one of {', '.join(MEASURES)}")
        if bool(feature.measure) == bool(phrases):
            raise self._error(node, f"feature {feature.name!r} needs phrases ({', '.join(PLACES)}) or a measure, not both")
        if section == "style" and (feature.measure or feature.first or feature.absent):
            raise self._error(node, "measure, first and absent are for features under tone, which look at the whole reply")

    def _mapping(self, node: Any, allowed: tuple[str, ...], what: str) -> dict[str, Any]:
        if getattr(node, "id", "") != "mapping":
            raise self._error(node, f"{what} must be 'field: value' lines; fields: {', '.join(allowed)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if key.id == "scalar" else "?"
            if name not in allowed:
                raise self._error(key, f"unknown field {name!r}; {what} has {', '.join(allowed)}")
            if name in found:
                raise self._error(key, f"field {name!r} stands twice")
            found[name] = value
        return found

    def _text(self, node: Any, name: str) -> str:
        if node.id != "scalar" or not node.value.strip():
            raise self._error(node, f"{name} must be text that is not empty")
        return str(node.value)

    def _number(self, node: Any, name: str, low: float, high: float, whole: bool = False) -> float:
        try:
            value = float(int(node.value) if whole else node.value)
        except (TypeError, ValueError):
            value = math.nan
        if not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise self._error(node, f"{name} is {_shown(node)}; allowed: {kind} from {low} to {high}")
        return value

    def _flag(self, node: Any, name: str) -> bool:
        if node.id != "scalar" or node.value not in ("true", "false"):
            raise self._error(node, f"{name} is {_shown(node)}; allowed: true or false")
        return bool(node.value == "true")

    def _phrases(self, node: Any, name: str) -> tuple[str, ...]:
        if node.id != "sequence" or not node.value:
            raise self._error(node, f"{name} must be a list of phrases, such as [かね, だろうか]")
        return tuple(self._text(item, f"each phrase of {name}") for item in node.value)

    def _error(self, node: Any, message: str) -> ValueError:
        line = node.start_mark.line + 1 if node is not None else 1
        return ValueError(f"{self._where}:{line}: {message}")


def _shown(node: Any) -> str:
    return repr(node.value) if node.id == "scalar" else f"a {'list' if node.id == 'sequence' else 'mapping'}"
