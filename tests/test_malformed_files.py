"""Files that are not what they seem: gzip that lies, paths that are no files, questions that are no text; memory."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from malformed import BROKEN, LINES, MIB, no_hang, refusal, talk, write  # noqa: F401

from socratic_mlflow.dialogues import read_dialogues, read_questions, scan_dialogues

# Compressed files that lie.

PACKED = gzip.compress(LINES, mtime=0)


def flipped(at: int) -> bytes:
    data = bytearray(PACKED)
    data[at] ^= 0xFF
    return bytes(data)


LYING: dict[str, tuple[bytes, str]] = {
    **{f"cut_{end}": (PACKED[:end], r": cannot be read \(.+\)$") for end in range(1, len(PACKED), 11)},
    **{f"flipped_{at}": (flipped(at), r": cannot be read \(.+\)$") for at in (0, 1, 2, *range(-8, 0))},
    "length": (PACKED[:-4] + struct.pack("<I", 3), r": cannot be read \(Incorrect length"),
    "checksum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], r": cannot be read \(CRC check failed"),
    "rubbish_behind": (PACKED + b"rubbish", r": cannot be read \(Not a gzipped file"),
    "no_gzip": (LINES, r": cannot be read \(Not a gzipped file"),
    "zip": (b"PK\3\4" + bytes(40), r": cannot be read \(Not a gzipped file"),
    "nothing": (b"", r": no usable dialogue \(the file is empty\)$"),
    "nothing_packed": (gzip.compress(b""), r": no usable dialogue \(the file is empty\)$"),
    "gzip_in_gzip": (gzip.compress(PACKED), r":1: not UTF-8 text \(byte 1\)"),
    "bomb": (
        gzip.compress(bytes(40 * MIB)),
        ": expands to more than 16 MiB, 100 times its size or more; decompress it first",
    ),
    "bomb_of_members": (gzip.compress(b"\n" * MIB) * 40, ": expands to more than 16 MiB"),
}


@pytest.mark.parametrize("name", LYING)
def test_gzip_that_lies_is_one_line(tmp_path: Path, name: str) -> None:
    data, expected = LYING[name]
    for read in (read_dialogues, read_questions):
        assert re.match(expected, refusal(read, write(tmp_path, data, "dialogues.jsonl.gz")))


def test_gzip_that_expands_as_text_does_is_read(tmp_path: Path) -> None:
    many = "".join(json.dumps(talk(0, content=f"{number**9}" + "徳とは？" * 20)) + "\n" for number in range(40_000))
    path = write(tmp_path, gzip.compress(many.encode()), "many.jsonl.gz")
    assert len(many) > 16 * MIB
    assert len(read_dialogues(path).dialogues) == 40_000


# Paths that are no files.


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file"),
    "directory": (lambda path: path.mkdir(), "not a regular file"),
    "fifo": (os.mkfifo, "not a regular file"),
    "socket": (make_socket, "not a regular file"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "to_directory": (lambda path: path.symlink_to("."), "not a regular file"),
    "to_null": (lambda path: path.symlink_to("/dev/null"), "not a regular file"),
    "to_zero": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "to_terminal": (lambda path: path.symlink_to("/dev/ptmx"), "not a regular file"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".jsonl.gz"])
def test_what_is_no_regular_file_is_said_at_once(tmp_path: Path, monkeypatch: Any, name: str, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = PLACES[name]
    make(tmp_path / f"data{suffix}")
    for read in (scan_dialogues, read_dialogues, read_questions):
        assert refusal(read, str(tmp_path / f"data{suffix}")).startswith(f": {expected}")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["fifo", "directory"])
def test_what_takes_a_files_place_after_it_was_checked_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    from socratic_mlflow.text_files import check_regular, read_text

    path = check_regular(write(tmp_path, LINES))
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match=r"(not a regular file|Is a directory)") as caught:
        read_text(path, pipes=False)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, LINES)
    Path(path).chmod(0)
    assert refusal(read_dialogues, path) == ": cannot be read (Permission denied)"


# Questions.

QUESTIONS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ": holds no question"),
    "blank": (b"\xef\xbb\xbf \n\xe3\x80\x80\r\n", ": holds no question"),
    "utf_16": ("徳とは？".encode("utf-16"), r":1: not UTF-8 text \(byte 0\)"),
    "ascii_utf_16": ("What?\nWhy?".encode("utf-16-le"), ":1: a NUL character"),
    "nul": ("徳とは？\n勇気\0とは？".encode(), ":2: a NUL character"),
    "nul_bytes": (bytes(MIB), ":1: a NUL character"),
    "shift_jis": ("\n徳とは？".encode("shift_jis"), ":2: not UTF-8 text"),
    "binary": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ":1: not UTF-8 text"),
    "raw_surrogate": (b"a\n\xed\xa0\x80", ":2: not UTF-8 text"),
    "far_too_many": ("".join(f"{number}\n" for number in range(100_001)).encode(), ":100001: more than 100000 questions"),
    "bomb": (gzip.compress(bytes(40 * MIB)), ": expands to more than 16 MiB"),
    "cut_gzip": (gzip.compress(LINES)[:-9], ": cannot be read"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_malformed_file_of_questions_is_one_line(tmp_path: Path, name: str) -> None:
    data, expected = QUESTIONS[name]
    assert re.match(expected, refusal(read_questions, write(tmp_path, data, "questions.txt")))


# Through the command line.

COMMANDS = {
    "check-data": ["check-data", "{}"],
    "train": ["train", "--data", "{}"],
    "questions": ["train", "--questions", "{}"],
}
TYPICAL = ["cut_50", "utf-16", "nul_bytes", "deep_line", "one_dialogue_over_lines", "bomb", "fifo"]


@pytest.mark.parametrize("name", TYPICAL)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_says_one_line_and_ends_with_2(tmp_path: Path, command: str, name: str) -> None:
    path = tmp_path / "data.jsonl"
    if name == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes((BROKEN | LYING)[name][0])
    given = [word.format(path) for word in COMMANDS[command]] + ["--preset", "embedded"]
    run = [sys.executable, "-m", "socratic_mlflow", *given]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"socratic-mlflow: error: {path}:")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"data.jsonl"}


# Memory: the peak of a process that reads the file, beyond that of one that reads an empty file.

PEAK = """
import resource, sys
from socratic_mlflow.dialogues import scan_dialogues
try:
    scan_dialogues(sys.argv[1])
except ValueError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_bytes(path: str) -> int:
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout)


def dialogues(count: int, repeat: int) -> bytes:
    items = (talk(0, content=f"{number}" + "問い" * repeat) for number in range(count))
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()


# What is large, how many times its size may be taken beside 64 MiB: a JSON value of tiny parts is decoded as a whole.
LARGE: dict[str, tuple[Callable[[], bytes], int]] = {
    "dialogues": (lambda: dialogues(40_000, 40), 8),
    "dialogues_and_emoji": (lambda: dialogues(40_000, 40) + '"\U0001f600"'.encode(), 8),
    "list_of_dialogues": (lambda: b"[" + dialogues(40_000, 40).replace(b"\n", b",") + b"0]", 8),
    "message_of_10_mb": (lambda: dialogues(1, 2_000_000), 8),
    "line_breaks": (lambda: b"\n" * 5 * MIB, 8),
    "spaces": (lambda: b" " * 10 * MIB, 8),
    "nul_bytes": (lambda: bytes(10 * MIB), 8),
    "empty_objects": (lambda: b"{}\n" * 4 * MIB, 8),
    "list_of_empty_objects": (lambda: b"[" + b"{}," * 4 * MIB + b"0]", 8),
    "numbers": (lambda: b"0\n" * 5 * MIB, 8),
    "list_of_numbers": (lambda: b"[" + b"0," * 5 * MIB + b"0]", 8),
    "one_number": (lambda: b"9" * 10 * MIB, 8),
    "open_text": (lambda: b'["' + b"\\n" * 5 * MIB, 8),
    "objects_in_one_dialogue": (lambda: b'{"messages":[' + b"{}," * 3 * MIB + b"0]}", 8),
    "bomb": (lambda: gzip.compress(bytes(300 * MIB)), 8),
    "texts_in_one_dialogue": (lambda: b'{"messages":[' + b'"ab",' * 2 * MIB + b"0]}", 24),
}


@pytest.fixture(scope="module")
def least_peak(tmp_path_factory: pytest.TempPathFactory) -> int:
    return peak_bytes(write(tmp_path_factory.mktemp("empty"), b""))


@pytest.mark.parametrize("name", LARGE)
def test_memory_is_a_small_multiple_of_the_file(tmp_path: Path, least_peak: int, name: str) -> None:
    make, times = LARGE[name]
    data = make()
    assert peak_bytes(write(tmp_path, data)) - least_peak < times * len(data) + 64 * MIB
