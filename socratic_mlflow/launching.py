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
import sys
import threading
from datetime import timedelta
from pathlib import Path

from socratic_mlflow.accelerate_file import check_divisible

# The file by which processes on one machine find each other, in a folder of this user's own: no port is open for that.
MEETING = "SOCRATIC_MLFLOW_MEETING"
# How long the slowest process may be behind the others. One that has died is noticed at once, not by this.
_PATIENCE = timedelta(hours=2)


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


def join() -> None:
    """Meet the other processes; returns when all have come."""
    import torch.distributed as dist
    from torch import cuda, set_num_threads

    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        set_num_threads(int(threads))
    size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
    if meeting := os.environ.get(MEETING):
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
    check_divisible(os.environ, "ACCELERATE_USE_FSDP")
    if launched() == 1 and cuda.is_available() and processes > cuda.device_count():
        raise ValueError(f"num_processes is {processes}, but this machine has {cuda.device_count()} GPU(s); give as many")


def attend() -> None:
    """Be one of the other processes: silent, deaf to Ctrl-C, which the first one hears, and gone when that one is."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _see_own_gpu()
    if MEETING in os.environ:
        threading.Thread(target=_end_with_the_first, daemon=True).start()


def _see_own_gpu() -> None:
    """Of the GPUs in sight, each process gets one; without GPUs, or where they are hidden, this has no effect.

    That one is the first and only GPU then, and LOCAL_RANK is what accelerate and PyTorch take for its number.
    """
    number = int(os.environ.get("LOCAL_RANK") or os.environ["RANK"])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(each) for each in range(number + 1)] if seen is None else seen.split(",")
    if number < len(names):
        os.environ |= {"CUDA_VISIBLE_DEVICES": names[number], "LOCAL_RANK": "0"}


def _end_with_the_first() -> None:
    # Not sys.stdin, whose lock would be in the way of this process' own end.
    while os.read(0, 1):
        pass
    remove(Path(os.environ[MEETING]))
    os._exit(1)


def remove(meeting: Path) -> None:
    """What `_meeting_place` made, where that cannot do it any more."""
    with contextlib.suppress(OSError):
        meeting.unlink(missing_ok=True)
        meeting.parent.rmdir()
