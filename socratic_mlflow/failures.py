"""What a person reads of a failure while running: one line where it is known what to do, else the traceback, secrets out.

Standard library only.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

from socratic_mlflow.redaction import redact

# How safetensors and PyTorch say that a disk is full: their errors have no number.
_FULL = re.compile(
    r"no space left on device|os error 28|disk quota exceeded|PytorchStreamWriter failed|unexpected pos \d", re.I
)
_MEMORY = ("OutOfMemoryError", "MemoryError")


def report(error: BaseException) -> str:
    """`error` for a person: 'error: ...' of one line, or a traceback."""
    causes = list(_causes(error))
    if any(_is_full(cause) for cause in causes):
        return (
            f"error: the disk is full ({_line(causes[-1])}). The checkpoints before this one are whole: free some space "
            "and run the same command again, it goes on from there"
        )
    if out := next((cause for cause in causes if type(cause).__name__ in _MEMORY), None):
        return (
            f"error: out of memory ({_line(out)}). A smaller batch_size with more gradient_accumulation_steps, "
            "gradient_checkpointing=true, a smaller max_length or generation_batch_size need less"
        )
    if isinstance(error, ConnectionError):
        return f"error: {_line(error)}"
    return redact("".join(traceback.format_exception(error)).rstrip())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    # Causes that somebody has set can lead in a circle.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))


def _line(error: BaseException) -> str:
    return redact(" ".join(str(error).split()) or type(error).__name__)[:200]
