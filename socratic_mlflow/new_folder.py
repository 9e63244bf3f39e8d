"""A folder that is there whole or not at all: written aside, then renamed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from socratic_mlflow.files import sync_folder

_SCRATCH = ".unfinished"


def check_free(name: str) -> Path:
    """Where the new folder `name` goes; ValueError (one line) if anything is there but an empty folder."""
    try:
        place = Path(name).expanduser().resolve()
        if not name or (place.exists() and not place.is_dir()):
            raise ValueError(f"{name or 'no name'}: is no folder; choose another output_dir")
        if place.is_dir() and any(place.iterdir()):
            raise ValueError(f"{name}: is not empty, and nothing in it is overwritten; choose another output_dir")
        above = next(folder for folder in (place, *place.parents) if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise ValueError(f"{name}: nothing can be written in {above}; choose another output_dir")
    except OSError as error:
        raise ValueError(f"{name}: cannot be used ({error.strerror}); choose another output_dir") from None
    return place


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder to write into, whose content is in `place` at the end; after an exception nothing is left of it.

    ValueError (one line) where something has come to `place` meanwhile.
    """
    # An empty folder may be a mount, or where a shell is: it stays the same one.
    was_there = place.is_dir()
    scratch = place / _SCRATCH if was_there else place.with_name(f".{place.name}{_SCRATCH}")
    try:
        scratch.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"{scratch}: another export writes there, or one was killed; remove it if none runs") from None
    except OSError as error:
        raise ValueError(f"{place}: cannot be made ({error.strerror}); choose another output_dir") from None
    try:
        yield scratch
        _finish(scratch)
        if place.exists() and [file.name for file in place.iterdir()] != [_SCRATCH] * was_there:
            raise ValueError(f"{place}: something was put there meanwhile; choose another output_dir")
        if was_there:
            for file in list(scratch.iterdir()):
                file.rename(place / file.name)
        else:
            scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(place)
    sync_folder(place.parent)


def _finish(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            # safetensors makes files that nobody else can read.
            file.chmod(mode)
            _sync(file)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
