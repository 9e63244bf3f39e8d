"""Among several checkpoint folders: the newest whole one is found, others are set aside and rotated without loss."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
from checkpoint_files import FILES, OURS, names, sealed, written

from socratic_mlflow import checkpoints
from socratic_mlflow.checkpoints import by_step, newest_whole, problem, rotate, seal, set_aside


def test_the_newest_whole_checkpoint_is_used_and_those_above_it_are_told_with_their_reasons(tmp_path: Path) -> None:
    sealed(tmp_path, 9)
    best = sealed(tmp_path, 100)
    half = written(tmp_path, 120)
    damaged = sealed(tmp_path, 140)
    (damaged / "optimizer.pt").write_bytes(b"o" * 10)
    other = sealed(tmp_path, 1000, "b" * 64)
    for name in ("checkpoint-last", "tmp-checkpoint-5", "checkpoint-0500", "checkpoint-５００", "passed-over-checkpoint-5"):
        shutil.copytree(best, tmp_path / name)
    assert newest_whole(tmp_path, OURS) == (
        best,
        [
            (other, "of another configuration"),
            (damaged, "damaged: optimizer.pt has 10 bytes, not 200"),
            (half, "half-written: it has no manifest.json"),
        ],
    )
    assert list(by_step(tmp_path)) == [1000, 140, 120, 100, 9]


def test_without_a_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "none", OURS) == (None, [])
    rotate(tmp_path / "none", 1, None)


def test_a_checkpoint_set_aside_keeps_its_files_and_counts_no_more(tmp_path: Path) -> None:
    for expected in ("passed-over-checkpoint-84", "passed-over-checkpoint-84-2", "passed-over-checkpoint-84-3"):
        aside = set_aside(written(tmp_path, 84))
        assert aside == tmp_path / expected
        assert names(aside) == sorted(FILES)
    assert by_step(tmp_path) == {}
    # transformers looks for these.
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_name_that_a_dangling_link_takes_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "passed-over-checkpoint-84").symlink_to("nowhere")
    assert set_aside(written(tmp_path, 84)).name == "passed-over-checkpoint-84-2"


@pytest.mark.parametrize(
    ("limit", "best_step", "kept"),
    [
        (3, None, [30, 40, 100]),
        (3, 40, [30, 40, 100]),
        (3, 10, [10, 40, 100]),
        (2, 10, [10, 100]),
        (1, 10, [10, 100]),
        (1, 100, [100]),
        (1, None, [100]),
        (1, 77, [100]),
        (9, 10, [10, 20, 30, 40, 100]),
    ],
)
def test_rotation_keeps_the_newest_by_step_and_always_the_best(
    tmp_path: Path, limit: int, best_step: int | None, kept: list[int]
) -> None:
    for step in (100, 10, 20, 30, 40):
        sealed(tmp_path, step)
    rotate(tmp_path, limit, best_step)
    assert names(tmp_path) == sorted(f"checkpoint-{step}" for step in kept)
    assert all(problem(tmp_path / name, OURS) == "" for name in names(tmp_path))


def test_rotation_deletes_nothing_without_a_manifest_and_no_whole_one_in_its_favour(tmp_path: Path) -> None:
    for step in (10, 20):
        sealed(tmp_path, step)
    for step in (5, 30):
        written(tmp_path, step)
    (tmp_path / "passed-over-checkpoint-40").mkdir()
    rotate(tmp_path, 1, None)
    assert names(tmp_path) == ["checkpoint-20", "checkpoint-30", "checkpoint-5", "passed-over-checkpoint-40"]


def test_a_rotation_that_is_killed_leaves_no_half_checkpoint_and_the_next_one_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20):
        sealed(tmp_path, step)

    def killed_half_way(path: Path) -> None:
        (path / "optimizer.pt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "_delete", killed_half_way)
        rotate(tmp_path, 1, None)
    assert list(by_step(tmp_path)) == [20]
    assert len(names(tmp_path)) == 2
    rotate(tmp_path, 1, None)
    assert names(tmp_path) == ["checkpoint-20"]


def test_rotation_deletes_nothing_behind_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    kept = sealed(elsewhere, 10)
    folder = tmp_path / "checkpoints"
    sealed(folder, 20)
    (folder / "checkpoint-10").symlink_to(kept)
    rotate(folder, 1, None)
    assert names(folder) == ["checkpoint-20"]
    assert problem(kept, OURS) == ""


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.tiny(tmp_path / "disk") as folder:
        yield folder


def test_on_a_full_disk_nothing_is_sealed_the_older_checkpoint_survives_and_with_space_it_works(tiny_disk: Path) -> None:
    older, newer = sealed(tiny_disk, 4), written(tiny_disk, 8)
    filler = disks.fill(tiny_disk)
    with pytest.raises(OSError) as caught:
        seal(newer, OURS)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(newer / "manifest.json")
    assert names(newer) == sorted(FILES)
    assert newest_whole(tiny_disk, OURS) == (older, [(newer, "half-written: it has no manifest.json")])
    assert set_aside(newer).is_dir()
    filler.unlink()
    assert problem(sealed(tiny_disk, 8), OURS) == ""
