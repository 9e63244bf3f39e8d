"""A reply while it grows: where a stop text ends it, and which part of it is certain enough to be shown. No imports."""

from __future__ import annotations

from collections.abc import Sequence

# What a tokenizer writes for the first bytes of a character whose last ones have not been generated yet.
_HALF = "\ufffd"


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """(`text` up to the first of `stop` in it, whether there was one)."""
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return (text[: min(found)].rstrip(), True) if found else (text, False)


class GrowingText:
    """Turns a text that is seen again and again, each time longer, into pieces that add up to it."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = stop
        self._shown = ""

    def more(self, text: str) -> str:
        """What of `text` is certain and was not given before; may be empty.

        Held back are half a character, and an end that may be the beginning of a stop text.
        """
        sure, stopped = cut(text, self._stop)
        if not stopped:
            sure = sure.rstrip(_HALF)
            held = max((self._begun(sure, each) for each in self._stop), default=0)
            sure = sure[: len(sure) - held].rstrip() if held else sure
        return self._advance(sure)

    def rest(self, text: str) -> str:
        """What is left of the finished reply `text`."""
        return self._advance(text)

    def _begun(self, text: str, stop: str) -> int:
        """How many characters at the end of `text` are the beginning of `stop`."""
        return next((size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])), 0)

    def _advance(self, text: str) -> str:
        if not text.startswith(self._shown):
            return ""
        piece, self._shown = text[len(self._shown) :], text
        return piece
