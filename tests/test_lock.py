"""One process at a time in an output folder, whatever became of the process before."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import disks
import pytest

from socratic_mlflow.lock import LOCK_FILE, hold

HOLDER = """
import sys
from pathlib import Path
from socratic_mlflow.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `folder` until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate()


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as caught, hold(folder):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_folder_is_made_and_the_lock_can_be_taken_again_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "out"
    for _ in range(3):
        with hold(folder):
            assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


def test_the_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        message = refusal(tmp_path)
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path))} is in use by process {process.pid} on {re.escape(socket.gethostname())} "
            r"\(since \d{4}-\d\d-\d\d \d\d:\d\d\); wait for it, or choose another output_dir",
            message,
        )
    with hold(tmp_path):
        pass


def test_two_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with hold(tmp_path):
        assert f"process {os.getpid()} on " in refusal(tmp_path)
        # The refused one must not have taken the lock from the first.
        assert f"process {os.getpid()} on " in refusal(tmp_path)


def test_a_lock_that_a_killed_process_left_is_free_at_once(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert f"process {process.pid} " in (tmp_path / LOCK_FILE).read_text()
        with hold(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / LOCK_FILE).read_text()
            assert str(process.pid) not in refusal(tmp_path)


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        pass


def test_workers_forked_by_the_holder_keep_no_lock_that_it_has_given_back(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with hold(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with hold(tmp_path):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_a_forked_process_that_ends_does_not_give_the_lock_back(tmp_path: Path) -> None:
    with (holding := hold(tmp_path)):
        child = os.fork()
        if child == 0:
            # As if it left the with statement.
            try:
                holding.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert f"process {os.getpid()} on " in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\xff" * 1000, b"process 1 on\nHOST", b"process 1 on x y (since now)", b"[" * 99])
def test_what_somebody_wrote_into_the_lock_file_is_not_repeated(tmp_path: Path, data: bytes) -> None:
    with another_process(tmp_path):
        (tmp_path / LOCK_FILE).write_bytes(data)
        assert refusal(tmp_path) == f"{tmp_path} is in use by another process; wait for it, or choose another output_dir"


def test_a_lock_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / LOCK_FILE
    file.symlink_to(tmp_path / "victim")
    assert refusal(tmp_path).startswith(f"{file} is a symbolic link")
    assert not (tmp_path / "victim").exists()
    file.unlink()
    file.mkdir()
    assert refusal(tmp_path) == f"{tmp_path} cannot be locked (Is a directory); choose another output_dir"
    file.rmdir()
    os.mkfifo(file)
    assert refusal(tmp_path).startswith(f"{file} is no regular file")


def test_a_place_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be locked (File exists)" in refusal(tmp_path / "file")
    assert "cannot be locked (Not a directory)" in refusal(tmp_path / "file" / "out")
    assert "cannot be locked (File name too long)" in refusal(tmp_path / ("a" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_or_a_lock_file_without_permission_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path):
        pass
    (tmp_path / LOCK_FILE).chmod(0)
    assert "cannot be locked (Permission denied)" in refusal(tmp_path)
    (tmp_path / "read-only").mkdir(mode=0o500)
    assert "cannot be locked (Permission denied)" in refusal(tmp_path / "read-only")


def test_a_full_disk_is_refused_and_with_space_it_works(tmp_path: Path) -> None:
    with disks.tiny(tmp_path / "disk") as disk:
        filler = disks.fill(disk)
        assert refusal(disk) == f"{disk} cannot be locked (No space left on device); choose another output_dir"
        filler.unlink()
        with hold(disk):
            pass
