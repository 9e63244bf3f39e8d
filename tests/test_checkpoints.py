"""A checkpoint folder: whole and known to be, or a problem with its reason in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import FILES, OURS, names, sealed, written

from socratic_mlflow.checkpoints import problem, seal


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return sealed(tmp_path, 84)


def rewrite(checkpoint: Path, **changes: Any) -> None:
    """The manifest with entries of its top level changed."""
    manifest = checkpoint / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def test_a_sealed_checkpoint_is_whole_and_holds_one_more_file(whole: Path) -> None:
    assert problem(whole, OURS) == ""
    assert names(whole) == sorted([*FILES, "manifest.json"])


def test_a_file_in_a_folder_of_the_checkpoint_is_sealed_too(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 4)
    (checkpoint / "deeper").mkdir()
    (checkpoint / "deeper" / "rng_state.pth").write_bytes(b"123")
    seal(checkpoint, OURS)
    assert problem(checkpoint, OURS) == ""
    (checkpoint / "deeper" / "rng_state.pth").write_bytes(b"124")
    assert problem(checkpoint, OURS) == "damaged: deeper/rng_state.pth has changed"


def test_sealing_again_takes_what_is_there_now_and_nothing_that_a_killed_seal_left(whole: Path) -> None:
    (whole / ".manifest.json.new").write_text("half")
    (whole / "optimizer.pt").write_bytes(b"other")
    seal(whole, OURS)
    assert problem(whole, OURS) == ""
    assert names(whole) == sorted([*FILES, "manifest.json"])


def test_without_a_manifest_a_checkpoint_is_half_written(tmp_path: Path) -> None:
    assert problem(written(tmp_path, 4), OURS) == "half-written: it has no manifest.json"


def test_a_checkpoint_of_another_training_is_said_to_be_one(whole: Path) -> None:
    assert problem(whole, "b" * 64) == "of another configuration"


def test_a_file_more_does_not_matter(whole: Path) -> None:
    (whole / "notes.txt").write_text("good one")
    assert problem(whole, OURS) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_empty_is_named(whole: Path, name: str) -> None:
    (whole / name).write_bytes(b"")
    assert problem(whole, OURS) == f"damaged: {name} has 0 bytes, not {len(FILES[name])}"
    (whole / name).unlink()
    assert problem(whole, OURS) == f"damaged: {name} is missing"


def test_a_file_that_is_a_link_a_pipe_or_a_folder_is_named(whole: Path) -> None:
    file = whole / "optimizer.pt"
    moved = file.rename(whole / "elsewhere")
    file.symlink_to(moved)
    assert problem(whole, OURS) == "damaged: 'optimizer.pt' is a symbolic link"
    file.unlink()
    os.mkfifo(file)
    assert problem(whole, OURS) == "damaged: optimizer.pt is no regular file"
    file.unlink()
    file.mkdir()
    assert problem(whole, OURS) == "damaged: optimizer.pt is no regular file"


def test_a_link_to_a_folder_is_a_problem_even_with_the_same_files_behind_it(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 4)
    (checkpoint / "deeper").mkdir()
    (checkpoint / "deeper" / "rng_state.pth").write_bytes(b"123")
    seal(checkpoint, OURS)
    (checkpoint / "deeper").rename(tmp_path / "elsewhere")
    (checkpoint / "deeper").symlink_to(tmp_path / "elsewhere")
    assert problem(checkpoint, OURS) == "damaged: 'deeper' is a symbolic link"


def test_a_checkpoint_that_is_a_link_a_file_or_missing_is_no_folder(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-85").symlink_to(whole)
    (tmp_path / "checkpoint-86").write_text("")
    for name in ("checkpoint-85", "checkpoint-86", "checkpoint-87"):
        assert problem(tmp_path / name, OURS) == "damaged: it is no folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_a_problem(whole: Path) -> None:
    (whole / "optimizer.pt").chmod(0)
    assert problem(whole, OURS) == "damaged: optimizer.pt cannot be read (Permission denied)"


def test_seal_refuses_what_is_no_regular_file_and_leaves_no_manifest(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 4)
    (checkpoint / "link").symlink_to("optimizer.pt")
    with pytest.raises(ValueError, match=r"^\S+/checkpoint-4/link is a symbolic link$"):
        seal(checkpoint, OURS)
    assert problem(checkpoint, OURS).startswith("half-written")


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/", "..\\x", "nul\0", "line\nbreak", "\ud800", "a/./b"],
)
def test_a_manifest_that_names_what_is_no_file_of_the_folder_is_a_problem(whole: Path, name: str) -> None:
    files = json.loads((whole / "manifest.json").read_text())["files"]
    rewrite(whole, files=files | {name: {"size": 1, "sha256": "0" * 64}})
    reason = problem(whole, OURS)
    assert reason.startswith("damaged: manifest.json names ")
    assert reason.isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"identity": "%s"}' % OURS.encode(),
        b'{"identity": "%s", "files": []}' % OURS.encode(),
        b'{"identity": "%s", "files": {"a": 1}}' % OURS.encode(),
        b'{"identity": "%s", "files": {"a": {"size": true, "sha256": ""}}}' % OURS.encode(),
        b'{"identity": "%s", "files": {"a": {"size": 1.5, "sha256": ""}}}' % OURS.encode(),
        b'{"identity": "%s", "files": {"a": {"size": 1, "sha256": null}}}' % OURS.encode(),
        b'{"identity": %s}' % (b"9" * 5000),
        b"[" * 100_000,
        b" " * (1 << 21),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_an_odd_manifest_is_a_problem_in_one_short_line(whole: Path, data: bytes) -> None:
    (whole / "manifest.json").write_bytes(data)
    reason = problem(whole, OURS)
    assert reason.startswith("damaged: manifest.json is ")
    assert len(reason) < 80


def test_an_identity_of_another_type_is_another_configuration(whole: Path) -> None:
    rewrite(whole, identity=None)
    assert problem(whole, OURS) == "of another configuration"


def test_a_manifest_that_is_a_pipe_or_a_sparse_giant_neither_waits_nor_fills_the_memory(whole: Path) -> None:
    manifest = whole / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)
    assert problem(whole, OURS) == "damaged: manifest.json is no regular file"
    manifest.unlink()
    with manifest.open("wb") as giant:
        giant.truncate(1 << 40)
    assert problem(whole, OURS) == "damaged: manifest.json is larger than 1048576 bytes"


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model-00001-of-00002.bin", "deeper/model.pt"])
def test_pickle_weights_are_not_accepted(tmp_path: Path, name: str) -> None:
    checkpoint = written(tmp_path, 4)
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / "adapter_model.safetensors").rename(checkpoint / name)
    seal(checkpoint, OURS)
    assert problem(checkpoint, OURS) == f"holds pickle weights ({name}), which are not loaded"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer_state.json"])
def test_what_no_training_goes_on_without_must_have_been_sealed(tmp_path: Path, name: str) -> None:
    checkpoint = written(tmp_path, 4)
    (checkpoint / name).unlink()
    seal(checkpoint, OURS)
    assert problem(checkpoint, OURS) == f"damaged: manifest.json names no {name}"


def test_every_truncation_and_every_flipped_bit_of_real_files_is_found(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    checkpoint = written(tmp_path, 84)
    weights = {"lora_A": torch.randn(4, 8), "lora_B": torch.zeros(8, 4)}
    save_file(weights, checkpoint / "adapter_model.safetensors")
    torch.save({"state": weights}, checkpoint / "optimizer.pt")
    seal(checkpoint, OURS)
    assert problem(checkpoint, OURS) == ""
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        file = checkpoint / name
        data = file.read_bytes()
        for at in range(0, len(data), 37):
            file.write_bytes(data[:at])
            assert problem(checkpoint, OURS) == f"damaged: {name} has {at} bytes, not {len(data)}"
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            assert problem(checkpoint, OURS) == f"damaged: {name} has changed"
        file.write_bytes(data + b"\0")
        assert problem(checkpoint, OURS) == f"damaged: {name} has {len(data) + 1} bytes, not {len(data)}"
        file.write_bytes(data)
    assert problem(checkpoint, OURS) == ""


def test_every_byte_of_the_manifest_changed_is_a_reason_or_harmless_and_never_an_exception(whole: Path) -> None:
    manifest = whole / "manifest.json"
    data = manifest.read_bytes()
    accepted = 0
    for at in range(len(data)):
        manifest.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        accepted += problem(whole, OURS) == ""
        manifest.write_bytes(data[:at])
        accepted += problem(whole, OURS) == ""
    assert accepted == 0
