"""Small files of an output folder, read and written so that neither a crash nor an odd file does harm.

Reading never follows a symbolic link, never waits for a pipe, and takes no more bytes than it is told to. Standard
library only.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(file: Path) -> BufferedReader:
    """`file` opened for reading; FileNotFoundError, or ValueError (what it is instead, to be put after its name)."""
    try:
        if file.is_symlink():
            raise ValueError("is a symbolic link")
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(file: Path, limit_bytes: int) -> str:
    """The UTF-8 text of `file`; FileNotFoundError, or ValueError (what is wrong with it, to be put after its name)."""
    with open_regular(file) as opened:
        try:
            data = opened.read(limit_bytes + 1)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from None
    if len(data) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def beside(file: Path) -> Path:
    """Where `write_whole` prepares `file`."""
    return file.with_name(f".{file.name}.new")


def write_whole(file: Path, text: str) -> None:
    """Write beside and rename, each on the disk before the next, so that a crash leaves the old file or the new one.

    OSError (with the name of `file`, which is untouched) where that fails, on a full disk say; nothing stays beside it.
    """
    new = beside(file)
    try:
        # A new file, never through a link that lies there.
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except OSError as error:
        if new.is_file():
            new.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from error
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on the disk: without it, a power cut can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
