"""Rows as a table on standard output: as wide as it must be in a pipe, folded into a terminal. Text from elsewhere is data:
what could steer a terminal is escaped."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence

# Joiners inside one character: emoji, and several scripts.
_JOINERS = "\u200c\u200d"


def safe(text: object) -> str:
    """`text` in one line, with escapes for what is not printable."""
    return printable(str(text), but="")


def printable(text: str, but: str = "\n\t") -> str:
    """`text` with escapes for what is not printable, but for line breaks and tabs (or what `but` has) and what joins
    characters."""
    return "".join(char if _is_shown(char) or char in but else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    # Python counts every space but one as not printable, the Japanese one among them.
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> str:
    """The rows under their headings; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for heading in headings:
        drawn.add_column(safe(heading), justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(safe, row))
    wide = None if sys.stdout is not None and sys.stdout.isatty() else 100_000
    console = Console(color_system=None, markup=False, emoji=False, highlight=False, width=wide)
    with console.capture() as capture:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def write(*texts: str) -> int:
    """Print each text; returns the exit code. A reader that has gone (`| head`) is no error."""
    if sys.stdout is None:
        return 0
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for text in texts:
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"socratic-mlflow: error: standard output: {error.strerror}", file=sys.stderr)
            return 1
    return 0
