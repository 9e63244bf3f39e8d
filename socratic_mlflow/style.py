"""Reply text -> how Socratic it sounds, as numbers in [0, 1]. Standard library only; knows nothing of models.

`socratic_style` is the mean over the sentences of what each one has (a question in this style, an address, an inquiry).
`socratic_tone` adds up what the whole reply has, with weights that were fitted to a judge's ratings (docs/style.md).
`explain` shows both sums. All three take another `profile` as well. Time grows linearly with the text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style_profile import Feature, StyleProfile

# A sentence ends at a run of these (not at a decimal point); quotes that close behind them belong to the one that ended.
_SENTENCE_END = re.compile(r"(?:[。!?❗❕❓❔⋯\n]|\.(?!\d))+")
_LINE_BREAK = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# From the first to the last letter or digit. (str.strip with a set of marks takes time for each mark in the set.)
_WORDS = re.compile(r"[^\W_](?:.*[^\W_])?", re.DOTALL)
# What may hang on any ending: かねっ, かねーー, かねｗ, かね（笑）. Bounded, so that time stays linear.
_DRAWN_OUT = "[ーっッぁぃぅぇぉァィゥェォw(笑]{0,9}"
# A line break that leaked as two characters, backslash (or its Japanese stand-in, the yen sign) and n.
_ESCAPE = re.compile(r"(?<![\\¥])[\\¥]+[nrt](?![a-z])")
# Lower-case, for AI, SNS and other acronyms are ordinary Japanese.
_LATIN = re.compile(r"(?<![A-Za-z])[A-Za-z]*?[a-z]{2,}")
# Angle brackets only as a tag's: ＜注＞ and ＞＜ are ordinary Japanese.
_MARKUP = re.compile(r"[{}`|]|</?[A-Za-z]|\*\*|^[^\S\n]*[#>]", re.MULTILINE)
# More marks on one character than any language has (UAX #15, Stream-Safe Text Format) cost quadratic time to normalize.
_MARKS_ON_ONE = 30
# Two Arabic phrases are one character each; the longest other one stands for six (㌖, キロメートル).
_LONGEST_FORM = 6
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_QUOTES = dict(zip("「『“〝‘\"'(【«《〈[〔", "」』”〟’\"')】»》〉]〕", strict=True))
_QUOTED_PART = f"(?:[^\\W_]|[{re.escape(''.join({*_QUOTES, *_QUOTES.values()}))}])"
_QUOTED = re.compile(f"{_QUOTED_PART}(?:.*{_QUOTED_PART})?", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A feature that a sentence or a reply has: what it adds to the score, and the phrase or measure that shows it."""

    name: str
    weight: float
    evidence: str


@dataclass(frozen=True)
class SentenceStyle:
    """A sentence as it was scored (normalized, without the marks around it) and what it scored for."""

    text: str
    style: float
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Explanation:
    """Both scores of a reply with all that went into them; `tone` is `tone_base` and `tone_found`, kept within [0, 1]."""

    style: float
    tone: float
    sentences: tuple[SentenceStyle, ...]
    tone_base: float
    tone_found: tuple[Found, ...]


def socratic_style(text: str, profile: StyleProfile = SOCRATIC) -> float:
    """Mean sentence score in [0, 1]; 0.0 for text without a sentence."""
    lines = sentences(text)
    joined = "\n".join(lines)
    total = sum(
        feature.weight * len(_line_counter(feature).findall(_visible(feature, joined))) for feature in profile.style
    )
    return min(total / len(lines), 1.0) if lines else 0.0


def socratic_tone(text: str, profile: StyleProfile = SOCRATIC) -> float:
    """`profile.tone_base` and the weight of every feature that the reply has, within [0, 1]; 0.0 without a sentence."""
    return _bounded(profile.tone_base, _tone_found(text, sentences(text), profile))


def explain(text: str, profile: StyleProfile = SOCRATIC) -> Explanation:
    """What `socratic_style` and `socratic_tone` saw: each sentence with its score and why, and the reply's features."""
    lines = sentences(text)
    found = _tone_found(text, lines, profile)
    return Explanation(
        style=socratic_style(text, profile),
        tone=_bounded(profile.tone_base, found),
        sentences=tuple(_explain_sentence(line, profile) for line in lines),
        tone_base=profile.tone_base,
        tone_found=found or (),
    )


def sentences(text: str) -> list[str]:
    """The sentences of `text`, normalized (NFKC) and without the punctuation, quotes and emoji around them."""
    parts = _SENTENCE_END.split(_unescaped(normalize(text)))
    return [words[0] for part in parts if (words := _WORDS.search(part))]


def normalize(text: str) -> str:
    """`text` in one width (NFKC), with one kind of line break, nothing invisible, and no more marks than a language has."""
    read = {ord(char): form for char in set(text) if (form := _read(char)) != char}
    if read:
        text = text.translate(read)
    # Some marks count as none themselves and fall apart into ones that do.
    marks = "".join(char for char in set(text) if unicodedata.combining(unicodedata.normalize("NFKD", char)[0]))
    if marks:
        run = f"([{re.escape(marks)}]{{{_MARKS_ON_ONE}}})[{re.escape(marks)}]+"
        text = re.sub(run, r"\1", text)
    return _LINE_BREAK.sub("\n", unicodedata.normalize("NFKC", text))


def _read(char: str) -> str:
    """What of `char` is read: nothing where it is invisible, the first letter where it stands for a whole phrase."""
    if unicodedata.category(char) == "Cf" or _VARIATION.match(char):
        return ""
    form = unicodedata.normalize("NFKC", char)
    return form[0] if len(form) > _LONGEST_FORM else char


def _unescaped(normal: str) -> str:
    return _ESCAPE.sub("\n", normal)


def _tone_found(text: str, lines: Sequence[str], profile: StyleProfile) -> tuple[Found, ...] | None:
    """The tone features that a reply has; None for one without a sentence."""
    if not lines:
        return None
    normal, joined = normalize(text), "\n".join(lines)
    evidence = {feature: _evidence(feature, normal, joined) for feature in profile.tone}
    return tuple(Found(feature.name, feature.weight, seen) for feature, seen in evidence.items() if seen is not None)


def _evidence(feature: Feature, normal: str, joined: str) -> str | None:
    """What shows that the reply has `feature`, or None where it has not."""
    if feature.measure:
        return MEASURED[feature.measure](normal)
    match = _pattern(feature).search(_visible(feature, joined.partition("\n")[0] if feature.first else joined))
    if feature.absent:
        return None if match else "none"
    return match[0] if match else None


def _bounded(base: float, found: Sequence[Found] | None) -> float:
    if found is None:
        return 0.0
    # Rounded, so that a sum of weights which is 1 on paper is 1.
    return min(max(round(base + sum(part.weight for part in found), 9), 0.0), 1.0)


def _explain_sentence(line: str, profile: StyleProfile) -> SentenceStyle:
    matches = [(feature, _pattern(feature).search(_visible(feature, line))) for feature in profile.style]
    found = tuple(Found(feature.name, feature.weight, match[0]) for feature, match in matches if match)
    return SentenceStyle(line, min(sum((part.weight for part in found), 0.0), 1.0), found)


def _visible(feature: Feature, lines: str) -> str:
    """`lines` with what `feature.unless` names blanked out."""
    return _unless(feature).sub(lambda match: "\0" * len(match[0]), lines) if feature.unless else lines


@functools.lru_cache(maxsize=256)
def _unless(feature: Feature) -> re.Pattern[str]:
    return re.compile(_any_of(feature.unless))


@functools.lru_cache(maxsize=256)
def _pattern(feature: Feature) -> re.Pattern[str]:
    """Finds the feature's phrases in sentences, one a line. Phrases are literal: no file can bring a slow regex."""
    return re.compile("|".join(_alternatives(feature)), re.MULTILINE)


@functools.lru_cache(maxsize=256)
def _line_counter(feature: Feature) -> re.Pattern[str]:
    """Matches once in each line that has the feature."""
    return re.compile(f"^.*?(?:{'|'.join(_alternatives(feature))})", re.MULTILINE)


def _alternatives(feature: Feature) -> list[str]:
    before = f"(?<=.{{{feature.after}}})" if feature.after else ""
    then = f"{_any_of(feature.then)}?" if feature.then else ""
    patterns = {
        "ends": f"{before}{_any_of(feature.ends)}{then}{_DRAWN_OUT}$",
        "starts": f"^{_any_of(feature.starts)}",
        "opens": f"(?:^|(?<=[、,])|(?<=[、,] )){_any_of(feature.opens)}",
        "contains": _any_of(feature.contains),
    }
    return [pattern for place, pattern in patterns.items() if getattr(feature, place)]


def _any_of(phrases: Sequence[str]) -> str:
    """The longest first, so that a phrase does not hide a longer one."""
    return f"(?:{'|'.join(re.escape(phrase) for phrase in sorted(map(normalize, phrases), key=len, reverse=True))})"


def _outer_quotes(clean: str) -> str | None:
    """Quotes around the whole reply: the one that opens it closes at its very end (other marks around them aside)."""
    whole = _QUOTED.search(clean)
    inner = whole[0] if whole else ""
    closing = _QUOTES.get(inner[:1])
    if closing is None or len(inner) < 2 or inner[-1] != closing:
        return None
    opening, depth = inner[0], 0
    for match in re.finditer(f"[{re.escape(opening + closing)}]", inner):
        closes = match[0] == closing and (opening != closing or depth > 0)
        depth += -1 if closes else 1
        if depth == 0 and match.end() < len(inner):
            return None
    return opening + closing if depth == 0 else None


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[0] if match else None


# All but the first see the reply with its escapes turned into line breaks.
MEASURED: dict[str, Callable[[str], str | None]] = {
    "literal_escape": lambda normal: _found(_ESCAPE, normal),
    "markup": lambda normal: _found(_MARKUP, _unescaped(normal)),
    "outer_quotes": lambda normal: _outer_quotes(_unescaped(normal)),
    "latin_debris": lambda normal: _found(_LATIN, _unescaped(normal)),
}
