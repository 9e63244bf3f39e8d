"""A text in pieces, wherever it is cut: the values, places and errors of the whole, and work that stays linear."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import BROKEN, LINES, MIB, PRETTY, write

from socratic_mlflow.json_items import items
from socratic_mlflow.text_files import CHUNK, pieces

DECODER = json.JSONDecoder(parse_int=float)
SIZES = [1, 2, 3, 7, 64, 65, 1000]


def cut(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def read(text: str, size: int) -> list[tuple[str, Any]]:
    return list(items("f", cut(text, size), DECODER))


def outcome(text: str, size: int) -> str:
    """The values, or the one line that the text is refused with."""
    try:
        return repr(read(text, size))
    except ValueError as error:
        return str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(10**6), 10**6).map(float) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=12), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_a_list_is_read_the_same_wherever_it_is_cut(values: list[Any], size: int, ascii_only: bool, indent: Any) -> None:
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    assert read(f"\n {text}\n", size) == [(f"index {index}", value) for index, value in enumerate(values)]


@given(st.lists(VALUES.filter(lambda value: not isinstance(value, list)), max_size=12), st.integers(1, 40))
def test_lines_are_read_the_same_wherever_they_are_cut(values: list[Any], size: int) -> None:
    text = "\n \n".join(json.dumps(value, ensure_ascii=False) for value in values)
    assert read(text, size) == [(f"line {2 * number + 1}", value) for number, value in enumerate(values)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", ["1.5", "12e3", "-7", "1E-2", "true", "-Infinity", '"\\ud83d\\ude00"'])
def test_what_is_cut_in_the_middle_of_a_number_or_word_is_no_other_value(number: str, size: int) -> None:
    text = "[" + ",".join([number] * 200) + "]"
    assert read(text, size) == read(text, len(text))


TEXTS = {
    name: text
    for name, (data, _) in BROKEN.items()
    if len(data) < 20_000 and (text := data.decode("utf-8", "ignore")) and data.decode("utf-8", "replace") == text
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXTS)
def test_an_error_names_the_same_line_and_column_wherever_the_text_is_cut(name: str, size: int) -> None:
    text = TEXTS[name]
    assert outcome(text, size) == outcome(text, max(1, len(text)))


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1,\n 2,\n   nonsense]", "f:3: malformed JSON (column 4: Expecting value)"),
        ("[" + '"a",\n' * 50 + ' "a" "b"]', "f:51: malformed JSON (column 6: Expecting ',' delimiter)"),
        ("   nonsense", "f:1: malformed JSON (column 4: Expecting value)"),
        ("{}\n" * 60 + "\t nonsense\n{}", "f:61: malformed JSON (column 3: Expecting value)"),
        ("\n\n {\n}", "f:3: a JSON object over several lines; give one dialogue a line, or a list [...] of them"),
        ("[0]" + "\n" * 99 + " 1", "f:100: malformed JSON (column 2: Extra data)"),
    ],
)
def test_an_errors_place_is_that_in_the_file(text: str, expected: str, size: int) -> None:
    assert outcome(text, size) == expected


class CountingDecoder(json.JSONDecoder):
    """Adds up how much text is looked at."""

    seen = 0

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        self.seen += len(s) - idx
        return super().raw_decode(s, idx)


@pytest.mark.parametrize("text", ['["' + "あ" * 200_000, "[" + '[" ",' * 20_000, "{" + " " * 200_000])
def test_a_value_that_never_ends_is_not_decoded_again_for_every_piece(text: str) -> None:
    decoder = CountingDecoder()
    with pytest.raises(ValueError, match="malformed JSON"):
        list(items("f", cut(text, 100), decoder))
    assert 0 < decoder.seen < 4 * len(text)


def test_a_value_of_many_pieces_is_not_decoded_again_for_every_piece() -> None:
    text, decoder = '["' + "\\n" * 100_000 + '"]', CountingDecoder()
    assert list(items("f", cut(text, 100), decoder)) == [("index 0", "\n" * 100_000)]
    assert decoder.seen < 4 * len(text)


def test_memory_holds_a_piece_and_not_the_file() -> None:
    longest = 0

    def watched() -> Iterator[str]:
        nonlocal longest
        for _ in range(2000):
            longest = max(longest, len(reader.gi_frame.f_locals["text"].text) if reader.gi_frame else 0)
            yield '{"a": 1}\n' * 10

    reader: Any = items("f", watched(), DECODER)
    assert sum(1 for _ in reader) == 20_000
    assert 0 < longest < 1000


# The pieces themselves.


@pytest.mark.parametrize("size", [1, 2, 3, 5, CHUNK])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["no mark", "byte order mark"])
def test_pieces_are_the_text_and_the_digest_is_that_of_the_bytes(
    tmp_path: Path, size: int, packed: bool, mark: bytes
) -> None:
    data = mark + PRETTY + "😀é\ufeff".encode()
    path, sha256 = Path(write(tmp_path, gzip.compress(data) if packed else data)), hashlib.sha256()
    found = list(pieces(path, sha256, size=size))
    assert "".join(found) == data.decode("utf-8-sig")
    assert all(found)
    assert sha256.hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1, 2, 3, 5, CHUNK])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("wrong", [b"\xff", "徳".encode()[:2], b"\xed\xa0\x80", "徳".encode("euc_jp") + b"  "])
def test_bytes_that_are_no_text_have_their_place_in_the_file(tmp_path: Path, size: int, mark: bytes, wrong: bytes) -> None:
    before = mark + LINES + "徳".encode()
    path = Path(write(tmp_path, before + wrong))
    with pytest.raises(ValueError, match=rf":3: not UTF-8 text \(byte {len(before)}\); save the file as UTF-8$"):
        list(pieces(path, hashlib.sha256(), size=size))


def test_a_gzip_bomb_is_left_before_it_has_expanded(tmp_path: Path) -> None:
    path, total = Path(write(tmp_path, gzip.compress(b"\n" * 64 * MIB))), 0
    with pytest.raises(ValueError, match="expands to more than 16 MiB"):
        for piece in pieces(path, hashlib.sha256()):
            total += len(piece)
    assert total <= 16 * MIB
