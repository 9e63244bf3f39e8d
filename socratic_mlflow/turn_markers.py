"""Turn markers inside a message's text are made harmless, so that they open no turn. Knows nothing of files and labels.

Two kinds of markers: added tokens of the tokenizer, found as it finds them itself (behind its normalizer, too), and what
a chat template puts around messages in plain text ('[INST]', '### User:'), found as text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

# Signs that ordinary words do not have: what holds one is a marker.
_SIGNS = r"\[\]<>{}#|｜=*@~^`\\【】"
_BRACKETED = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]|【[^【】\s]+】")
# Look-alikes that no Unicode normalization turns back, in case the full-width form does turn back.
_LOOK_ALIKE = dict(zip("<>[]{}|#:*=@~^`\\【】", "‹›〔〕❴❵¦♯∶∗⹀©∼ˆˋ∖〖〗", strict=True))
_SIGN = re.compile(f"[{_SIGNS}:：]")
_ROUNDS = 8


class TurnMarkers:
    """The markers of one tokenizer and of the texts `around` messages that its chat template writes."""

    def __init__(self, tokenizer: Any, around: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._added = _marker_tokens(tokenizer, "".join(around))
        self.literals = sorted(_literals(around, list(tokenizer.get_added_vocab())))
        self._literal = re.compile("|".join(map(self._pattern, self.literals)) or r"(?!)", re.MULTILINE)

    def harmless(self, text: str) -> str:
        """`text` with every marker in it spelled with look-alikes; what cannot be spelled so is left."""
        text = self._literal.sub(lambda found: self._soften(found[0]), text)
        # Making one harmless may bring forth another, which had been hidden in it.
        for _ in range(_ROUNDS):
            spans = self._spans(text)
            if not spans:
                break
            for start, end in reversed(spans):
                text = text[:start] + self._soften(text[start:end]) + text[end:]
        return text

    def shape(self, ids: Sequence[int], text: str) -> tuple[list[int], list[str]]:
        """The markers, in order, in `ids` and in the `text` that they spell: equal for whatever is said in the turns."""
        tokens = [token for token in ids if token in self._added and token != self._tokenizer.unk_token_id]
        return tokens, ["".join(self._normal(found[0]).split()) for found in self._literal.finditer(text)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in `text` of each added token that is a marker."""
        if not getattr(self._tokenizer, "is_fast", False):
            literal = "|".join(re.escape(marker) for marker in sorted(self._added.values(), key=len, reverse=True))
            return [found.span() for found in re.finditer(literal or r"(?!)", text)]
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [
            (start, end)
            for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True)
            if token in self._added and self._means(token, text[start:end])
        ]

    def _means(self, token: int, span: str) -> bool:
        """Whether `span` spells the marker: any unknown character is the unknown token, too."""
        return token != self._tokenizer.unk_token_id or self._normal(span.strip()) == self._normal(self._added[token])

    def _soften(self, marker: str) -> str:
        """`marker` with other signs; where it has none, with another first letter."""
        if any(_SIGN.match(_base(char)) for char in marker):
            return "".join(self._other(char) if _SIGN.match(_base(char)) else char for char in marker)
        first = re.search(r"[!-~]", marker)
        return marker if first is None else marker[: first.start()] + self._other(first[0]) + marker[first.end() :]

    def _other(self, char: str) -> str:
        """The full-width form of `char` or, where the tokenizer takes that for `char` itself, another look-alike."""
        base = _base(char)
        taken = {self._normal(char), self._normal(base)}
        looks = (_wide(base), _LOOK_ALIKE.get(base, char))
        return next((look for look in looks if self._normal(look) not in taken), char)

    def _normal(self, text: str) -> str:
        return str(self._normalizer.normalize_str(text)) if self._normalizer is not None else text

    def _pattern(self, literal: str) -> str:
        """Matches `literal` and every spelling that the tokenizer takes for the same."""
        anchor, literal = (r"^[ \t]*", literal[1:]) if literal.startswith("\n") else ("", literal)
        return anchor + "".join(self._same(char) for char in re.sub(r"\s+", " ", literal))

    def _same(self, char: str) -> str:
        if char == " ":
            return r"\s+"
        spellings = {form for each in (char, _wide(char)) for form in (each, each.lower(), each.upper())}
        same = {each for each in spellings if len(each) == 1 and self._normal(each) == self._normal(char)}
        return f"[{''.join(map(re.escape, sorted(same | {char})))}]"


def _wide(char: str) -> str:
    return chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char


def _base(char: str) -> str:
    """What `char` is another width of, or itself."""
    base = unicodedata.normalize("NFKC", char)
    return base if len(base) == 1 else char


def _marker_tokens(tokenizer: Any, around: str) -> dict[int, str]:
    """{id: text} of the added tokens that mark something; Gemma's tokenizer adds line breaks as well, as ordinary text."""
    return {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip()
        and (token.special or _used(token.content, around) or re.search(f"[{_SIGNS}]", token.content))
    }


def _used(token: str, around: str) -> bool:
    """Whether the template marks turns by `token`; a mere word may be a role's name, as in ordinary text."""
    return token in around and not token.strip().isalnum()


def _literals(around: Sequence[str], added: Sequence[str]) -> set[str]:
    """Distinctive plain text in what stands around messages; a line break leads what stands at the start of a line."""
    found: set[str] = set()
    for text in around:
        for token in added:
            if token.strip():
                text = text.replace(token, "\0")
        for start, phrase in re.findall(r"(^|\n|\0)([^\n\0]+)", text):
            phrase = phrase.strip()
            if bracketed := _BRACKETED.findall(phrase):
                found.update(bracketed)
            elif len(phrase) > 2 and re.search(f"[{_SIGNS}]", phrase):
                found.add(phrase)
            elif len(phrase) > 1 and phrase.endswith((":", "：")):
                found.add(f"\n{phrase}" if start == "\n" else phrase)
    # What stands anywhere somewhere is a marker anywhere.
    return {each for each in found if not (each.startswith("\n") and each[1:] in found)}
