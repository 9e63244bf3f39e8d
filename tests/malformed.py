"""Malformed files as bytes, and what test files share to read them: nothing hangs, and an error is one line."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MIB = 2**20
USER = {"role": "user", "content": "徳とは何ですか？"}
MODEL = {"role": "model", "content": "君はどう思うのかね？"}
FIRST = {"messages": [USER, MODEL | {"content": "では、どうだろうか？"}]}
LAST = {"messages": [USER, MODEL | {"content": "なぜそう考えるのかね？"}]}
GOOD = [FIRST, LAST]
PRETTY = json.dumps(GOOD, ensure_ascii=False, indent=1).encode()


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Whatever waits for ever is interrupted."""

    def give_up(*_: Any) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def write(folder: Path, data: bytes, name: str = "dialogues.jsonl") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def refusal(read: Callable[[str], Any], path: str) -> str:
    """The one line that `read` has for the file, without its path."""
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert type(caught.value) is ValueError
    assert "\n" not in message
    assert len(message) < len(path) + 400
    assert message.startswith(path + ":")
    return message.removeprefix(path)


# A file that cannot be read as what it should be: one line with file and line.


def talk(at: int, **changes: Any) -> dict[str, Any]:
    """A dialogue whose message at index `at` has other values."""
    messages = [dict(USER), dict(MODEL)]
    messages[at] |= changes
    return {"messages": messages}


def truncated() -> dict[str, bytes]:
    """The pretty-printed list, cut off at every seventh byte, but for the complete one."""
    return {f"cut_{end}": PRETTY[:end] for end in range(1, len(PRETTY) - 1, 7)}


def encoded(codec: str) -> bytes:
    return json.dumps(GOOD, ensure_ascii=False).encode(codec)


LINES = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in GOOD).encode()
BROKEN: dict[str, tuple[bytes, str]] = {
    **{name: (data, r":\d+: (malformed JSON \(column \d+: |not UTF-8 text)") for name, data in truncated().items()},
    **{
        codec: (encoded(codec), r":1: (not UTF-8 text \(byte \d+\)|malformed JSON \(column \d+)")
        for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "shift_jis", "euc_jp")
    },
    "iso2022_jp": (encoded("iso2022_jp"), r":1: malformed JSON \(column \d+: Invalid control character at"),
    "ascii_utf_16": (json.dumps(GOOD).encode("utf-16-le"), ":1: malformed JSON"),
    "two_byte_order_marks": (b"\xef\xbb\xbf" * 2 + LINES, ":1: malformed JSON"),
    "byte_order_mark_later": (LINES + b"\xef\xbb\xbf" + LINES, ":3: malformed JSON"),
    "overlong": (LINES + b"\xc0\xaf", ":3: not UTF-8 text"),
    "raw_surrogate": (LINES + b'{"a": "\xed\xa0\x80"}', ":3: not UTF-8 text"),
    "half_a_character": (LINES + "徳".encode()[:2], ":3: not UTF-8 text"),
    "binary": (bytes(range(256)) * 4, ":2: not UTF-8 text"),
    "nul_bytes": (b"\0" * 1000, ":1: malformed JSON"),
    "nul_between": (LINES + b"\0\n" + LINES, ":3: malformed JSON"),
    "nul_inside": (LINES + LINES.replace("徳".encode(), b"\0"), ":3: malformed JSON"),
    "line_break_inside": (LINES + LINES.replace("徳".encode(), b"\n"), ":3: malformed JSON"),
    "lines_and_rubbish": (LINES + b"rubbish", ":3: malformed JSON"),
    "list_and_rubbish": (PRETTY + b"\n\nrubbish", r":\d\d: malformed JSON \(column 1: Extra data"),
    "two_lists": (PRETTY + b"\n" + PRETTY, r":\d\d: malformed JSON \(column 1: Extra data"),
    "list_and_lines": (b"[]\n" + LINES, r":2: malformed JSON \(column 1: Extra data"),
    "lines_and_list": (LINES + b"[\n1]", ":3: malformed JSON"),
    "comma_at_the_end": (b"[{},\n]", ":2: malformed JSON"),
    "comma_at_the_start": (b"[,{}]", ":1: malformed JSON"),
    "no_comma": (b"[{}\n{}]", r":2: malformed JSON \(column 1: Expecting ',' delimiter"),
    "wrong_bracket": (b"[{}}", ":1: malformed JSON"),
    "only_a_bracket": (b"[", ":1: malformed JSON"),
    "closing_bracket": (b"]", ":1: malformed JSON"),
    "two_on_a_line": (b"{} {}", ":1: malformed JSON"),
    "line_ends_in_a_comma": (b"{},\n{},\n", ":1: malformed JSON"),
    "single_quotes": (LINES + b"{'messages': []}", ":3: malformed JSON"),
    "comment": (b"// dialogues\n" + LINES, ":1: malformed JSON"),
    "python": (b"[{'messages': None}]", ":1: malformed JSON"),
    "yaml": (b"messages:\n- role: user\n", ":1: malformed JSON"),
    "csv": (b"role,content\nuser,a\n", ":1: malformed JSON"),
    "html": (b"<!DOCTYPE html>\n<html></html>", ":1: malformed JSON"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\n", ":1: malformed JSON"),
    "bad_escape": (LINES + rb'{"a": "\x41"}', ":3: malformed JSON"),
    "half_an_escape": (LINES + rb'{"a": "\ud8"}', ":3: malformed JSON"),
    "open_text": (b'["' + b"a" * 9999, r":1: malformed JSON \(column 2: Unterminated string"),
    "old_mac_line_ends": (LINES.replace(b"\n", b"\r"), ":1: malformed JSON"),
    "one_dialogue_over_lines": (json.dumps(FIRST, indent=1).encode(), ":1: a JSON object over several lines; give one"),
    "data_over_lines": (b"\n" + json.dumps({"data": GOOD}, indent=1).encode(), ":2: a JSON object over several lines"),
    "dialogues_over_lines": (json.dumps(FIRST, indent=1).encode() * 2, ":1: a JSON object over several lines"),
    "deep_list": (b"[\n" + b"[" * 90_000, r":2: malformed JSON \(nested too deeply\)"),
    "deep_line": (LINES + b"[" * 90_000, r":3: malformed JSON \(nested too deeply\)"),
    "deep_and_closed": (
        LINES + b'{"messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
        r":3: malformed JSON \(nested too",
    ),
    "deep_objects": (LINES + b'{"a":' * 20_000, r":3: malformed JSON \(nested too deeply\)"),
    "only_brackets": (b"[" * 500_000, ": 500000 brackets in 500000 characters; that is no file of dialogues"),
    "only_empty_objects": (b"{}\n" * 200_000, ": 200000 brackets in 600000 characters; that is no file of dialogues"),
    "only_numbers": (b"0\n" * 200_000, r": more than 100000 unusable dialogues, 0 usable \(100001 no_messages\); line 1"),
    "list_of_numbers": (
        b"[" + b"0," * 200_000 + b"0]",
        ": more than 100000 unusable dialogues, .* index 0: expected an obj",
    ),
    "empty": (b"", r": no usable dialogue \(the file is empty\)$"),
    "blank": (b" \n\t\r\n\n", r": no usable dialogue \(the file is empty\)$"),
    "byte_order_mark": (b"\xef\xbb\xbf", r": no usable dialogue \(the file is empty\)$"),
    "empty_list": (b"[ \n ]", r": no usable dialogue \(the file is empty\)$"),
    "line_breaks": (b"\n" * 300_000, r": no usable dialogue \(the file is empty\)$"),
    "data_on_a_line": (
        json.dumps({"data": GOOD}).encode(),
        r": no usable dialogue \(1 no_messages\); line 1: .*'data' and wi",
    ),
    "list_without_commas": (b"[" + LINES + b"]", r":2: malformed JSON \(column 1: Expecting ',' delimiter"),
    "only_null": (b"null", r": no usable dialogue \(1 no_messages\); line 1: .* found null$"),
    "only_text": (b'"text"', r": no usable dialogue \(1 no_messages\); line 1: .* found text$"),
    "huge_number": (b"9" * MIB, r": no usable dialogue \(1 no_messages\); line 1: .* found a number$"),
}
