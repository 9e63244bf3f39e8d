"""The other processes of a training, as the first one, which a person has started, starts, watches and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from socratic_mlflow.launching import MEETING, join, launched, leave, remove

# Gloo tells the others when a process has died, once they have something to say to it; with NCCL they would wait for it.
_NOTICED_WITHIN_S = 30.0
# How long the first process, told that another has died, may take to stop; it cannot while it waits within NCCL.
_STOPS_WITHIN_S = 10.0
# How long after its connections a process that has died may be seen to have ended, on a busy machine.
_DIES_WITHIN_S = 10.0
# By it the first process tells itself: one that nobody else sends, and that does nothing where nobody listens.
_TOLD = signal.SIGURG
_LAST_WORDS_BYTES = 1 << 16


class Lost(BaseException):
    """Another process has died (one line says which). Like KeyboardInterrupt, it comes at any moment, and nothing but the
    training as a whole has an answer to it."""


class Companions:
    """The other processes of this training, as the first one sees them; none where it trains alone."""

    def __init__(self) -> None:
        self._size, self._joined, self._told = 1, False, False
        self._over, self._giving_up = threading.Event(), threading.Lock()
        self._give_up: Callable[[ConnectionError], None] = lambda error: None
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._words: dict[int, IO[bytes]] = {}
        # In the order in which they died: the first one's end may be what the others ended by.
        self._dead: list[int] = []
        # Processes that somebody else has started wait until they are told something.
        self._untold = launched() > 1

    @contextmanager
    def together(self, size: int, settings: Mapping[str, str], task: Any) -> Iterator[None]:
        """While it is entered, this is one of `size` processes, and the others have got `task`; at its end they are gone.

        `settings` are environment variables of all that it starts.
        """
        self._size = size
        if size == 1:
            yield
            return
        with _meeting_place() as meeting, self._listening():
            try:
                if not self._untold:
                    self._start(meeting, settings)
                with self._explained():
                    self._tell(task)
                yield
                self._wait_for_their_end()
            except Lost as lost:
                raise ConnectionError(str(lost)) from None
            finally:
                self._over.set()
                self._end()

    @contextmanager
    def training(self, give_up: Callable[[ConnectionError], None]) -> Iterator[None]:
        """What needs the others; at its end they may go.

        `give_up` is called, from another thread, before this process ends because it waits forever for one that has died.
        """
        self._give_up = give_up
        with self._explained():
            yield
        self._over.set()
        leave()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While it is entered, `_TOLD` stops what this process does with `Lost`, once."""

        def hear(number: int, frame: FrameType | None) -> None:
            if not self._told and not self._over.is_set() and (lost := self._lost(0)):
                self._told = True
                raise Lost(lost)

        before = signal.signal(_TOLD, hear)
        try:
            yield
        finally:
            signal.signal(_TOLD, before)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """ConnectionError (one line) in place of what is raised where one of the others has died or failed."""
        try:
            yield
        except BaseException as error:
            self._over.set()
            # What a broken connection is told by may be older than the death that broke it.
            within_s = _DIES_WITHIN_S if isinstance(error, RuntimeError) else 1
            if isinstance(error, Exception | Lost) and (lost := self._lost(within_s)):
                raise ConnectionError(lost) from error
            raise

    def dismiss(self) -> None:
        """Tell processes that still wait that there is nothing to do."""
        if self._untold:
            self._tell(None)
            leave()

    def _start(self, meeting: Path, settings: Mapping[str, str]) -> None:
        own = {"WORLD_SIZE": str(self._size), "LOCAL_WORLD_SIZE": str(self._size), MEETING: str(meeting)}
        unless_set = {"OMP_NUM_THREADS": _threads(self._size), "GLOO_SOCKET_IFNAME": _loopback()}
        os.environ.update(unless_set | dict(os.environ) | dict(settings) | own | _numbered(0))
        for rank in range(1, self._size):
            self._words[rank] = tempfile.TemporaryFile()  # noqa: SIM115
            self._started[rank] = subprocess.Popen(
                [sys.executable, "-m", "socratic_mlflow", "train"],
                env=os.environ | _numbered(rank),
                # It ends when this closes, however this process ends.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._words[rank],
            )
            threading.Thread(target=self._watch, args=[rank], daemon=True).start()

    def _tell(self, task: Any) -> None:
        from socratic_mlflow import ranks

        join()
        self._joined, self._untold = True, False
        ranks.from_first(task)

    def _watch(self, rank: int) -> None:
        """Stop this process where it does not notice by itself that the process `rank` has died."""
        if not self._started[rank].wait():
            return
        self._dead.append(rank)
        if self._joined and not self._over.wait(_NOTICED_WITHIN_S):
            # It computes alone, evaluates say, and may do so for hours.
            signal.pthread_kill(threading.main_thread().ident or 0, _TOLD)
            self._over.wait(_STOPS_WITHIN_S)
        with self._giving_up:
            if not self._over.is_set():
                self._end_unheard(self._lost(1))

    def _end_unheard(self, lost: str) -> None:
        """End this process, which waits and hears nothing."""
        try:
            self._end()
            self._give_up(ConnectionError(lost))
            remove(Path(os.environ[MEETING]))
        finally:
            print(f"socratic-mlflow: error: {lost}", file=sys.stderr, flush=True)
            os._exit(1)

    def _lost(self, within_s: float) -> str:
        """Which process has died and why, in one line; '' where none does in that time: what happened has another cause."""
        deadline = time.monotonic() + within_s
        while self._started and not self._dead and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self._dead:
            return ""
        rank = self._dead[0]
        how = _fate(self._started[rank].returncode, self._words[rank])
        return f"process {rank + 1} of {self._size} {how}; the same command goes on from the last checkpoint"

    def _wait_for_their_end(self) -> None:
        for process in self._started.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def _end(self) -> None:
        for process in self._started.values():
            process.kill()
            process.wait()


@contextmanager
def _meeting_place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="socratic-mlflow-", ignore_cleanup_errors=True) as folder:
        before = dict(os.environ)
        try:
            yield Path(folder) / "meeting"
        finally:
            os.environ.clear()
            os.environ.update(before)


def _numbered(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _threads(size: int) -> str:
    import torch

    return str(max(1, torch.get_num_threads() // size))


def _loopback() -> str:
    """The network interface of 127.0.0.1: what the processes say to each other stays on this machine."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(found.family == socket.AF_INET and found.address == "127.0.0.1" for found in addresses):
            return name
    return "lo"


def _fate(code: int, words: IO[bytes]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed ({name})"
    words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
    lines = words.read().decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].removeprefix("socratic-mlflow: error: ")[:300] if lines else f"exit code {code}"
    return f"failed ({last})"
