"""A command on a real pseudo-terminal, as a person starts it: with line editing, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE_S = 200
_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\x07")


class Terminal:
    """The running command; `shown` is all that appeared so far, without what steers the terminal."""

    def __init__(self, process: int, descriptor: int) -> None:
        self._process, self._descriptor = process, descriptor
        self._data = b""
        self._read = 0

    @property
    def shown(self) -> str:
        """All that appeared."""
        return _STEERING.sub("", self._data.decode("utf-8", "replace"))

    def until(self, text: str) -> str:
        """Wait until `text` appears behind what was waited for before; returns what appeared in between."""
        deadline = time.monotonic() + _PATIENCE_S
        while text not in self.shown[self._read :]:
            assert time.monotonic() < deadline and self._more(), f"never shown: {text!r} in {self.shown[self._read :]!r}"
        before = self.shown[self._read :].partition(text)[0]
        self._read += len(before) + len(text)
        return before

    def press(self, key: str, text: str) -> None:
        """Press `key`, and again every two seconds as a person would, until `text` appears; then wait for its end.

        Just behind a reply Linux may give Ctrl-C to a thread of torch's that still looks for work: Python keeps it in mind,
        but its wait for input goes on until another signal or key.
        """
        deadline, again = time.monotonic() + _PATIENCE_S, 0.0
        while text not in self.shown[self._read :] and time.monotonic() < deadline:
            if time.monotonic() >= again:
                self.type(key)
                again = time.monotonic() + 2
            if select.select([self._descriptor], [], [], 0.1)[0] and not self._more():
                break
        self.until(text)

    def type(self, text: str) -> None:
        """Type `text`; '\\x03' is Ctrl-C, '\\x04' Ctrl-D, and '\\udcff' the byte 255."""
        os.write(self._descriptor, text.encode(errors="surrogateescape"))

    def exit_code(self) -> int:
        """Wait for the end; a signal counts as 128 and its number."""
        while self._more():
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        self._process = 0
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """End the command, if it still runs."""
        if self._process:
            os.kill(self._process, 9)
            os.waitpid(self._process, 0)
        os.close(self._descriptor)

    def _more(self) -> bool:
        if not select.select([self._descriptor], [], [], _PATIENCE_S)[0]:
            return False
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # Linux says so where the other end is closed.
            return False
        self._data += data
        return bool(data)


@contextmanager
def running(arguments: Sequence[str], folder: Path) -> Iterator[Terminal]:
    """`socratic-mlflow` with `arguments` in `folder`, on a terminal of its own."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "TERM": "xterm", "INPUTRC": os.devnull}
    # As in a language's own locale: C.UTF-8 alone would let bytes through that are no text.
    environment |= {"PYTHONIOENCODING": "utf-8:strict"}
    program = [sys.executable, "-m", "socratic_mlflow", *arguments]
    process, descriptor = pty.fork()
    if process == 0:
        # Tests that run in the background are started with Ctrl-C ignored, and so would this be.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir(folder)
        os.execve(sys.executable, program, environment)
    terminal = Terminal(process, descriptor)
    try:
        yield terminal
    finally:
        terminal.close()
