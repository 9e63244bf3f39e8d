"""Where a conversation is read from and shown: a terminal, or plain lines in a pipe. Knows nothing of models.

Replies come from models: what could steer a terminal is escaped. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys

from socratic_mlflow.plain_table import printable

PROMPT = "> "
_STDIN = "standard input"
_LINE_BREAK = re.compile(r"\s*[\n\v\f\r\x85\u2028\u2029]+\s*")


class Terminal:
    """A person: asked at a prompt; replies appear piece by piece."""

    talks = True

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives `input` its line editing
        # What is no UTF-8 is refused where it is read as a question; an error here would end the conversation.
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")

    def line(self) -> str | None:
        """What is typed next, None for Ctrl-D; KeyboardInterrupt for Ctrl-C."""
        try:
            return input(PROMPT)
        except EOFError:
            print(flush=True)
            return None

    def piece(self, text: str) -> None:
        """Show more of a reply."""
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def reply(self, text: str) -> None:
        """The reply is whole; its pieces are shown already."""
        sys.stdout.write("\n")
        sys.stdout.flush()

    aside = reply

    def note(self, text: str) -> None:
        """One line or several that are no reply."""
        print(printable(text), flush=True)


class Pipe:
    """A program: a question a line, a reply a line; all else goes to standard error."""

    talks = False

    def __init__(self) -> None:
        self._asking = bool(sys.stdin and sys.stdin.isatty() and sys.stderr.isatty())
        self._number = 0

    def line(self) -> str | None:
        """The next line of standard input, None behind the last; ValueError (one line: where) for one that is no text."""
        if self._asking:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        data = sys.stdin.buffer.readline() if sys.stdin else b""
        self._number += 1
        try:
            return data.decode("utf-8-sig" if self._number == 1 else "utf-8") if data else None
        except UnicodeDecodeError as error:
            where = f"{_STDIN}:{self._number}"
            raise ValueError(f"{where}: not UTF-8 text (byte {error.start} of the line)") from None

    def piece(self, text: str) -> None:
        """Wait for the whole reply."""

    def reply(self, text: str) -> None:
        """Write it as one line, so that line N answers question N."""
        sys.stdout.write(printable(_LINE_BREAK.sub(" ", text)) + "\n")
        sys.stdout.flush()

    def aside(self, text: str) -> None:
        """A reply to nobody's question is whole."""
        self.note(text)

    def note(self, text: str) -> None:
        """One line or several that are no reply."""
        print(printable(text), file=sys.stderr, flush=True)


def screen() -> Terminal | Pipe:
    """The one that this process has; ValueError (one line) where nothing can be shown at all."""
    if not sys.stdout:
        raise ValueError("standard output is closed, so there is nowhere to write replies")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A locale may have no Japanese.
            stream.reconfigure(errors="backslashreplace")
    on_terminal = sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()
    return Terminal() if on_terminal else Pipe()


def nobody_reads() -> None:
    """Standard output is closed: let Python's last flush go nowhere, which would complain otherwise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
