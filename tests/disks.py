"""A file system so small that a test can fill it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tiny(folder: Path) -> Iterator[Path]:
    """`folder`, which is made, as a file system of 64 KiB; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (only root may)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the space that `disk` has left."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler, pytest.raises(OSError):
        while filler.write(b"x" * 1024):
            pass
    return file
