"""Memory of this process and of its GPU, in GiB. Without a GPU the CUDA numbers are absent, not zero."""

from __future__ import annotations

GIB = 2**30


def memory_metrics() -> dict[str, float]:
    """{'rss_gib'} and, with a GPU, {'cuda_allocated_gib', 'cuda_reserved_gib', 'cuda_peak_gib'}, in GiB.

    rss: resident set of this process. allocated and reserved: tensors now, and what the allocator holds for them. peak:
    the most that was ever allocated since the process began.
    """
    import psutil
    import torch

    values = {"rss_gib": psutil.Process().memory_info().rss / GIB}
    if torch.cuda.is_available():
        values |= {
            "cuda_allocated_gib": torch.cuda.memory_allocated() / GIB,
            "cuda_reserved_gib": torch.cuda.memory_reserved() / GIB,
            "cuda_peak_gib": torch.cuda.max_memory_allocated() / GIB,
        }
    return values
