"""Token ids one by one -> a reply's text in pieces, each as soon as it is whole. Knows nothing of who reads them.

transformers' own streamers hold Japanese text back until a space, a line break or a Chinese character comes, and show half
a character as U+FFFD where its other bytes never come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat

# What a tokenizer spells where bytes make no character, or not yet.
_NO_CHARACTER = "\ufffd"
# Tokens; far more than any character has. What makes none for so long never will, and costs more with every token.
_MOST_HALF = 16


class Spelling:
    """The ids of one reply -> its text, up to the end of the turn; each id is decoded with its neighbours alone."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat, self._stops = chat, frozenset(chat.stop_ids)
        self._ids: list[int] = []
        # What lies before `_shown` is spelt; it is decoded anew from `_start`, for some tokens depend on the one before.
        self._start = self._shown = 0
        self._ended = False

    def more(self, token: int) -> str:
        """The text that is certain with the next id; may be empty, and holds U+FFFD for bytes that make no character."""
        self._ended = self._ended or token in self._stops
        if self._ended:
            return ""
        self._ids.append(token)
        text = self._decoded(len(self._ids))
        if text.endswith(_NO_CHARACTER) and len(self._ids) - self._shown < _MOST_HALF:
            return ""
        new = text[len(self._decoded(self._shown)) :]
        self._start, self._shown = self._shown, len(self._ids)
        return new

    def _decoded(self, end: int) -> str:
        return str(self._chat.tokenizer.decode(self._ids[self._start : end], skip_special_tokens=True))


class Pieces:
    """Text as it comes -> pieces of it that are certain to stand in the reply; `text` is all of them.

    The reply has no space around it and ends before the first of `stop`, from when on `stopped` is True. Held back are
    space, behind which nothing may come, and an end that may be the beginning of a stop text.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.text, self.stopped = "", False
        self._stop, self._held = stop, ""

    def more(self, new: str) -> str:
        """The next piece, which may be empty."""
        if self.stopped:
            return ""
        held = self._held + new
        held = held if self.text else held.lstrip()
        sure, self.stopped = cut(held.rstrip(), self._stop)
        if not self.stopped:
            sure = sure[: len(sure) - max((_begun(sure, each) for each in self._stop), default=0)].rstrip()
        self._held = held[len(sure) :]
        self.text += sure
        return sure

    def rest(self, whole: str) -> str:
        """The last piece, where the reply turns out to be `whole`."""
        return whole[len(self.text) :] if whole.startswith(self.text) else ""


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """(`text` up to the first of `stop` in it, whether there was one)."""
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return (text[: min(found)].rstrip(), True) if found else (text, False)


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])), 0)


class TextStream:
    """A streamer for transformers' `generate` and one conversation. `write` gets each new piece; `text` is all of them.

    Together the pieces are the reply as `ChatFormat.text` spells it, without the bytes that make no character.
    """

    def __init__(self, chat: ChatFormat, write: Callable[[str], object]) -> None:
        self._spelling, self._pieces, self._write = Spelling(chat), Pieces(), write
        self._seen_prompt = False

    @property
    def text(self) -> str:
        """All that was written."""
        return self._pieces.text

    def put(self, tokens: Any) -> None:
        """Take the next ids, a tensor of any shape; the first one is the prompt."""
        if not self._seen_prompt:
            self._seen_prompt = True
            return
        for token in tokens.flatten().tolist():
            if piece := self._pieces.more(self._spelling.more(token).replace(_NO_CHARACTER, "")):
                self._write(piece)

    def end(self) -> None:
        """Nothing is left to say: what is held back is half a character, or space behind the last word."""
