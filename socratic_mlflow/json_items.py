"""The values of a JSON list or of JSONL one after the other, read from a text that comes in pieces. Standard library only.

Memory holds one piece and one value, and the work is linear for whatever a file may hold: where a value goes on behind the
text at hand, at least as much is read as is there already before it is tried again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
# Not every ValueError: reading on may raise one, about the file.
_MALFORMED = (json.JSONDecodeError, RecursionError)
# What JSON may be cut in without a quote to tell: a number's or a word's last characters, an escape.
_MARGIN = 64
# A list or object takes some hundred bytes of memory, however short it is in the file.
_MANY_BRACKETS = 100_000


def items(path: str, pieces: Iterator[str], decoder: json.JSONDecoder) -> Iterator[tuple[str, Any]]:
    """(place, value) of every element of a JSON list ('index 0' ...), or of every line of JSONL ('line 1' ...).

    ValueError (one line: file and line) where the text is neither.
    """
    text = _Text(path, pieces, decoder)
    text.skip_space()
    yield from text.elements() if text.at("[") else text.lines()


class _Text:
    """`text` is what is at hand of a file, used up to `position`; it begins in the file's `line`, behind `column`."""

    def __init__(self, path: str, pieces: Iterator[str], decoder: json.JSONDecoder) -> None:
        self._path, self._pieces, self._decoder = path, pieces, decoder
        self.text, self.position, self._line, self._column = "", 0, 1, 0

    def at(self, sign: str) -> bool:
        """Whether `sign` comes next."""
        return self.text.startswith(sign, self.position)

    def skip_space(self) -> None:
        """Go on to what is no space, or to the end."""
        while True:
            space = _SPACE.match(self.text, self.position)
            self.position = space.end() if space else self.position
            if self.position < len(self.text) or not self._read_on():
                return

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Those of the list whose bracket comes next, decoded one by one: all at once take far more memory."""
        self._skip_sign()
        index, end = 0, self.at("]")
        while not end:
            yield f"index {index}", self._value()
            self.skip_space()
            index, end = index + 1, self.at("]")
            if not end:
                self._expect(self.at(","), "Expecting ',' delimiter")
                self._skip_sign()
        self._skip_sign()
        self._expect(self.position == len(self.text), "Extra data")

    def lines(self) -> Iterator[tuple[str, Any]]:
        """Each line that holds something, as a value."""
        number, first = self._line_at(self.position), True
        # What was skipped of the first line, so that its columns are right.
        self.text, self.position = " " * self._column_at(self.position) + self.text[self.position :], 0
        self._line, self._column = number, 0
        for start, line in self._lines():
            if line and not line.isspace():
                try:
                    item = self._decoder.decode(line)
                except _MALFORMED as error:
                    raise (self._spread(start) if first else None) or self._malformed(error, number) from None
                yield f"line {number}", item
                first = False
            number += 1

    def _lines(self) -> Iterator[tuple[int, str]]:
        """(where in `text` it begins, line without its break) of each line.

        Not splitlines(): U+2028 and its like may stand inside a JSON string.
        """
        while self.position < len(self.text) or self._read_on():
            while (end := self.text.find("\n", self.position)) < 0 and self._read_on():
                pass
            end = len(self.text) if end < 0 else end
            start, self.position = self.position, min(end + 1, len(self.text))
            yield start, self.text[start:end]

    def _value(self) -> Any:
        """The value that comes next; ValueError (one line) where it is malformed."""
        try:
            item, self.position = self._decoded()
        except _MALFORMED as error:
            raise self._malformed_here(error) from None
        return item

    def _decoded(self) -> tuple[Any, int]:
        """(the value at `position`, where it ends), as raw_decode finds them where the whole file is at hand."""
        while True:
            try:
                found = self._decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                is_cut = error.pos + _MARGIN > len(self.text) or error.msg.startswith("Unterminated string")
                if not is_cut or not self._read_on():
                    raise
            else:
                if found[1] + _MARGIN <= len(self.text) or not self._read_on():
                    return found

    def _read_on(self) -> bool:
        """Forget what is used, and read at least as much as is left; False where the file ends."""
        parts, length = [left := self.text[self.position :]], 0
        while length <= len(left) and (piece := next(self._pieces, "")):
            parts.append(piece)
            length += len(piece)
        if not length:
            return False
        self._line, self._column = self._line_at(self.position), self._column_at(self.position)
        self.text, self.position = "".join(parts), 0
        self._check_brackets()
        return True

    def _check_brackets(self) -> None:
        brackets = self.text.count("[") + self.text.count("{")
        if brackets > _MANY_BRACKETS and 8 * brackets > len(self.text):
            raise ValueError(
                f"{self._path}: {brackets} brackets in {len(self.text)} characters; that is no file of dialogues"
            )

    def _skip_sign(self) -> None:
        self.position += 1
        self.skip_space()

    def _expect(self, there: bool, otherwise: str) -> None:
        if not there:
            raise self._malformed_here(json.JSONDecodeError(otherwise, self.text, self.position))

    def _line_at(self, position: int) -> int:
        return self._line + self.text.count("\n", 0, position)

    def _column_at(self, position: int) -> int:
        """How many characters stand before `position` in its line."""
        line_break = self.text.rfind("\n", 0, position)
        return self._column + position if line_break < 0 else position - line_break - 1

    def _spread(self, start: int) -> ValueError | None:
        """What to say of a JSON object at `start` that takes several lines, such as one dialogue alone."""
        self.position = start
        self.skip_space()
        try:
            _, end = self._decoded()
        except _MALFORMED:
            return None
        if "\n" not in self.text[self.position : end]:
            return None
        line = self._line_at(self.position)
        return ValueError(
            f"{self._path}:{line}: a JSON object over several lines; give one dialogue a line, or a list [...] of them"
        )

    def _malformed_here(self, error: Exception) -> ValueError:
        """The error of a value at `position`, its own place in the file where it has one."""
        if isinstance(error, json.JSONDecodeError):
            error.lineno, error.colno = self._line_at(error.pos), self._column_at(error.pos) + 1
            return self._malformed(error, error.lineno)
        return self._malformed(error, self._line_at(self.position))

    def _malformed(self, error: Exception, line: int) -> ValueError:
        if isinstance(error, json.JSONDecodeError):
            return ValueError(f"{self._path}:{line}: malformed JSON (column {error.colno}: {error.msg})")
        return ValueError(f"{self._path}:{line}: malformed JSON (nested too deeply)")
