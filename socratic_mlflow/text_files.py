"""Text from files that anybody may have made: never a hang, never far more memory than the file. Standard library only."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Protocol

# Dialogues become 3 to 10 times smaller by gzip, monotonous ones 50 times; a bomb becomes 1,000 times smaller.
MOST_EXPANSION = 100
_LEAST_ALLOWANCE = 16 * 2**20
CHUNK = 2**20
_NOT_REGULAR = "not a regular file; give a JSON or JSONL file"


class Hash(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""


def check_regular(path: str) -> Path:
    """The regular file at `path`; ValueError (one line) for anything else, without opening it."""
    found = Path(path)
    try:
        mode = found.stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: {reason}") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: {_NOT_REGULAR}")
    return found


def read_text(path: Path, pipes: bool = True) -> tuple[str, str]:
    """(text, SHA-256 of its bytes) of a UTF-8 file, as `pieces` reads it."""
    sha256 = hashlib.sha256()
    try:
        return "".join(pieces(path, sha256, pipes)), sha256.hexdigest()
    except MemoryError:
        raise too_large(path) from None


def too_large(path: Path | str) -> ValueError:
    """What to say where memory does not suffice."""
    return ValueError(f"{path}: too large for this machine's memory; split the file")


def pieces(path: Path, sha256: Hash, pipes: bool = True, size: int = CHUNK) -> Iterator[str]:
    """The text of a UTF-8 file, plain or gzip, in pieces of `size` bytes; ValueError (file, place) where it is not that.

    `sha256` takes the (decompressed) bytes. Without `pipes` only a regular file is read, whatever has come to `path` since
    it was checked. A gzip file may expand to MOST_EXPANSION times its size, a small one to 16 MiB.
    """
    try:
        with path.open("rb") if pipes else open(path, "rb", opener=_at_once) as file:
            if not (pipes or stat.S_ISREG(os.fstat(file.fileno()).st_mode)):
                raise ValueError(f"{path}: {_NOT_REGULAR}")
            yield from _decoded(path, _unpacked(path, file, size), sha256)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _decoded(path: Path, chunks: Iterator[bytes], sha256: Hash) -> Iterator[str]:
    """`chunks` as text without byte order mark, each at least one character; the error has line and byte in the file."""
    held, start, line, final = b"", 0, 1, False
    while not final:
        chunk = next(chunks, b"")
        final = not chunk
        sha256.update(chunk)
        held += chunk
        if start == 0 and len(held) < len(codecs.BOM_UTF8) and not final:
            continue
        mark = len(codecs.BOM_UTF8) if start == 0 and held.startswith(codecs.BOM_UTF8) else 0
        try:
            text, used = codecs.utf_8_decode(held[mark:], "strict", final)
        except UnicodeDecodeError as error:
            line, byte = line + held.count(b"\n", 0, mark + error.start), start + mark + error.start
            raise ValueError(f"{path}:{line}: not UTF-8 text (byte {byte}); save the file as UTF-8") from None
        if text:
            yield text
        line, start = line + text.count("\n"), start + mark + used
        held = held[mark + used :]


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _unpacked(path: Path, file: BufferedReader, size: int) -> Iterator[bytes]:
    """The bytes of a file in pieces of at most `size`, decompressed where they are gzip."""
    if file.peek(2)[:2] != b"\x1f\x8b" and path.suffix != ".gz":
        yield from iter(lambda: file.read(size), b"")
        return
    most = max(_LEAST_ALLOWANCE, MOST_EXPANSION * os.fstat(file.fileno()).st_size)
    total = 0
    with gzip.GzipFile(fileobj=file) as packed:
        while chunk := packed.read(size):
            total += len(chunk)
            if total > most:
                raise ValueError(
                    f"{path}: expands to more than {most // 2**20} MiB, {MOST_EXPANSION} times its size or more; "
                    "decompress it first if that is meant"
                )
            yield chunk


def lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that holds something.

    Not splitlines(): U+2028 and its like may stand inside a JSON string. Not split(): a list of all lines may be many
    times as large as a file of line breaks.
    """
    start, number = 0, 1
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end]
        if line and not line.isspace():
            yield number, line
        start, number = end + 1, number + 1
