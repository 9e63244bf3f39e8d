"""Reading dialogues: which are used, which are not and why, and what a file that cannot be read is answered with."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from socratic_mlflow.dialogues import Dialogue, DialogueFile, read_dialogues, read_questions, skip_counts, text_digest

QUESTION = {"role": "user", "content": "徳とは何ですか？"}
REPLY = {"role": "model", "content": "君はどう思うのかね？"}


def talk(*contents: str, **extra: Any) -> dict[str, Any]:
    roles = ("user", "model") * len(contents)
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)], **extra}


GOOD = [talk("一つ目の問い", "一つ目の答え"), talk("二つ目の問い", "二つ目の答え", "なるほど", "では")]


def as_jsonl(items: list[Any]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def write(folder: Path, data: str | bytes, name: str = "dialogues.json") -> str:
    file = folder / name
    file.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return str(file)


def read(folder: Path, items: list[Any]) -> DialogueFile:
    return read_dialogues(write(folder, json.dumps(items)))


def contents(dialogue: Dialogue) -> list[str]:
    return [message["content"] for message in dialogue.messages]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, ensure_ascii=False, indent=2),
        " \n" + json.dumps(GOOD),
        "\ufeff" + json.dumps(GOOD),
        as_jsonl(GOOD),
        "\ufeff" + as_jsonl(GOOD),
        as_jsonl(GOOD).replace("\n", "\r\n"),
        as_jsonl(GOOD).replace("\n", "\n\n"),
        as_jsonl(GOOD).rstrip("\n"),
        gzip.compress(as_jsonl(GOOD).encode()),
        gzip.compress(json.dumps(GOOD).encode()),
    ],
)
@pytest.mark.parametrize("name", ["dialogues.json", "dialogues.jsonl", "no_suffix"])
def test_list_lines_gzip_and_byte_order_mark_read_the_same(tmp_path: Path, data: str | bytes, name: str) -> None:
    found = read_dialogues(write(tmp_path, data, name))
    assert [contents(dialogue) for dialogue in found.dialogues] == [
        ["一つ目の問い", "一つ目の答え"],
        ["二つ目の問い", "二つ目の答え", "なるほど", "では"],
    ]
    assert found.skipped == []


def test_gzip_has_the_digest_of_what_it_holds(tmp_path: Path) -> None:
    plain = as_jsonl(GOOD).encode()
    digests = {
        read_dialogues(write(tmp_path, plain, "a.jsonl")).digest,
        read_dialogues(write(tmp_path, gzip.compress(plain), "a.jsonl.gz")).digest,
    }
    assert digests == {hashlib.sha256(plain).hexdigest()}


def test_extra_keys_are_ignored_and_assistant_means_model(tmp_path: Path) -> None:
    item = {"id": 7, "messages": [QUESTION | {"name": "x"}, {"role": "assistant", "content": "では"}], "theme": None}
    (dialogue,) = read(tmp_path, [item]).dialogues
    assert dialogue.messages == (QUESTION, {"role": "model", "content": "では"})


def test_spaces_around_content_are_dropped_and_line_separators_inside_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, as_jsonl([talk(" \u3000問い\n", "一行目\u2028二行目\n三行目")]))
    (dialogue,) = read_dialogues(path).dialogues
    assert contents(dialogue) == ["問い", "一行目\u2028二行目\n三行目"]


def test_a_huge_number_under_another_key_is_ignored_like_the_key(tmp_path: Path) -> None:
    path = write(tmp_path, as_jsonl(GOOD[:1]).replace("{", '{"id": ' + "9" * 5000 + ", ", 1))
    assert len(read_dialogues(path).dialogues) == 1


def test_source_is_the_source_file_or_the_dialogue_itself(tmp_path: Path) -> None:
    items = [
        talk("a", "b", source_file="one"),
        talk("c", "d"),
        talk("e", "f", source_file=""),
        talk("g", "h", source_file=3),
    ]
    found = read(tmp_path, items)
    assert [dialogue.source for dialogue in found.dialogues] == ["one", "index 1", "index 2", "index 3"]


UNUSABLE: list[tuple[Any, str, str]] = [
    (None, "no_messages", "messages"),
    ("text", "no_messages", "messages"),
    ([QUESTION, REPLY], "no_messages", "messages"),
    ({}, "no_messages", "messages"),
    ({"messages": []}, "no_messages", "messages"),
    ({"messages": "text"}, "no_messages", "messages"),
    ({"messages": [QUESTION, "text"]}, "bad_message", "message 2"),
    ({"messages": [QUESTION, None]}, "bad_message", "message 2"),
    ({"messages": [QUESTION, {"role": "model"}]}, "bad_message", "message 2"),
    ({"messages": [{"role": "user", "content": 3}, REPLY]}, "bad_message", "message 1"),
    ({"messages": [{"role": "user", "content": ["a"]}, REPLY]}, "bad_message", "message 1"),
    ({"messages": [QUESTION, {"role": "model", "content": "半分\ud83d"}]}, "bad_message", "message 2"),
    ({"messages": [{"role": "system", "content": "a"}, QUESTION, REPLY]}, "bad_role", "'system'"),
    ({"messages": [{"content": "a"}, REPLY]}, "bad_role", "message 1"),
    ({"messages": [{"role": ["user"], "content": "a"}, REPLY]}, "bad_role", "message 1"),
    ({"messages": [{"role": "\ud800", "content": "a"}, REPLY]}, "bad_role", "message 1"),
    ({"messages": [REPLY, QUESTION]}, "wrong_order", "start with user"),
    ({"messages": [QUESTION]}, "wrong_order", "end with model"),
    ({"messages": [QUESTION, REPLY, QUESTION]}, "wrong_order", "end with model"),
    ({"messages": [QUESTION, QUESTION, REPLY]}, "wrong_order", "alternate"),
    ({"messages": [QUESTION, REPLY, REPLY]}, "wrong_order", "alternate"),
    (talk("", "では"), "empty_content", "message 1"),
    (talk("問い", " \u3000\n"), "empty_content", "message 2"),
    (GOOD[0], "duplicate", "index 0"),
    (talk(" 一つ目の問い", "一つ目の答え ", source_file="other"), "duplicate", "index 0"),
]


@pytest.mark.parametrize(("item", "reason", "detail"), UNUSABLE)
def test_what_is_not_used_is_counted_with_place_and_reason(tmp_path: Path, item: Any, reason: str, detail: str) -> None:
    found = read(tmp_path, [GOOD[0], item, GOOD[1]])
    assert [dialogue.place for dialogue in found.dialogues] == ["index 0", "index 2"]
    (skip,) = found.skipped
    assert (skip.place, skip.reason) == ("index 1", reason)
    assert detail in skip.detail
    skip.detail.encode("utf-8")


def test_nothing_is_dropped_in_silence(tmp_path: Path) -> None:
    items = [GOOD[0], *(item for item, _, _ in UNUSABLE)]
    found = read_dialogues(write(tmp_path, "\n" + as_jsonl(items).encode("utf-8", "replace").decode()))
    assert len(found.dialogues) + len(found.skipped) == len(items)
    places = [found.dialogues[0].place, *(skip.place for skip in found.skipped)]
    assert places[:2] == ["line 2", "line 3"]
    counts = skip_counts(found.skipped)
    assert sum(counts.values()) == len(found.skipped)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_the_same_question_with_another_reply_is_no_duplicate(tmp_path: Path) -> None:
    found = read(tmp_path, [talk("問い", "答え"), talk("問い", "別の答え"), talk("問い", "答え", "問い", "答え")])
    assert len(found.dialogues) == 3


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (as_jsonl(GOOD) + '{"messages": [}\n', ":3: malformed JSON (column 15: "),
        ("\n" + as_jsonl(GOOD[:1]) + "not json\n", ":3: malformed JSON (column 1: "),
        ('[\n  {"messages": []},\n  {"messages": \n', ":4: malformed JSON (column 1: "),
        (json.dumps(GOOD) + "\n]", ":2: malformed JSON (column 1: Extra data)"),
        ('{\n"messages": []\n}', ":1: a JSON object over several lines; give one dialogue a line, or a list [...] of them"),
        ("[" * 100_000, ":1: malformed JSON (nested too deeply)"),
        ("\n" + "問い".encode().decode("latin-1"), ":2: malformed JSON"),
        ("問い\n".encode("shift_jis"), ":1: not UTF-8 text (byte 0)"),
        (as_jsonl(GOOD).encode() + "問い".encode("euc_jp"), ":3: not UTF-8 text"),
        (json.dumps(GOOD).encode("utf-16"), ":1: not UTF-8 text (byte 0)"),
    ],
)
def test_a_file_that_cannot_be_decoded_names_the_line(tmp_path: Path, data: str | bytes, place: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ValueError) as caught:
        read_dialogues(path)
    assert str(caught.value).startswith(path + place)
    assert "\n" not in str(caught.value)


def damaged_gzip() -> bytes:
    data = bytearray(gzip.compress(as_jsonl(GOOD).encode()))
    data[10] = 0xFF  # a deflate block of a type that does not exist
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (gzip.compress(as_jsonl(GOOD).encode())[:-12], "cut.jsonl.gz"),
        (damaged_gzip(), "damaged.jsonl.gz"),
        (as_jsonl(GOOD).encode(), "not_gzip.jsonl.gz"),
    ],
)
def test_damaged_gzip_is_one_line_that_names_the_file(tmp_path: Path, data: bytes, name: str) -> None:
    path = write(tmp_path, data, name)
    with pytest.raises(ValueError) as caught:
        read_dialogues(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.json", "no such file"),
        (".", "not a regular file; give a JSON or JSONL file"),
        ("a" * 300, "File name too long"),
        ("file/inside.json", "Not a directory"),
    ],
)
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    write(tmp_path, "", "file")
    path = str(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        read_dialogues(path)
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "(the file is empty)"),
        ("\n \n", "(the file is empty)"),
        ("[]", "(the file is empty)"),
        (
            '{"data": []}',
            "(1 no_messages); line 1: expected an object with a non-empty list 'messages', "
            "found an object with 'data' and without 'messages'",
        ),
        (
            json.dumps([talk("問い", ""), talk("", "答え"), {}]),
            "(2 empty_content, 1 no_messages); index 0: message 2 is empty",
        ),
    ],
)
def test_a_file_with_nothing_usable_says_what_it_held(tmp_path: Path, data: str, why: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ValueError) as caught:
        read_dialogues(path)
    assert str(caught.value) == f"{path}: no usable dialogue {why}"


def test_questions_are_the_lines_that_hold_something(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff\n 徳とは何ですか？ \r\n\n\u3000\n勇気とは？", "questions.txt")
    questions, digest = read_questions(path)
    assert questions == ["徳とは何ですか？", "勇気とは？"]
    assert digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("data", ["", "\n\u3000\n"])
def test_a_file_without_a_question_is_named(tmp_path: Path, data: str) -> None:
    path = write(tmp_path, data, "questions.txt")
    with pytest.raises(ValueError) as caught:
        read_questions(path)
    assert str(caught.value) == f"{path}: holds no question; write one a line"


@pytest.mark.parametrize("name", ["dialogues.jsonl", "dialogues.jsonl.gz"])
def test_the_questions_of_dialogues_are_their_first_messages(tmp_path: Path, name: str) -> None:
    dialogues = [
        [{"role": "user", "content": "徳とは？"}, {"role": "model", "content": reply}] for reply in ("何かね", "なぜかね")
    ] + [[{"role": "user", "content": "勇気とは？"}, {"role": "model", "content": "何かね"}]]
    text = "\n".join(json.dumps({"messages": messages}) for messages in dialogues)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    questions, digest = read_questions(str(path))
    assert questions == ["徳とは？", "勇気とは？"]
    assert digest == read_dialogues(str(path)).digest


def test_a_digest_of_texts_knows_order_and_borders() -> None:
    digests = {text_digest(texts) for texts in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [])}
    assert len(digests) == 5
    assert text_digest(["問い"]) == text_digest(["問い"])


def test_the_real_dialogues_are_read_as_they_are(shared_data: Path) -> None:
    found = read_dialogues(str(shared_data / "dialogues_dev.json"))
    assert len(found.dialogues) == 1044
    assert [(skip.place, skip.reason) for skip in found.skipped] == [("index 956", "empty_content")]
