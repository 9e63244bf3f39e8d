"""A kill, a full disk or Ctrl-C in the middle of an append: all of the record, or nothing, and the journal can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import disks
import pytest
from journals import RECORDS, opened, read

from socratic_mlflow.journal import Journal


@pytest.fixture
def on_a_disk(tmp_path):
    """(an open journal on a tiny file system, the file system's folder)."""
    with disks.tiny(tmp_path / "disk") as disk:
        journal = opened(disk / "journal")
        yield journal, disk
        journal.close()


APPENDING = """
import pathlib, sys
from socratic_mlflow.journal import Journal
journal = Journal(pathlib.Path(sys.argv[1]))
journal.open()
number = sum(1 for _ in journal.records())
while True:
    journal.append({"kind": "text", "number": number, "words": "word " * 2000}, b"file %d " % number * 500, ".txt")
    number += 1
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_records(tmp_path):
    for repetition in range(1, 5):
        with subprocess.Popen([sys.executable, "-c", APPENDING, str(tmp_path)], stdout=subprocess.PIPE) as started:
            said = [int(started.stdout.readline()) for _ in range(7 * repetition)]
            started.send_signal(signal.SIGKILL)
        found = read(Journal(tmp_path))
        assert [record["number"] for record in found] == list(range(len(found)))
        assert len(found) >= said[-1]
        assert all(Journal(tmp_path).content(record) == b"file %d " % record["number"] * 500 for record in found)


@pytest.mark.parametrize("size", [100, 2000, 60_000], ids=["a line", "a page", "more than fits"])
def test_a_full_disk_takes_all_of_a_record_or_nothing_and_can_go_on(on_a_disk, size):
    journal, disk = on_a_disk
    journal.append(RECORDS[0])
    filler, written = disks.fill(disk), 0
    with pytest.raises(OSError, match="No space left"):
        while True:
            journal.append({"kind": "text", "words": "w" * size})
            written += 1
    assert len(read(journal)) == 1 + written
    assert journal.file.stat().st_size == journal.end
    filler.unlink()
    journal.append(RECORDS[1])
    journal.close()
    again = opened(journal.folder)
    found = read(again)
    again.close()
    assert (found[0], found[-1], len(found)) == (RECORDS[0], RECORDS[1], written + 2)


def test_a_file_for_which_there_is_no_space_adds_nothing_at_all(on_a_disk):
    journal, disk = on_a_disk
    filler = disks.fill(disk)
    filler.write_bytes(b"x" * (filler.stat().st_size - 8192))
    with pytest.raises(OSError, match="No space left"):
        journal.append({"kind": "image"}, b"p" * 30_000, ".png")
    assert read(journal) == []
    # What could not be written must not take the space that is left.
    assert list((journal.folder / "files").iterdir()) == []
    journal.append({"kind": "image"}, b"small", ".png")
    assert [journal.content(record) for record in read(journal)] == [b"small"]


def test_what_is_delivered_so_far_stays_known_on_a_full_disk(on_a_disk):
    journal, disk = on_a_disk
    journal.mark_delivered({"offset": 0, "run_id": "abc"})
    disks.fill(disk)
    journal.mark_delivered({"offset": 9, "run_id": "abc"})
    assert journal.delivered() == {"offset": 0, "run_id": "abc"}


LIMITED = """
import json, pathlib, resource, signal, sys
from socratic_mlflow.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(pathlib.Path(sys.argv[1]))
journal.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
outcomes = []
for number in range(4):
    try:
        journal.append({"kind": "tags", "number": number, "words": "w" * 400})
        outcomes.append("whole")
    except OSError as error:
        outcomes.append(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append({"kind": "tags", "number": 9})
print(json.dumps([outcomes, [record["number"] for record, _ in journal.records()]]))
"""


def test_a_write_that_stops_half_way_is_taken_back(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["whole", "whole", 27, 27], [0, 1, 9]]


@pytest.mark.parametrize("written", [0, 1, 20, None], ids=["nothing", "a byte", "a part", "all"])
def test_ctrl_c_in_an_append_leaves_all_of_it_or_nothing(tmp_path, monkeypatch, written):
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.append({"kind": "text", "path": "first"}, b"first", ".txt")
    write = os.write

    def write_and_interrupt(descriptor, data):
        write(descriptor, data[:written])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append({"kind": "text", "path": "interrupted"}, b"interrupted", ".txt")
    journal.append({"kind": "text", "path": "last"}, b"last", ".txt")
    found = {record["path"]: journal.content(record) for record, _ in journal.records()}
    whole = {"interrupted": b"interrupted"} if written is None else {}
    assert found == {"first": b"first", "last": b"last"} | whole
    assert journal.end == journal.file.stat().st_size
