"""Hundreds of malformed dialogues: each is a named skip with its place, or one line with file and place. No hang."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from malformed import BROKEN, FIRST, LAST, LINES, MODEL, USER, no_hang, refusal, talk, write  # noqa: F401

from socratic_mlflow.dialogues import read_dialogues

# One dialogue between two good ones: a skip with its place and reason.

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -1,
    "float": 1.5,
    "huge_float": 1e308,
    "huge_int": 10**4000,
    "infinity": float("inf"),
    "nan": float("nan"),
    "list": [1],
    "list_of_lists": [[[]]],
    "nested": json.loads("[" * 300 + "]" * 300),
}
TEXTS = {"empty_text": "", "text": "text", "long_text": "あ" * 5000, "escape": "\x1b[31m", "separator": "\u2028"}
OBJECTS: dict[str, Any] = {"object": {}, "other_keys": {"data": [FIRST]}, "line_break": {"a\nb": 1}}
ROLES = [
    "system",
    "User",
    "USER",
    "users",
    "human",
    "gpt",
    "tool",
    "bot",
    "",
    " user",
    "user\n",
    "ｕｓｅｒ",
    "\ud800",
    "\0",
    "x" * 9999,
]
SPOILED = ["\0", "a\0b", "a" * 99 + "\0", "\ud83d", "\ude00", "a\udfffb", "\ude00\ud83d", "\udbff\udbff"]
BLANK = ["", " ", "\n", "\u3000", " \t\r\n\u3000\u2028"]
BOTH = (("user", 0), ("model", 1))


def with_message(at: int, message: Any) -> dict[str, Any]:
    messages: list[Any] = [USER, MODEL]
    messages[at] = message
    return {"messages": messages}


def without(at: int, key: str) -> dict[str, Any]:
    return with_message(at, {name: value for name, value in (USER, MODEL)[at].items() if name != key})


def wrong_orders() -> Iterator[tuple[str, dict[str, Any]]]:
    for length in range(1, 5):
        for roles in product(("user", "model"), repeat=length):
            if roles != ("user", "model") * (length // 2) or length % 2:
                short = "".join(role[0] for role in roles)
                yield short, {"messages": [{"role": role, "content": "話"} for role in roles]}


SKIPPED: dict[str, tuple[Any, str]] = {
    **{f"item_{name}": (value, "no_messages") for name, value in (VALUES | TEXTS | OBJECTS).items()},
    **{f"messages_{name}": ({"messages": value}, "no_messages") for name, value in (VALUES | TEXTS | OBJECTS).items()},
    "messages_empty": ({"messages": []}, "no_messages"),
    "messages_elsewhere": ({"conversation": FIRST["messages"]}, "no_messages"),
    **{
        f"{word}_{name}": (with_message(at, value), "bad_message")
        for word, at in BOTH
        for name, value in (VALUES | TEXTS).items()
    },
    **{
        f"{word}_role_{name}": (talk(at, role=value), "bad_role")
        for word, at in BOTH
        for name, value in (VALUES | OBJECTS).items()
    },
    **{
        f"{word}_role_text_{number}": (talk(at, role=role), "bad_role")
        for word, at in BOTH
        for number, role in enumerate(ROLES)
    },
    **{
        f"{word}_content_{name}": (talk(at, content=value), "bad_message")
        for word, at in BOTH
        for name, value in (VALUES | OBJECTS).items()
    },
    **{
        f"{word}_spoiled_{n}": (talk(at, content=text), "bad_message")
        for word, at in BOTH
        for n, text in enumerate(SPOILED)
    },
    **{f"{word}_blank_{n}": (talk(at, content=text), "empty_content") for word, at in BOTH for n, text in enumerate(BLANK)},
    **{f"{word}_without_role": (without(at, "role"), "bad_role") for word, at in BOTH},
    **{f"{word}_without_content": (without(at, "content"), "bad_message") for word, at in BOTH},
    **{f"order_{roles}": (item, "wrong_order") for roles, item in wrong_orders()},
    "duplicate": (FIRST | {"source_file": "other"}, "duplicate"),
}
# Those are single-item lists, which are no list of messages but of something else.
for name in ("list", "list_of_lists", "nested"):
    SKIPPED[f"messages_{name}"] = (SKIPPED[f"messages_{name}"][0], "bad_message")


@pytest.mark.parametrize("form", ["lines", "list"])
@pytest.mark.parametrize("name", SKIPPED)
def test_a_malformed_dialogue_is_a_named_skip_and_the_others_are_read(tmp_path: Path, name: str, form: str) -> None:
    item, reason = SKIPPED[name]
    items = [FIRST, item, LAST]
    data = "\n".join(map(json.dumps, items)) if form == "lines" else json.dumps(items)
    found = read_dialogues(write(tmp_path, data.replace("1" + "0" * 4000, "9" * 9000).encode()))
    places = ("line 1", "line 2", "line 3") if form == "lines" else ("index 0", "index 1", "index 2")
    assert [dialogue.place for dialogue in found.dialogues] == [places[0], places[2]]
    (skip,) = found.skipped
    assert (skip.place, skip.reason) == (places[1], reason)
    assert 0 < len(skip.detail) < 200
    assert skip.detail.isprintable()
    skip.detail.encode("utf-8")


# A file that cannot be read as dialogues: one line with file and line.


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_dialogues_is_one_line_with_its_place(tmp_path: Path, name: str, packed: bool) -> None:
    data, expected = BROKEN[name]
    path = write(tmp_path, gzip.compress(data, 1) if packed else data)
    if packed and "brackets" in expected:
        assert re.match(rf"({expected}|: expands to more than)", refusal(read_dialogues, path))
    else:
        assert re.match(expected, refusal(read_dialogues, path))


def test_there_are_at_least_two_hundred_different_ones() -> None:
    assert len({json.dumps(item) for item, _ in SKIPPED.values()} | {repr(data) for data, _ in BROKEN.values()}) >= 200


@pytest.mark.parametrize(
    "data", [b"[" * 3000, b'{"a":' * 3000, b"[" * 3000 + b"]" * 3000], ids=["open", "objects", "closed"]
)
def test_depth_is_one_line_in_pure_python_json_as_well(tmp_path: Path, monkeypatch: Any, data: bytes) -> None:
    from json import scanner

    from socratic_mlflow import dialogues

    slow = json.JSONDecoder(parse_int=float)
    slow.scan_once = scanner.py_make_scanner(slow)  # type: ignore[attr-defined]
    monkeypatch.setattr(dialogues, "_JSON", slow)
    assert refusal(read_dialogues, write(tmp_path, LINES + data)) == ":3: malformed JSON (nested too deeply)"
