"""What the processes of one training know of each other, and how they agree. One process alone agrees with itself.

Knows nothing of who started them (`launching.py`, `companions.py`) nor of what they train.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")
Made = TypeVar("Made")


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0; the first one alone writes, logs and speaks."""
    return dist.get_rank() if count() > 1 else 0


def are_weights_divided() -> bool:
    """Whether the model's weights lie in pieces in the processes (FSDP), and not whole in each."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "") == "true"


def from_first(value: Made) -> Made:
    """The first process' `value`, in all of them."""
    if count() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[no-any-return]


def first_says(value: bool) -> bool:
    """The first process' `value`, in all of them; cheap enough for every step."""
    if count() == 1:
        return value
    flag = torch.tensor([value])
    dist.broadcast(flag, src=0)
    return bool(flag)


def wait() -> None:
    """Return once all processes have come here."""
    # Not dist.barrier, which with NCCL as a backend goes by way of the GPUs.
    first_says(False)


def spread(items: Sequence[Item], work: Callable[[Sequence[Item]], list[Made]]) -> list[Made]:
    """`work(items)` (one result for each), of which each process does a share; all get everything, in order.

    `work` runs the model. Where each process has only a part of its weights, all make every pass together.
    """
    if count() == 1 or are_weights_divided():
        return work(items)
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, work(items[rank() :: count()]))
    return [parts[index % count()][index // count()] for index in range(len(items))]


def split_batch(batch_size: int, accumulation: int, processes: int) -> tuple[int, int]:
    """(dialogues in one forward pass, forward passes to one step) of each of so many `processes`, so that an optimizer step
    sees as many dialogues as with one; ValueError (one line) where they cannot be divided equally."""
    fewer_passes = math.gcd(accumulation, processes)
    smaller = processes // fewer_passes
    if batch_size % smaller:
        raise ValueError(
            f"num_processes {processes} does not divide batch_size {batch_size} x gradient_accumulation_steps "
            f"{accumulation}, the dialogues of one optimizer step; change one of the three"
        )
    return batch_size // smaller, accumulation // fewer_passes
