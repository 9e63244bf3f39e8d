"""Memory of this process and of its GPU, in GiB. Without a GPU the CUDA numbers are absent, not zero."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

GIB = 2**30


def memory_metrics() -> dict[str, float]:
    """{'rss_gib'} and, with a GPU, {'cuda_allocated_gib', 'cuda_reserved_gib', 'cuda_peak_gib'}, in GiB.

    rss: resident set of this process. allocated and reserved: tensors now, and what the allocator holds for them. peak:
    the most that was ever allocated since the process began.
    """
    import torch

    # By its id: a process that is forked off has a memory of its own.
    values = {"rss_gib": _resident(os.getpid())() / GIB}
    if torch.cuda.is_available():
        allocated, reserved = _allocator()
        values |= {
            "cuda_allocated_gib": allocated["current"] / GIB,
            "cuda_reserved_gib": reserved["current"] / GIB,
            "cuda_peak_gib": allocated["peak"] / GIB,
        }
    return values


@cache
def _resident(pid: int) -> Callable[[], int]:
    """What reads the resident set of this process, in bytes."""
    try:
        # Kept open: each call of the system's gives up the interpreter's lock, and psutil needs half a dozen.
        descriptor, page = os.open("/proc/self/statm", os.O_RDONLY), os.sysconf("SC_PAGE_SIZE")
        return lambda: int(os.pread(descriptor, 100, 0).split()[1]) * page
    except OSError:
        import psutil

        process = psutil.Process(pid)
        return lambda: int(process.memory_info().rss)


def _allocator() -> tuple[dict[str, int], dict[str, int]]:
    """Bytes allocated and reserved, each as {'current', 'peak'}, read at once: torch's functions for each of them gather
    all of the allocator's figures every time."""
    import torch

    found = torch.cuda.memory_stats_as_nested_dict()
    # Nothing has been put onto the GPU yet.
    none = {"all": {"current": 0, "peak": 0}}
    return found.get("allocated_bytes", none)["all"], found.get("reserved_bytes", none)["all"]
