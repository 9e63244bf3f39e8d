"""Ctrl-C while a reply is made: it ends after its next token; a second one interrupts at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
from transformers import StoppingCriteria


class StopOnInterrupt(StoppingCriteria):
    """While it is entered, the first Ctrl-C ends generations that have it among their criteria; see `asked`."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> StopOnInterrupt:
        self.asked = False
        before = signal.signal(signal.SIGINT, self._hear)
        # A second Ctrl-C can come while the first one's end puts things back.
        if before != self._hear:
            self._before = before
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(conversations,) of bool: which ones end here."""
        return torch.full((input_ids.shape[0],), self.asked, dtype=torch.bool, device=input_ids.device)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
