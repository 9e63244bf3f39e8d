"""A forward pass -> loss and most likely tokens, of the reply tokens only and a chunk of them at a time.

A vocabulary of 256,000 words makes one position's logits a megabyte in float32: neither prompts nor padding get any, and no
more than LOGITS_AT_ONCE exist at a time. What is computed is the causal language-model loss of transformers. An evaluation,
which needs no gradient, takes the vocabulary in parts as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

from socratic_mlflow.tokens import IGNORED

# Logits in one chunk, whatever the vocabulary: 128 MiB in float32, of which the loss and its gradient take about three.
LOGITS_AT_ONCE = 2**25
# The same where nothing is learned from them, and the most positions in one part.
LOGITS_AT_ONCE_EVALUATED = 2**21
_POSITIONS_EVALUATED = 2048

Head = Callable[[torch.Tensor], torch.Tensor]


class ReplyLoss:
    """Loss and predictions of `causal`, a causal language model whose vocabulary's weights may be trained or not.

    `split_head` runs the decoder on all positions and the head on those of replies. Without it, for a head that does more
    than is known here (`shortcuts.has_known_head`), the model computes all logits itself.
    """

    def __init__(self, causal: Any, split_head: bool = True) -> None:
        self._causal, self._split_head = causal, split_head
        self._output = causal.get_output_embeddings()
        # A model of images and text as well keeps its settings of text one level deeper.
        config = causal.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        # Quantized weights have another shape.
        self._vocabulary = getattr(self._output, "out_features", self._output.weight.shape[0])
        # Rows of its weights are words, where they are not quantized, have no LoRA and do not wait elsewhere for their use.
        hooked = hasattr(self._output, "_hf_hook") or self._output._forward_hooks
        plain = type(self._output) is torch.nn.Linear and not hooked
        self._can_cut = split_head and plain

    def states(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden states, the tokens that follow them) of the n reply tokens in `inputs`, of shapes (n, width) and (n,).

        `model` is `causal` or a wrapper around it, through which the forward pass goes. Without `split_head` the states
        are the logits.
        """
        passed = {name: value for name, value in inputs.items() if name != "labels"}
        found = self._decoded(model, passed) if self._split_head else model(**passed, use_cache=False).logits
        following = inputs["labels"][:, 1:]
        wanted = following != IGNORED
        return found[:, :-1][wanted], following[wanted]

    def _decoded(self, model: Any, passed: Mapping[str, torch.Tensor]) -> torch.Tensor:
        caught: list[torch.Tensor] = []
        hook = self._causal.get_decoder().register_forward_hook(lambda module, args, output: caught.append(output[0]))
        nowhere = torch.empty(0, dtype=torch.int64, device=passed["input_ids"].device)
        try:
            model(**passed, logits_to_keep=nowhere, use_cache=False)
        finally:
            hook.remove()
        return caught[0]

    def logits(self, states: torch.Tensor, words: slice | None = None) -> torch.Tensor:
        """Logits (n, vocabulary), or of `words` only, in float32 at least, with the soft-capping that Gemma-2 has."""
        capped, factor = self._capped(states, self.head(words))
        return _at_least_float32(capped * factor)

    def _capped(self, states: torch.Tensor, head: Head) -> tuple[torch.Tensor, float]:
        """(a tensor, a factor): their product is the logits. In place: of so large a tensor each copy takes its time."""
        if not self._split_head:
            return states, 1.0
        if self._cap is None:
            return head(states), 1.0
        # The few states are divided, not the many logits: a head with soft-capping has no bias.
        return head(states / self._cap).tanh_(), self._cap

    def head(self, words: slice | None = None) -> Head:
        """states -> logits of all words, or of `words` where the head can be cut, for several chunks of states.

        Autocast would cast weights that are not trained for each chunk anew.
        """
        is_trained = any(weight.requires_grad for weight in self._output.parameters())
        if not self._can_cut or (words is None and is_trained):
            return self._output  # type: ignore[no-any-return]
        weight, bias, part = self._output.weight, self._output.bias, words or slice(None)
        return partial(linear, weight=_as_autocast(weight[part]), bias=None if bias is None else _as_autocast(bias[part]))

    def summed(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of `targets` (n,) given `states`, summed (nats).

        The gradient is computed along with it, chunk by chunk: no chunk's logits outlive it, and none are made twice.
        """
        weights = [weight for weight in self._output.parameters() if weight.requires_grad] if self._split_head else []
        return _Summed.apply(self, targets, states, *weights)

    @torch.no_grad()
    def evaluated(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the cross-entropy of `targets` (n,) given `states`, summed (nats); the most likely tokens (n,)), in one pass.

        No more than LOGITS_AT_ONCE_EVALUATED logits are made at once, or one position's of a head that cannot be cut.
        """
        at_once = _POSITIONS_EVALUATED if self._can_cut else LOGITS_AT_ONCE_EVALUATED // self._vocabulary
        found = [self._evaluated(states[part], targets[part]) for part in _equal(len(states), at_once)]
        if not found:
            return states.new_zeros(()), targets
        losses, tokens = zip(*found, strict=True)
        return torch.stack(losses).sum(), torch.cat(tokens)

    def _evaluated(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `evaluated` returns, of few positions: part of the vocabulary by part, the log-sum-exp carried along."""
        own = states.new_zeros(len(states), dtype=torch.promote_types(states.dtype, torch.float32))
        largest = summed = torch.full_like(own, -math.inf)
        tokens = torch.zeros_like(targets)
        for words in self._parts_of_vocabulary(len(states)):
            logits = self.logits(states, words)
            found, where = logits.max(dim=-1)
            tokens = torch.where(found > largest, where + words.start, tokens)
            largest = torch.maximum(largest, found)
            here = (targets >= words.start) & (targets < words.stop)
            behind = (targets - words.start).clamp(0, logits.shape[1] - 1)
            own = torch.where(here, logits.gather(1, behind[:, None])[:, 0], own)
            summed = torch.logaddexp(summed, logits.logsumexp(dim=-1))
            # Not beside those of the next part.
            del logits
        return (summed - own).sum(), tokens

    def _parts_of_vocabulary(self, positions: int) -> Iterable[slice]:
        if self._can_cut:
            return _equal(self._vocabulary, LOGITS_AT_ONCE_EVALUATED // positions)
        return [slice(0, sys.maxsize)]

    def chunks(self, positions: int) -> Iterator[slice]:
        """Slices of `positions`, of equal size, with at most LOGITS_AT_ONCE logits each, and at least one position."""
        return _equal(positions, LOGITS_AT_ONCE // self._vocabulary)

    def gradient(
        self, states: torch.Tensor, targets: torch.Tensor, sources: Sequence[torch.Tensor], head: Head
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(summed cross-entropy of one chunk, its gradient by each of `sources`: `states` or weights of `head`).

        The gradient by the logits is softmax less one at the target; from there on torch differentiates.
        """
        with torch.set_grad_enabled(bool(sources)):
            capped, factor = self._capped(states, head)
        logits = capped.detach() if factor == 1 else capped.detach() * factor
        chances = torch.log_softmax(_at_least_float32(logits), dim=-1)
        del logits
        summed = -chances.gather(1, targets[:, None]).sum()
        if not sources:
            return summed, ()
        chances.exp_().scatter_add_(1, targets[:, None], torch.full_like(chances[:, :1], -1))
        above = chances.mul_(factor).to(capped.dtype)
        return summed, torch.autograd.grad(capped, sources, above)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: ReplyLoss, targets: torch.Tensor, states: torch.Tensor, *weights: Any) -> torch.Tensor:
        total = states.new_zeros((), dtype=torch.promote_types(states.dtype, torch.float32))
        ctx.of = [tensor.requires_grad for tensor in (states, *weights)]
        gradients = [torch.zeros_like(tensor) for tensor in (states, *weights) if tensor.requires_grad]
        head = loss.head()
        for part in loss.chunks(len(states)):
            leaf = states[part].detach().requires_grad_(states.requires_grad)
            sources = [tensor for tensor in (leaf, *weights) if tensor.requires_grad]
            summed, found = loss.gradient(leaf, targets[part], sources, head)
            total += summed
            for whole, source, gradient in zip(gradients, sources, found, strict=True):
                # A weight has one from every chunk, the states from one each.
                (whole[part] if source is leaf else whole).add_(gradient)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[Any, ...]:
        gradients = iter(ctx.saved_tensors)
        return None, None, *(next(gradients) * above if wanted else None for wanted in ctx.of)


def _equal(count: int, at_once: int) -> Iterator[slice]:
    """Slices of `count` things, of equal size, with at most `at_once` each, and at least one."""
    parts = math.ceil(count / max(1, at_once))
    for number in range(parts):
        yield slice(number * count // parts, (number + 1) * count // parts)


def _as_autocast(weight: torch.Tensor) -> torch.Tensor:
    kind = weight.device.type
    return weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weight


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
