"""An append-only local record of what MLflow must receive. Standard library only; knows nothing of MLflow.

records.jsonl    one record a line: CRC-32 in 8 hexadecimal digits, a space, a JSON object with its `kind`
files/           the images, tables and texts that records carry
delivered.json   how far delivery has come, and the run that it goes to

A process that dies, however it dies, leaves each record whole or absent: a last line that is torn does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from socratic_mlflow.files import open_regular, read_text, sync_folder

Record = dict[str, Any]

# What stands for a line that is no record: bytes that have changed on the disk.
DAMAGED: Record = {"kind": "damaged"}

# No line that this module writes is longer; one that is was not written by it.
_LONGEST_LINE = 64 * 1024 * 1024
_LONGEST_STATE = 4096
_FILE_NAME = re.compile(r"\d{1,20}\.[a-z0-9]{1,8}")


class Journal:
    """The journal in `folder`. Appending is thread-safe; one process at a time may append."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._descriptor = -1
        self._unsynced: list[Path] = []
        # What a process before this one has written may not be on the disk yet.
        self._synced = -1
        self.end = 0

    @property
    def file(self) -> Path:
        """The file of records."""
        return self.folder / "records.jsonl"

    def open(self) -> None:
        """Make the journal ready to be appended to, without a last line that is torn. OSError if it cannot be written."""
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        size = os.fstat(self._descriptor).st_size
        self.end = max((end for _, end in self._lines(0)), default=0)
        if self.end < size:
            os.ftruncate(self._descriptor, self.end)
        sync_folder(self.folder)

    def append(self, record: Record, data: bytes | None = None, suffix: str = ".bin") -> None:
        """Add a record, and the file `data` that it carries. It survives the end of this process, and once `flush` has
        returned that of the machine. OSError, and nothing added, where the disk is full."""
        with self._lock:
            if data is not None:
                record = record | {"file": self._attach(data, suffix), "crc": zlib.crc32(data)}
            text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            line = f"{zlib.crc32(text):08x} ".encode() + text + b"\n"
            before, after = self.end, self.end + len(line)
            try:
                _write_all(self._descriptor, line)
                self.end = after
            except BaseException:
                # The disk is full, or Ctrl-C came in between: all of the record, or nothing.
                if os.lseek(self._descriptor, 0, os.SEEK_END) != after:
                    os.ftruncate(self._descriptor, before)
                self.end = os.lseek(self._descriptor, 0, os.SEEK_END)
                raise

    def flush(self) -> None:
        """Return when all records and their files are on the disk."""
        with self._lock:
            files, self._unsynced = self._unsynced, []
            for path in files:
                _sync(path)
            if files:
                sync_folder(self.folder / "files")
            if self.end != self._synced:
                os.fsync(self._descriptor)
                self._synced = self.end

    def close(self) -> None:
        """Flush and close; further appending is an error."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self.flush()
            os.close(self._descriptor)
            self._descriptor = -1

    def records(self, offset: int = 0, kinds: Collection[str] = ()) -> Iterator[tuple[Record, int]]:
        """(record, offset behind it) from `offset` (bytes) on; DAMAGED for a line that is no record.

        With `kinds` those of these kinds only: the other lines, however many, are hardly looked at.
        """
        names = [json.dumps(kind).encode() for kind in kinds]
        for line, end in self._lines(offset):
            if not names:
                yield _parsed(line), end
            elif any(name in line for name in names) and (record := _parsed(line))["kind"] in kinds:
                yield record, end

    def is_end(self, offset: int) -> bool:
        """Whether a record ends at `offset` (bytes)."""
        if not 0 < offset <= self.end:
            return False
        with contextlib.suppress(OSError, ValueError), open_regular(self.file) as file:
            file.seek(offset - 1)
            return file.read(1) == b"\n"
        return False

    def _lines(self, offset: int) -> Iterator[tuple[bytes, int]]:
        """(whole line, offset behind it) from `offset` (bytes) on."""
        try:
            lines = open_regular(self.file)
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ValueError(f"{self.file} {error}") from None
        with lines:
            lines.seek(offset)
            while (line := lines.readline(_LONGEST_LINE)).endswith(b"\n"):
                offset += len(line)
                yield line, offset

    def content(self, record: Mapping[str, Any]) -> bytes | None:
        """The file that `record` carries, or None where it is missing or not as it was written.

        Only a plain file of this journal is ever read: what a record names is data from a folder, and might name any.
        """
        name = str(record.get("file"))
        if not _FILE_NAME.fullmatch(name):
            return None
        try:
            with open_regular(self.folder / "files" / name) as file:
                data = file.read()
        except (OSError, ValueError):
            return None
        return data if zlib.crc32(data) == record.get("crc") else None

    def delivered(self) -> Record:
        """What `mark_delivered` last wrote; {} where there is nothing, or nothing readable."""
        try:
            found = json.loads(read_text(self.folder / "delivered.json", _LONGEST_STATE))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def mark_delivered(self, state: Record) -> None:
        """Replace delivered.json. It may be lost: what has arrived is then found out by reading MLflow."""
        beside = self.folder / f".delivered.{os.getpid()}"
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(state), encoding="utf-8")
            beside.replace(self.folder / "delivered.json")

    def _attach(self, data: bytes, suffix: str) -> str:
        name = f"{self.end}{suffix}"
        path = self.folder / "files" / name
        beside = path.with_name(f".{name}")
        try:
            beside.write_bytes(data)
        except OSError:
            # A full disk: what is of no use must not take what is left.
            beside.unlink(missing_ok=True)
            raise
        beside.replace(path)
        self._unsynced.append(path)
        return name


def _parsed(line: bytes) -> Record:
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:-1]):
            return DAMAGED
        record = json.loads(line[9:])
    except (ValueError, RecursionError):
        return DAMAGED
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else DAMAGED


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
