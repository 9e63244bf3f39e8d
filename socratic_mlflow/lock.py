"""One process at a time in an output folder.

The lock is the kernel's (flock), so it is gone with the process that held it, however that ended: a lock file that lies
there means nothing by itself. It holds one line that says who has the lock. flock rather than the package filelock: this
opens no link and no pipe, falls back to no lock that would outlive its process, and keeps the line in the file itself.
Standard library only; POSIX only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

LOCK_FILE = ".lock"
_HOLDER = re.compile(r"process [0-9]{1,20} on [\w.:-]{1,255} \(since [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}\)")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it is missing; ValueError (one line) where another process has it.

    Processes forked while it is held (loader workers) share it: where the holder is killed, it is free only when they have
    ended too. PyTorch's workers look every few seconds whether their parent lives, and end when it does not.
    """
    holder = os.getpid()
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(folder / LOCK_FILE)
    except OSError as error:
        raise ValueError(f"{folder} cannot be locked ({error.strerror}); choose another output_dir") from None
    try:
        _take(folder, descriptor)
        yield
    finally:
        # Closing alone would leave it to the processes forked meanwhile; one of those must not give it back.
        if os.getpid() == holder:
            if new:
                _leave_nothing(folder)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _leave_nothing(folder: Path) -> None:
    """Remove `folder` where the lock is all that it holds: what was to begin there did not."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()


def _open(file: Path) -> int:
    """The lock file's descriptor; OSError, or ValueError (one line) where it is no file of its own."""
    if file.is_symlink():
        raise ValueError(f"{file} is a symbolic link, which cannot be locked; remove it or choose another output_dir")
    # Without O_NONBLOCK, a pipe could make this wait.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{file} is no regular file, so it cannot be locked; remove it or choose another output_dir")
    return descriptor


def _take(folder: Path, descriptor: int) -> None:
    """Lock, and write down who holds the lock; ValueError (one line) where another process does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A line of an earlier holder goes first, so that nobody is told of that one for as long as the disk takes.
        os.ftruncate(descriptor, 0)
        since = datetime.now().strftime("%Y-%m-%d %H:%M")
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} (since {since})\n".encode(), 0)
        os.fsync(descriptor)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use by {_holder(descriptor)}; wait for it, or choose another output_dir"
        ) from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be locked ({error.strerror}); choose another output_dir") from None


def _holder(descriptor: int) -> str:
    """Who has the lock, in words; the file's text only where it is such a line: anything may lie there."""
    line = os.pread(descriptor, 400, 0).decode("utf-8", "replace").removesuffix("\n")
    return line if _HOLDER.fullmatch(line) else "another process"
