"""The journal: each record whole or absent, whatever happens to the file."""

from __future__ import annotations

import math
import os
import shutil
import threading
import zlib

import pytest
from journals import RECORDS, opened, read

from socratic_mlflow.journal import DAMAGED, Journal


@pytest.fixture
def journal(tmp_path):
    """An open journal of RECORDS."""
    made = Journal(tmp_path / "journal")
    made.open()
    for record in RECORDS:
        made.append(record)
    yield made
    made.close()


def test_records_come_back_in_their_order_with_the_offsets_behind_them(journal):
    assert read(journal) == RECORDS
    offsets = [end for _, end in journal.records()]
    assert offsets[-1] == journal.end == journal.file.stat().st_size
    for number, offset in enumerate(offsets):
        assert read(journal, offset) == RECORDS[number + 1 :]


def test_there_is_nothing_in_a_journal_that_is_not_there(tmp_path):
    assert read(Journal(tmp_path / "nowhere")) == []
    assert Journal(tmp_path / "nowhere").delivered() == {}
    assert list(tmp_path.iterdir()) == []


def test_cut_off_at_any_byte_it_holds_the_whole_records_before_and_goes_on(journal, tmp_path):
    data, ends = journal.file.read_bytes(), [end for _, end in journal.records()]
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "records.jsonl").write_bytes(data[:length])
        whole = RECORDS[: sum(end <= length for end in ends)]
        assert read(Journal(folder)) == whole
        again = opened(folder)
        again.append({"kind": "end", "time": 3})
        again.close()
        assert read(Journal(folder)) == [*whole, {"kind": "end", "time": 3}]
        assert (folder / "records.jsonl").stat().st_size == again.end


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_a_byte_that_has_changed_costs_its_own_record_and_is_never_taken_for_another(journal, flip):
    data, ends = journal.file.read_bytes(), [end for _, end in journal.records()]
    for position in range(len(data)):
        number = sum(end <= position for end in ends)
        spoiled = bytearray(data)
        spoiled[position] ^= flip
        journal.file.write_bytes(spoiled)
        found = read(journal)
        if position + 1 in ends:
            # Without its line break a record is one with the next, and the last one is torn.
            assert found == [*RECORDS[:number], *([DAMAGED] if number < 3 else []), *RECORDS[number + 2 :]]
        elif len(found) == len(RECORDS):
            assert found[:number] + found[number + 1 :] == RECORDS[:number] + RECORDS[number + 1 :]
            assert found[number] in (DAMAGED, RECORDS[number])
        else:
            # A line break where there was none.
            assert spoiled[position] == ord("\n")
            assert found == [*RECORDS[:number], DAMAGED, DAMAGED, *RECORDS[number + 1 :]]


def signed(text):
    data = text.encode()
    return b"%08x " % zlib.crc32(data) + data + b"\n"


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"00000000 \n", b"\xff" * 20 + b"\n", signed("[1, 2]"), signed("{}"), signed('{"kind": 5}'),
     signed('{"kind": "end"'), signed("[" * 100_000), signed('{"kind": ' + "9" * 5000 + "}"), signed('"kind"'),
     signed("null")],
)  # fmt: skip
def test_a_line_that_is_no_record_is_damaged(journal, line):
    with journal.file.open("ab") as file:
        file.write(line)
    journal.close()
    again = opened(journal.folder)
    again.append(RECORDS[0])
    again.close()
    assert read(again) == [*RECORDS, DAMAGED, RECORDS[0]]


def test_odd_numbers_and_halves_of_characters_survive_or_are_replaced(tmp_path):
    journal = opened(tmp_path)
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "small": 5e-324, "large": 10**30}
    journal.append({"kind": "metrics", "values": values})
    journal.append({"kind": "tags", "values": {"a": "before \ud83d after", "b": "\u2028\x00\U0001f600"}})
    journal.close()
    metrics, tags = (record["values"] for record in read(journal))
    assert math.isnan(metrics.pop("nan"))
    assert metrics == {name: value for name, value in values.items() if name != "nan"}
    assert tags == {"a": "before ? after", "b": "\u2028\x00\U0001f600"}


def test_a_file_comes_back_as_it_was_given(tmp_path):
    journal = opened(tmp_path)
    journal.append({"kind": "image"}, b"\x00picture", ".png")
    journal.append({"kind": "text"}, b"", ".txt")
    journal.close()
    assert [journal.content(record) for record in read(journal)] == [b"\x00picture", b""]
    assert sorted(path.suffix for path in (tmp_path / "files").iterdir()) == [".png", ".txt"]


def test_a_file_that_was_carried_by_a_torn_record_makes_room_for_the_next(tmp_path):
    journal = opened(tmp_path)
    journal.append({"kind": "text"}, b"first", ".txt")
    journal.close()
    os.truncate(journal.file, journal.end - 1)
    again = opened(tmp_path)
    again.append({"kind": "text"}, b"second", ".txt")
    again.close()
    assert [again.content(record) for record in read(again)] == [b"second"]
    assert len(list((tmp_path / "files").iterdir())) == 1


@pytest.mark.parametrize("change", ["missing", "changed", "longer", "empty", "a link", "a folder", "a pipe"])
def test_a_file_that_is_not_as_it_was_written_is_none(tmp_path, change):
    journal = opened(tmp_path)
    journal.append({"kind": "text"}, b"content", ".txt")
    journal.close()
    (record,) = read(journal)
    file = tmp_path / "files" / record["file"]
    kept = shutil.copy(file, tmp_path / "elsewhere")
    file.unlink()
    if change in ("changed", "longer", "empty"):
        file.write_bytes({"changed": b"Content", "longer": b"content ", "empty": b""}[change])
    elif change == "a link":
        file.symlink_to(kept)
    elif change == "a folder":
        file.mkdir()
    elif change == "a pipe":
        os.mkfifo(file)
    assert journal.content(record) is None


NAMES = ["../secret.txt", "/etc/hostname", "secret.txt", "1/../../secret.txt", "..", "", "1.txt\n", "1.TXT", None, 5]


@pytest.mark.parametrize("name", [*NAMES, ["1.txt"]], ids=repr)
def test_no_file_outside_of_the_journal_is_ever_read(tmp_path, name):
    journal = opened(tmp_path)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "files" / "secret.txt").write_bytes(b"secret")
    assert journal.content({"kind": "text", "file": name, "crc": zlib.crc32(b"secret")}) is None
    journal.close()


def test_what_is_delivered_is_remembered_and_may_be_lost(journal):
    journal.mark_delivered({"offset": 5, "run_id": "abc"})
    journal.mark_delivered({"offset": 7, "run_id": "abc"})
    assert Journal(journal.folder).delivered() == {"offset": 7, "run_id": "abc"}
    assert sorted(path.name for path in journal.folder.iterdir()) == ["delivered.json", "files", "records.jsonl"]


@pytest.mark.parametrize("text", ["", "null", "[1]", '"x"', "{", "[" * 4000, " " * 5000 + "{}", "\udcff"])
def test_an_unreadable_note_of_what_is_delivered_counts_as_none(journal, text):
    (journal.folder / "delivered.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert journal.delivered() == {}


def test_a_note_that_is_a_link_or_a_pipe_counts_as_none(journal, tmp_path):
    file = journal.folder / "delivered.json"
    (tmp_path / "other").write_text('{"offset": 1}')
    file.symlink_to(tmp_path / "other")
    assert journal.delivered() == {}
    file.unlink()
    os.mkfifo(file)
    assert journal.delivered() == {}


@pytest.mark.parametrize("kind", ["a link", "a folder", "a pipe"])
def test_records_that_are_no_plain_file_are_an_error_of_one_line(tmp_path, kind):
    file = tmp_path / "journal" / "records.jsonl"
    file.parent.mkdir()
    if kind == "a link":
        (tmp_path / "other").write_bytes(b"")
        file.symlink_to(tmp_path / "other")
    elif kind == "a folder":
        file.mkdir()
    else:
        os.mkfifo(file)
    with pytest.raises((OSError, ValueError)) as caught:
        opened(file.parent)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_two_threads_that_append_lose_nothing(tmp_path):
    journal = opened(tmp_path)

    def append(thread):
        for number in range(100):
            journal.append({"kind": "text", "by": thread, "number": number}, f"{thread} {number}".encode(), ".txt")
            if number % 30 == 0:
                journal.flush()

    threads = [threading.Thread(target=append, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = read(journal)
    assert all(journal.content(record) == f"{record['by']} {record['number']}".encode() for record in found)
    for thread in range(3):
        assert [record["number"] for record in found if record["by"] == thread] == list(range(100))


def test_of_many_records_those_of_one_kind_are_found(tmp_path):
    journal = opened(tmp_path / "journal")
    for record in RECORDS:
        journal.append(record)
    journal.append({"kind": "text", "words": 'this "metrics" is no kind'})
    whole = list(journal.records())
    for kinds in (["metrics"], ("metrics", "end"), {"training"}, ["none"]):
        expected = [(record, end) for record, end in whole if record["kind"] in kinds]
        assert list(journal.records(kinds=kinds)) == expected
    after = whole[1][1]
    assert list(journal.records(after, ["metrics", "end"])) == [
        (record, end) for record, end in whole[2:] if "time" in record
    ]
    journal.close()


def test_where_records_end_is_known_and_nothing_else_is_an_end(tmp_path):
    journal = opened(tmp_path / "journal")
    for record in RECORDS:
        journal.append(record)
    ends = {end for _, end in journal.records()}
    assert {offset for offset in range(-2, journal.end + 3) if journal.is_end(offset)} == ends
    assert not journal.is_end(10**30)
    journal.close()
    journal.file.unlink()
    assert not journal.is_end(journal.end)


def test_the_disk_is_waited_for_only_where_something_is_new(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor) or sync(descriptor))
    journal = opened(tmp_path / "journal")
    journal.append(RECORDS[0])
    synced.clear()
    for expected in (1, 1, 1):
        journal.flush()
        assert len(synced) == expected
    journal.append({"kind": "text"}, b"text", ".txt")
    journal.flush()
    # The file, its folder, the record.
    assert len(synced) == 4
    journal.close()
    synced.clear()
    again = opened(journal.folder)
    synced.clear()
    again.flush()
    assert len(synced) == 1
    again.close()
