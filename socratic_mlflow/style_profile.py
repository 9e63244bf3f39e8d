"""What a speaking style is, as data: named features with phrases and weights. Knows no text and computes no score.

A profile says what `style.py` looks for. The Socratic one is written in `socratic.py`; others are small YAML files
(`read_profile`), such as `profiles/gozaru.yaml`. Standard library and, where a file is read, PyYAML.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from socratic_mlflow.yaml_nodes import compose

# What a feature of a whole reply can be apart from phrases; `style.py` defines each.
MEASURES = ("markup", "literal_escape", "outer_quotes", "latin_debris")
PLACES = ("ends", "starts", "opens", "contains")

# Far more than a style needs; what a file can cost stays small.
_MOST_CHARACTERS, _MOST_PHRASES, _LONGEST_PHRASE = 100_000, 200, 40
# With what a phrase must be able to stand in a sentence; with something on both sides unless said here.
_AROUND = {"ends": ("あ", ""), "then": ("あ", ""), "starts": ("", "あ"), "opens": ("", "あ")}
_NAME = re.compile(r"[\w-]{1,60}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Feature:
    """One thing that a sentence or a reply can have, and what it is worth.

    A sentence has it if it ends in one of `ends`, starts with one of `starts`, has one of `opens` at its start or behind
    a comma, or has one of `contains` anywhere. One of `then` may follow an ending. `unless` are longer phrases: what
    stands in them does not count. `after` is how many characters must stand before an ending, so that the bare ending is
    no sentence. `first` looks at a reply's first sentence only, `absent` turns the feature around (the reply has it if no
    sentence does). Instead of phrases a feature of a reply may name a `measure`.
    """

    name: str
    weight: float
    what: str = ""
    ends: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
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
    """A speaking style: `style` features add up in each sentence, `tone` features in the reply from `tone_base` on."""

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
        text = _beginning(path)
    except (OSError, ValueError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        raise ValueError(
            f"style_profile {name_or_file}: cannot be read ({reason}); give a YAML file or one of {', '.join(shipped())}"
        ) from None
    return parse_profile(text, name_or_file)


def _beginning(path: Path) -> str:
    """A regular file's text, of one that is too long no more than shows it."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open(encoding="utf-8-sig") as file:
        return file.read(_MOST_CHARACTERS + 1)


def parse_profile(text: str, where: str) -> StyleProfile:
    """The profile in YAML `text`; ValueError names `where` it stands, the line, the field and what is allowed."""
    import yaml

    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{where}:1: too many characters; allowed: at most {_MOST_CHARACTERS}")
    root = compose(text, where)
    tag = next((token for token in yaml.scan(text) if isinstance(token, yaml.TagToken)), None)
    if tag:
        raise ValueError(f"{where}:{tag.start_mark.line + 1}: a tag ('!...'); allowed: plain text, numbers, lists, fields")
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
        **({"what": profile.what} if profile.what else {}),
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
            name=self._name(fields["name"]),
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
        readers: dict[str, Callable[[Any], Any]] = {
            "name": self._name,
            "weight": lambda value: self._number(value, "weight", -1, 1),
            "what": lambda value: self._text(value, "what"),
            **{field: partial(self._phrases, name=field) for field in (*PLACES, "then", "unless")},
            "after": lambda value: int(self._number(value, "after", 0, 100, whole=True)),
            **{field: partial(self._flag, name=field) for field in ("first", "absent")},
            "measure": self._measure,
        }
        fields = self._mapping(node, tuple(readers), "a feature")
        for name in ("name", "weight"):
            if name not in fields:
                raise self._error(node, f"a feature needs the field {name!r}")
        self._check_together(node, set(fields), section)
        return Feature(**{name: readers[name](value) for name, value in fields.items()})

    def _check_together(self, node: Any, given: set[str], section: str) -> None:
        if ("measure" in given) == bool(given & set(PLACES)):
            raise self._error(node, f"a feature needs phrases ({', '.join(PLACES)}) or a measure, not both")
        if "measure" in given and given - {"name", "weight", "what", "measure"}:
            raise self._error(node, "a feature with a measure has no fields but name, weight, what and measure")
        if given & {"then", "after"} and "ends" not in given:
            raise self._error(node, "then and after belong to ends, which this feature has not")
        if section == "style" and given & {"measure", "first", "absent"}:
            raise self._error(node, "measure, first and absent are for features under tone, which look at the whole reply")

    def _mapping(self, node: Any, allowed: tuple[str, ...], what: str) -> dict[str, Any]:
        if getattr(node, "id", "") != "mapping":
            raise self._error(node, f"{what} must be 'field: value' lines; fields: {', '.join(allowed)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if key.id == "scalar" else None
            if name not in allowed:
                raise self._error(key, f"unknown field {_shown(key)}; {what} has {', '.join(allowed)}")
            if name in found:
                raise self._error(key, f"field {name!r} stands twice")
            found[name] = value
        return found

    def _text(self, node: Any, name: str) -> str:
        if node.id != "scalar" or not node.value.strip() or _CONTROL.search(node.value):
            raise self._error(node, f"{name} is {_shown(node)}; allowed: text, not empty, without control characters")
        return str(node.value)

    def _name(self, node: Any) -> str:
        if node.id != "scalar" or not _NAME.fullmatch(node.value):
            raise self._error(node, f"name is {_shown(node)}; allowed: 1 to 60 letters, digits, _ and -")
        return str(node.value)

    def _measure(self, node: Any) -> str:
        if node.id != "scalar" or node.value not in MEASURES:
            raise self._error(node, f"measure is {_shown(node)}; allowed: one of {', '.join(MEASURES)}")
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
        if node.id != "sequence" or not 0 < len(node.value) <= _MOST_PHRASES:
            raise self._error(node, f"{name} must be a list of 1 to {_MOST_PHRASES} phrases, such as [かね, だろうか]")
        return tuple(self._phrase(item, name) for item in node.value)

    def _phrase(self, node: Any, name: str) -> str:
        from socratic_mlflow.style import normalize, sentences

        phrase = self._text(node, f"a phrase of {name}")
        if not normalize(phrase).strip():
            raise self._error(node, f"{name} cannot find {_shown(node)}: nothing in it is visible")
        if len(phrase) > _LONGEST_PHRASE:
            raise self._error(node, f"{name} has a phrase of {len(phrase)} characters; allowed: at most {_LONGEST_PHRASE}")
        before, after = _AROUND.get(name, ("あ", "あ"))
        if sentences(before + phrase + after) != [normalize(before + phrase + after)]:
            raise self._error(
                node, f"{name} cannot find {_shown(node)}: marks that end a sentence or surround it are cut off"
            )
        return phrase

    def _error(self, node: Any, message: str) -> ValueError:
        line = node.start_mark.line + 1 if node is not None else 1
        return ValueError(f"{self._where}:{line}: {message}")


def _shown(node: Any) -> str:
    if node.id != "scalar":
        return "a list" if node.id == "sequence" else "a mapping"
    return repr(node.value) if len(node.value) <= _LONGEST_PHRASE else f"{node.value[:_LONGEST_PHRASE]!r}..."
