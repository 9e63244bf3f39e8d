"""Encoded dialogues in a memory-mapped file: what went in comes out, a full disk is one line, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
import tiny
from torch.utils.data import DataLoader

from socratic_mlflow.dialogues import Dialogue
from socratic_mlflow.token_store import lengths, store, unstored
from socratic_mlflow.tokens import Encoded


def pairs(count: int, tokens: int = 40) -> Iterator[tuple[Dialogue, Encoded]]:
    """Dialogues with odd texts and as many tokens as `tokens` or fewer."""
    for number in range(count):
        messages = [message | {"content": message["content"] + '\n"\u2028😀'} for message in tiny.dialogue(number)]
        ids = [number * 7 + index for index in range(1 + number % tokens)]
        yield Dialogue(tuple(messages), f"source {number // 3}", f"line {number}"), Encoded(ids, [-100, *ids[1:]])


@pytest.mark.parametrize("count", [1, 10, 5000])
def test_what_is_stored_comes_back_in_order(count: int) -> None:
    rows = store(pairs(count))
    assert [unstored(row) for row in rows] == list(pairs(count))
    assert rows.column_names == ["input_ids", "labels", "length", "place", "source", "messages"]
    # Several batches, of which a reader maps only those that it reads.
    assert (len(rows.data.column("length").chunks) > 1) == (count == 5000)


def test_lengths_are_those_of_the_rows_that_were_selected() -> None:
    chosen = [4, 0, 2999, 2999, 17]
    rows = store(pairs(3000))
    assert lengths(rows) == [len(encoded.input_ids) for _, encoded in pairs(3000)]
    assert lengths(rows.select(chosen)) == [len(rows[index]["input_ids"]) for index in chosen]


def test_nothing_to_store_is_no_error() -> None:
    rows = store(iter(()))
    assert len(rows) == 0
    assert lengths(rows) == []


def test_what_goes_wrong_in_the_dialogues_is_heard() -> None:
    def failing() -> Iterator[tuple[Dialogue, Encoded]]:
        yield from pairs(3)
        raise ValueError("f.jsonl:4: malformed")

    with pytest.raises(ValueError, match=r"^f\.jsonl:4: malformed$"):
        store(failing())


def test_a_full_disk_is_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disks.tiny(tmp_path / "disk") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(ValueError) as caught:
            store(pairs(5000))
        assert str(caught.value) == (
            f"{disk}: the encoded dialogues cannot be written there (No space left on device); set TMPDIR to a folder with "
            "some GB of space"
        )
        assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_a_temporary_folder_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"/gone: the encoded dialogues cannot be written there \(No such file"):
        store(pairs(1))


def test_the_file_has_no_name_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = []

    def looking() -> Iterator[tuple[Dialogue, Encoded]]:
        yield from pairs(3000)
        found.append(list(tmp_path.iterdir()))

    store(looking())
    assert found == [[]]


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from test_token_store import pairs, store
rows = store(pairs(10))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_leaves_nothing_in_tmpdir(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=repository,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_processes_that_load_data_read_the_same_rows(way: str) -> None:
    chosen = [70, 3, 3, 41, 0]
    rows = store(pairs(80)).select(chosen)
    loader = DataLoader(rows, batch_size=2, collate_fn=list, num_workers=2, multiprocessing_context=way)
    assert [unstored(row) for batch in loader for row in batch] == [list(pairs(80))[index] for index in chosen]
