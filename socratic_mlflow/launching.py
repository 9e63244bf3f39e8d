"""Several processes for one training: the first one, which a person has started, starts the others on this machine.

They are the same command; what they are to do they hear from the first one, which alone checks, writes, logs and speaks.
`accelerate launch` and `torchrun` can start them as well, on several machines too: they set RANK and WORLD_SIZE. Neither is
what this project starts by itself: without GPUs accelerate starts several processes by way of MPI only, and torchrun kills
all of them 30 seconds after a SIGTERM, in the middle of a step or a checkpoint.
"""

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

# The file by which processes on one machine find each other, in a folder of this user's own: no port is open for that.
_MEETING = "SOCRATIC_MLFLOW_MEETING"
# How long the slowest process may be behind the others. One that has died is noticed at once, not by this.
_PATIENCE = timedelta(hours=2)
# Gloo tells the others when a process has died; with NCCL they would wait for it.
_NOTICED_WITHIN_S = 30.0
_LAST_WORDS_BYTES = 1 << 16


def launched() -> int:
    """How many processes somebody's launcher has started for this training; 1 without a launcher.

    ValueError (one line) where the launcher has not numbered them.
    """
    size, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "")
    if not size.isdecimal() or int(size) < 2:
        return 1
    if not rank.isdecimal() or int(rank) >= int(size):
        raise ValueError(f"WORLD_SIZE is {size}, but RANK is {rank!r}; start it by accelerate launch or torchrun")
    return int(size)


def is_first() -> bool:
    """Whether this is the process that decides, or the only one."""
    return launched() == 1 or int(os.environ["RANK"]) == 0


class Companions:
    """The other processes of this training, as the first one sees them; none where it trains alone."""

    def __init__(self) -> None:
        self._size, self._joined, self._over = 1, False, False
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._words: dict[int, IO[bytes]] = {}
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
        with _meeting_place() as meeting:
            try:
                if not self._untold:
                    self._start(meeting, settings)
                with self._explained():
                    self._tell(task)
                yield
                self._wait_for_their_end()
            finally:
                self._over = True
                self._end()

    @contextmanager
    def training(self) -> Iterator[None]:
        """What needs the others; at its end they may go."""
        with self._explained():
            yield
        self._over = True
        leave()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """ConnectionError (one line) in place of what is raised where one of the others has died or failed."""
        try:
            yield
        except BaseException as error:
            self._over = True
            if isinstance(error, Exception) and (lost := self._lost()):
                raise ConnectionError(lost) from error
            raise

    def dismiss(self) -> None:
        """Tell processes that still wait that there is nothing to do."""
        if self._untold:
            self._tell(None)
            leave()

    def _start(self, meeting: Path, settings: Mapping[str, str]) -> None:
        own = {"WORLD_SIZE": str(self._size), "LOCAL_WORLD_SIZE": str(self._size), _MEETING: str(meeting)}
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
        """End this process where it does not notice by itself that the process `rank` has died."""
        if not self._started[rank].wait():
            return
        time.sleep(_NOTICED_WITHIN_S if self._joined else 0)
        if not self._over:
            print(f"socratic-mlflow: error: {self._lost()}", file=sys.stderr, flush=True)
            self._end()
            os._exit(1)

    def _lost(self) -> str:
        """Which process has died and why, in one line; '' where none has, so that what happened has another cause."""
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            for rank, process in self._started.items():
                if code := process.poll():
                    how = _fate(code, self._words[rank])
                    return f"process {rank + 1} of {self._size} {how}; the same command goes on from the last checkpoint"
            time.sleep(0.05)
        return ""

    def _wait_for_their_end(self) -> None:
        for process in self._started.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def _end(self) -> None:
        for process in self._started.values():
            process.kill()
            process.wait()


def join() -> None:
    """Meet the other processes; returns when all have come."""
    import torch.distributed as dist
    from torch import cuda, set_num_threads

    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        set_num_threads(int(threads))
    size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
    if meeting := os.environ.get(_MEETING):
        store = dist.FileStore(meeting, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    else:
        dist.init_process_group(backend, timeout=_PATIENCE)


def leave() -> None:
    """What follows, each process does alone."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def check(processes: int, batch_size: int, accumulation: int) -> None:
    """Raise ValueError (one line) where so many processes cannot train together on this machine, or with these batches."""
    if launched() > 1 and processes != launched():
        raise ValueError(f"num_processes is {processes}, but this was launched as {launched()} processes; leave it out")
    if processes == 1:
        return
    from torch import cuda

    from socratic_mlflow.ranks import split_batch

    split_batch(batch_size, accumulation, processes)
    if launched() == 1 and cuda.is_available() and processes > cuda.device_count():
        raise ValueError(f"num_processes is {processes}, but this machine has {cuda.device_count()} GPU(s); give as many")


def accelerate_settings(file: str, processes: int) -> dict[str, str]:
    """The environment variables by which `accelerate launch --config_file FILE` tells its processes how to train.

    ValueError (one line) where accelerate cannot use the file.
    """
    from accelerate.commands.launch import (  # type: ignore[import-untyped]
        _validate_launch_command,
        launch_command_parser,
    )
    from accelerate.utils.launch import prepare_multi_gpu_env  # type: ignore[import-untyped]

    given = [f"--config_file={file}", f"--num_processes={processes}", "--main_process_port=0", "train"]
    try:
        args, *_ = _validate_launch_command(launch_command_parser().parse_args(given))
        found = prepare_multi_gpu_env(args)
    # Whatever reading and understanding the file raised.
    except Exception as error:
        raise ValueError(f"accelerate_config {file}: {' '.join(str(error).split())[:300]}") from None
    return {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def attend() -> None:
    """Be one of the other processes: silent, deaf to Ctrl-C, which the first one hears, and gone when that one is."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _see_own_gpu()
    if _MEETING in os.environ:
        threading.Thread(target=_end_with_the_first, daemon=True).start()


def _see_own_gpu() -> None:
    """Of the GPUs in sight, each process gets one; without GPUs, or where they are hidden, this has no effect."""
    number = int(os.environ.get("LOCAL_RANK") or os.environ["RANK"])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(each) for each in range(number + 1)] if seen is None else seen.split(",")
    if number < len(names):
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number]


def _end_with_the_first() -> None:
    # Not sys.stdin, whose lock would be in the way of this process' own end.
    while os.read(0, 1):
        pass
    os._exit(1)


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
