"""Token ids one by one -> a reply's text in pieces, each as soon as it is whole. Knows nothing of who reads them.

transformers' own streamers hold Japanese text back until a space, a line break or a Chinese character comes, and show half
a character as U+FFFD where its other bytes never come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat

# What a tokenizer spells where bytes make no character, or not yet.
_NO_CHARACTER = "\ufffd"


class TextStream:
    """A streamer for transformers' `generate` and one conversation. `write` gets each new piece; `text` is all of them.

    Together the pieces are the reply as `ChatFormat.text` spells it, without the bytes that make no character.
    """

    def __init__(self, chat: ChatFormat, write: Callable[[str], object]) -> None:
        self.text = ""
        self._chat, self._write, self._stops = chat, write, frozenset(chat.stop_ids)
        self._ids: list[int] = []
        # What lies before `_shown` is shown; it is decoded anew from `_start`, for some tokens depend on the one before.
        self._start = self._shown = 0
        self._space, self._seen_prompt, self._ended = "", False, False

    def put(self, tokens: Any) -> None:
        """Take the next ids, a tensor of any shape; the first one is the prompt."""
        if not self._seen_prompt:
            self._seen_prompt = True
            return
        for token in tokens.flatten().tolist():
            self._add(token)

    def end(self) -> None:
        """Nothing is left to say: what is held back is half a character, or space behind the last word."""

    def _add(self, token: int) -> None:
        self._ended = self._ended or token in self._stops
        if self._ended:
            return
        self._ids.append(token)
        text = self._decoded(len(self._ids))
        if text.endswith(_NO_CHARACTER):
            return
        new = text[len(self._decoded(self._shown)) :]
        self._start, self._shown = self._shown, len(self._ids)
        self._say(self._space + new.replace(_NO_CHARACTER, ""))

    def _decoded(self, end: int) -> str:
        return str(self._chat.tokenizer.decode(self._ids[self._start : end], skip_special_tokens=True))

    def _say(self, text: str) -> None:
        text = text if self.text else text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            self.text += said
            self._write(said)
