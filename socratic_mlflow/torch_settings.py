"""Environment variables that torch reads when it is loaded. What a person has set stays. Standard library only."""

from __future__ import annotations

import os

_SETTINGS = {
    # Linux then backs large tensors with pages of 2 MiB. Logits over a large vocabulary are made and dropped at every step,
    # and with pages of 4 KiB the kernel's work on them takes as long as the arithmetic (benchmarks/training_step.py).
    "THP_MEM_ALLOC_ENABLE": "1",
}


def apply() -> None:
    """Set what is not set yet; without effect in a process that has loaded torch already."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
