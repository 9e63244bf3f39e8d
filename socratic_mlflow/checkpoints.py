"""Checkpoint folders that are whole or known not to be: sealed with a manifest, found again, set aside, rotated.

A `checkpoint-STEP` folder that transformers has written is whole once `seal` has put manifest.json into it: the size and
SHA-256 of each file, and the identity of the training that it belongs to. Nothing here loads a checkpoint: what lies in
the folders is bytes to compare. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socratic_mlflow.files import beside, open_regular, read_text, sync_folder, write_whole

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 1 << 20
_DELETED = ".deleted-"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Without these no training goes on.
_NEEDED = ("adapter_model.safetensors", "trainer_state.json")
_PICKLE_WEIGHTS = re.compile(r"(adapter_model|pytorch_model|model)[^/]*\.(bin|pt|pth|ckpt|pkl)")


def seal(checkpoint: Path, identity: str) -> None:
    """Declare `checkpoint` whole, and of the training `identity`, when each of its files is on the disk.

    OSError (a full disk, say) or ValueError (something in it is no regular file) leaves it without a manifest.
    """
    manifest = checkpoint / MANIFEST
    not_listed = {manifest, beside(manifest)}
    files = {}
    for folder, _, names in os.walk(checkpoint, onerror=_raise):
        for file in (Path(folder) / name for name in sorted(names)):
            if file not in not_listed:
                files[file.relative_to(checkpoint).as_posix()] = _measure_and_sync(file)
        sync_folder(Path(folder))
    write_whole(manifest, json.dumps({"identity": identity, "files": files}, indent=1))
    sync_folder(checkpoint.parent)


def problem(checkpoint: Path, identity: str, needed: Sequence[str] = _NEEDED) -> str:
    """Why `checkpoint` is no whole one of the training `identity`, with the files `needed` to go on from it, in a few
    words; empty where it is. Raises nothing."""
    try:
        if checkpoint.is_symlink() or not checkpoint.is_dir():
            return "damaged: it is no folder"
        try:
            found, files = _read_manifest(checkpoint / MANIFEST)
        except FileNotFoundError:
            return f"half-written: it has no {MANIFEST}"
        except ValueError as error:
            return f"damaged: {MANIFEST} {error}"
        if found != identity:
            return "of another configuration"
        return _unfit(files, needed) or _link(checkpoint) or _damage(checkpoint, files)
    except OSError as error:
        return f"damaged: it cannot be read ({error.strerror})"


def by_step(folder: Path) -> dict[int, Path]:
    """{step: its checkpoint} of `folder`, whole or not, newest first; OSError where it cannot be listed."""
    if not folder.is_dir():
        return {}
    names = ((re.fullmatch(r"checkpoint-(0|[1-9][0-9]*)", path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in names if match}
    return dict(sorted(found.items(), reverse=True))


def newest_whole(folder: Path, identity: str) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The whole checkpoint of the highest step, and those above it that are not whole, each with its `problem`.

    OSError where `folder` cannot be listed.
    """
    passed_over: list[tuple[Path, str]] = []
    for checkpoint in by_step(folder).values():
        reason = problem(checkpoint, identity)
        if not reason:
            return checkpoint, passed_over
        passed_over.append((checkpoint, reason))
    return None, passed_over


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint that was passed over, and return its new name: transformers would write into it, count it or
    delete it under the old one. OSError where it cannot be renamed."""
    name, number = checkpoint.with_name(f"passed-over-{checkpoint.name}"), 1
    free = name
    while os.path.lexists(free):
        number += 1
        free = name.with_name(f"{name.name}-{number}")
    checkpoint.rename(free)
    sync_folder(free.parent)
    return free


def keep_adapter(checkpoint: Path, folder: Path, identity: str) -> None:
    """Copy the adapter of a whole `checkpoint` into `folder`, sealed as that one's. OSError where it cannot be written."""
    # Not whole from here on, until it is sealed again.
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    for name in ADAPTER_FILES:
        shutil.copy(checkpoint / name, folder)
    seal(folder, f"{identity} {checkpoint.name}")


def ensure_adapter(checkpoint: Path, folder: Path, identity: str) -> None:
    """Have `folder` hold the whole adapter of `checkpoint`, copied anew where it does not; RuntimeError (one line) where
    the checkpoint is not whole either."""
    if problem(folder, f"{identity} {checkpoint.name}", ADAPTER_FILES):
        if reason := problem(checkpoint, identity):
            raise RuntimeError(f"the adapter of {checkpoint} is lost: {reason}")
        keep_adapter(checkpoint, folder, identity)


def rotate(folder: Path, limit: int, best_step: int | None) -> None:
    """Delete all but the `limit` newest checkpoints of `folder`; the newest and the best one always stay.

    One without a manifest neither counts nor is deleted, so that it never costs a whole one its place. OSError where
    something cannot be deleted.
    """
    for leftover in folder.glob(f"{_DELETED}*") if folder.is_dir() else ():
        _delete(leftover)
    sealed = {step: path for step, path in by_step(folder).items() if (path / MANIFEST).is_file()}
    first = [step for step in (next(iter(sealed), None), best_step) if step in sealed]
    kept = list(dict.fromkeys([*first, *sealed]))[: max(limit, len(set(first)))]
    for step in sealed.keys() - set(kept):
        # Renamed first: a kill in between must leave no half checkpoint under its real name.
        gone = sealed[step].with_name(f"{_DELETED}{sealed[step].name}")
        sealed[step].rename(gone)
        sync_folder(folder)
        _delete(gone)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _raise(error: OSError) -> None:
    raise error


def _measure_and_sync(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of `file`, which is on the disk then."""
    try:
        with open_regular(file) as opened:
            os.fsync(opened.fileno())
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            return {"size": opened.tell(), "sha256": digest}
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None


def _read_manifest(file: Path) -> tuple[str, dict[str, tuple[int, str]]]:
    """(identity, {file: (size in bytes, SHA-256)}); FileNotFoundError, or ValueError (to be put after its name)."""
    text = read_text(file, _MANIFEST_BYTES)
    try:
        loaded = json.loads(text)
        identity, files = loaded["identity"], loaded["files"]
        found = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
        typed = all(type(size) is int and type(digest) is str for size, digest in found.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        typed = False
    if not typed:
        raise ValueError("is no manifest")
    for name in found:
        if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(name.split("/")):
            raise ValueError(f"names {name[:100]!r}, which is no file of the folder")
    return identity, found


def _unfit(files: dict[str, tuple[int, str]], needed: Sequence[str]) -> str:
    for name in files:
        if _PICKLE_WEIGHTS.fullmatch(name.rpartition("/")[2]):
            return f"holds pickle weights ({name}), which are not loaded"
    missing = next((name for name in needed if name not in files), "")
    return missing and f"damaged: {MANIFEST} names no {missing}"


def _link(checkpoint: Path) -> str:
    """A symbolic link anywhere in it could lead what is read, or deleted, out of it."""
    for folder, folders, names in os.walk(checkpoint, onerror=_raise):
        for path in (Path(folder) / name for name in sorted(folders + names)):
            if path.is_symlink():
                return f"damaged: {path.relative_to(checkpoint).as_posix()!r} is a symbolic link"
    return ""


def _damage(checkpoint: Path, files: dict[str, tuple[int, str]]) -> str:
    for name, (size, digest) in files.items():
        try:
            with open_regular(checkpoint / name) as opened:
                found = os.fstat(opened.fileno()).st_size
                if found != size:
                    return f"damaged: {name} has {found} bytes, not {size}"
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return f"damaged: {name} has changed"
        except FileNotFoundError:
            return f"damaged: {name} is missing"
        except ValueError as error:
            return f"damaged: {name} {error}"
    return ""
