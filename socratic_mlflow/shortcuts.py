"""Which shortcuts a base allows: tried on the base itself, so that no architecture is trained wrongly by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from socratic_mlflow.packing import Features, Packed, Padded
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.tokens import IGNORED

# Relative difference of logits: bfloat16 makes about 0.01, another formula or another dialogue's words far more.
_TOLERANCE = 0.05
# In tokens; the last two share a row.
_LENGTHS = (9, 5, 4)


def has_known_head(causal: Any) -> bool:
    """Whether `ReplyLoss` computes the logits that `causal` itself does (some bases scale theirs, say)."""
    split, whole = ReplyLoss(causal), ReplyLoss(causal, split_head=False)
    try:
        return _same(_logits(split, causal, Padded(0)), _logits(whole, causal, Padded(0)))
    except (TypeError, AttributeError):
        # Not every architecture has logits_to_keep, or a decoder to be found.
        return False


def can_pack(causal: Any, packed: Packed) -> bool:
    """Whether dialogues get the logits in a packed row that they get in rows of their own."""
    whole = ReplyLoss(causal, split_head=False)
    try:
        return _same(_logits(whole, causal, packed), _logits(whole, causal, Padded(0)))
    except TypeError:
        # It knows no position_ids.
        return False


def _logits(loss: ReplyLoss, causal: Any, collate: Callable[[Sequence[Features]], dict[str, torch.Tensor]]) -> torch.Tensor:
    """Those of a few made-up dialogues, (positions, vocabulary)."""
    inputs = {name: cells.to(causal.device) for name, cells in collate(_dialogues()).items()}
    with _trying(causal):
        return loss.logits(loss.states(causal, inputs)[0])


def _dialogues() -> list[Features]:
    """Any tokens do, as long as the dialogues differ."""
    ids = [[number + 3 * length for number in range(length)] for length in _LENGTHS]
    return [{"input_ids": tokens, "labels": [IGNORED, *tokens[1:]]} for tokens in ids]


@contextmanager
def _trying(causal: Any) -> Iterator[None]:
    """Without dropout and gradients, in the dtype in which it is trained."""
    training, device = causal.training, causal.device.type
    causal.eval()
    try:
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            yield
    finally:
        causal.train(training)


def _same(ours: torch.Tensor, own: torch.Tensor) -> bool:
    return ours.shape == own.shape and bool(torch.dist(ours, own) <= _TOLERANCE * torch.linalg.vector_norm(own))
