"""A folder that is there whole or not at all: written beside, then renamed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from socratic_mlflow.files import sync_folder


def check_free(name: str) -> Path:
    """Where the new folder `name` goes; ValueError (one line) if anything is there but an empty folder."""
    try:
        place = Path(name).expanduser().resolve()
        if place.exists() and not place.is_dir():
            raise ValueError(f"{name}: is no folder; choose another output_dir")
        if place.is_dir() and any(place.iterdir()):
            raise ValueError(f"{name}: is not empty, and nothing in it is overwritten; choose another output_dir")
        parent = next(above for above in place.parents if above.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise ValueError(f"{name}: cannot be made in {parent}; choose another output_dir")
    except OSError as error:
        raise ValueError(f"{name}: cannot be used ({error.strerror}); choose another output_dir") from None
    return place


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the name `place` at the end; after an exception nothing is left of it.

    ValueError (one line) where something has come to `place` meanwhile.
    """
    scratch = place.with_name(f".{place.name}.{os.getpid()}.new")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        mode = scratch.stat().st_mode & 0o666
        for file in scratch.rglob("*"):
            if file.is_file():
                # safetensors makes files that nobody else can read.
                file.chmod(mode)
                _sync(file)
        # Onto an empty folder this works as well; onto anything else it fails.
        scratch.rename(place)
    except OSError as error:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ValueError(f"{place}: something was put there meanwhile; choose another output_dir") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(place.parent)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
