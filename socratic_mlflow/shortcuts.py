"""Which shortcuts a base allows: tried on the base itself, so that no architecture is trained wrongly by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from socratic_mlflow.packing import Features, Packed, Padded
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.tokens import IGNORED

Collator = Callable[[Sequence[Features]], dict[str, torch.Tensor]]

# Relative difference of a dialogue's logits: rounding makes less than a millionth in float32, and about 0.01 in 16 bits.
_TOLERANCE, _TOLERANCE_IN_16_BITS = 1e-4, 0.05
# In tokens: the second and third share a row behind one another, and a stretch of padding follows them.
_LENGTHS = (24, 16, 5)


def has_known_head(causal: Any) -> bool:
    """Whether `ReplyLoss` computes the logits that `causal` itself does (some bases scale theirs, say)."""
    return _same(causal, Padded(0), Padded(0), split_head=True)


def can_pack(causal: Any, packed: Packed) -> bool:
    """Whether dialogues get the logits in a packed row that they get in rows of their own."""
    return _same(causal, packed, Padded(0), split_head=False)


def _same(causal: Any, ours: Collator, own: Collator, split_head: bool) -> bool:
    """Whether each dialogue's logits are the same; not, where the base cannot compute `ours` at all."""
    try:
        found = _logits(ReplyLoss(causal, split_head), causal, ours)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # whatever an architecture, or its own code, makes of arguments that it does not know
        return False
    wanted = _logits(ReplyLoss(causal, split_head=False), causal, own)
    tolerance = _TOLERANCE_IN_16_BITS if _has_16_bits(causal) else _TOLERANCE
    return all(_near(a, b, tolerance) for a, b in zip(found, wanted, strict=True))


def _has_16_bits(causal: Any) -> bool:
    kinds = {weight.dtype for weight in causal.parameters()}
    # What bitsandbytes computes in is not what it stores.
    kinds |= {getattr(module, "compute_dtype", None) for module in causal.modules()}
    return causal.device.type == "cuda" or not kinds.isdisjoint({torch.bfloat16, torch.float16})


def _near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    # Around each position's mean: what all words have in common changes no probability, and would hide a difference.
    a, b = (logits - logits.mean(dim=-1, keepdim=True) for logits in (a, b))
    return a.shape == b.shape and bool(torch.dist(a, b) <= tolerance * torch.linalg.vector_norm(b))


def _logits(loss: ReplyLoss, causal: Any, collate: Collator) -> list[torch.Tensor]:
    """Those of a few made-up dialogues, each (positions, vocabulary)."""
    inputs = {name: cells.to(causal.device) for name, cells in collate(_dialogues()).items()}
    with _trying(causal):
        logits = loss.logits(loss.states(causal, inputs)[0])
    return list(logits.split([length - 1 for length in _LENGTHS]))


def _dialogues() -> list[Features]:
    """Any tokens do, as long as the dialogues differ."""
    ids = [[number + 3 * length for number in range(length)] for length in _LENGTHS]
    return [{"input_ids": tokens, "labels": [IGNORED, *tokens[1:]]} for tokens in ids]


@contextmanager
def _trying(causal: Any) -> Iterator[None]:
    """Without dropout and gradients; on a GPU in half precision, without which flash attention does not run."""
    training, device = causal.training, causal.device.type
    causal.eval()
    try:
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            yield
    finally:
        causal.train(training)
