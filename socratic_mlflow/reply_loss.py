"""A forward pass -> loss and most likely tokens, of the reply tokens only and a chunk of them at a time.

A vocabulary of 256,000 words makes one position's logits a megabyte in float32: neither prompts nor padding get any, and no
more than LOGITS_AT_ONCE exist at a time. What is computed is the causal language-model loss of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from socratic_mlflow.tokens import IGNORED

# Logits in one chunk, whatever the vocabulary: 128 MiB in float32, of which the loss and its gradient take about three.
LOGITS_AT_ONCE = 2**25
# The same where nothing is learned from them: an evaluation must not need more memory than a training step.
LOGITS_AT_ONCE_EVALUATED = 2**23


class ReplyLoss:
    """Loss and predictions of `causal`, a causal language model whose vocabulary's weights may be trained or not.

    `split_head` runs the decoder on all positions and the head on those of replies. Without it, for a head that does more
    than is known here (`shortcuts.has_known_head`), the model computes all logits itself.
    """

    def __init__(self, causal: Any, split_head: bool = True) -> None:
        self._causal, self._split_head = causal, split_head
        self._output = causal.get_output_embeddings()
        self._cap = getattr(causal.config, "final_logit_softcapping", None)
        self._vocabulary = self._output.weight.shape[0]

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

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (n, vocabulary) in float32 at least, with Gemma-2's soft-capping where the base has it."""
        capped, factor = self._capped(states)
        return _at_least_float32(capped * factor)

    def _capped(self, states: torch.Tensor) -> tuple[torch.Tensor, float]:
        """(a tensor, a factor): their product is the logits. In place: of so large a tensor each copy takes its time."""
        if not self._split_head:
            return states, 1.0
        if self._cap is None:
            return self._output(states), 1.0
        # The few states are divided, not the many logits: a head with soft-capping has no bias.
        return self._output(states / self._cap).tanh_(), self._cap

    def summed(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of `targets` (n,) given `states`, summed (nats).

        The gradient is computed along with it, chunk by chunk: no chunk's logits outlive it, and none are made twice.
        """
        weights = [weight for weight in self._output.parameters() if weight.requires_grad] if self._split_head else []
        return _Summed.apply(self, targets, states, *weights)

    def predicted(self, states: torch.Tensor) -> torch.Tensor:
        """The most likely tokens (n,)."""
        parts = self.chunks(len(states), LOGITS_AT_ONCE_EVALUATED)
        found = [self.logits(states[part]).argmax(dim=-1) for part in parts]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=states.device)

    def chunks(self, positions: int, logits: int) -> Iterator[slice]:
        """Slices of `positions`, of equal size, with at most `logits` logits each, and at least one position."""
        chunks = math.ceil(positions / max(1, logits // self._vocabulary))
        for number in range(chunks):
            yield slice(number * positions // chunks, (number + 1) * positions // chunks)

    def gradient(
        self, states: torch.Tensor, targets: torch.Tensor, sources: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(summed cross-entropy of one chunk, its gradient by each of `sources`: `states` or weights of the head).

        The gradient by the logits is softmax less one at the target; from there on torch differentiates.
        """
        with torch.set_grad_enabled(bool(sources)):
            capped, factor = self._capped(states)
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
        for part in loss.chunks(len(states), LOGITS_AT_ONCE if gradients else LOGITS_AT_ONCE_EVALUATED):
            leaf = states[part].detach().requires_grad_(states.requires_grad)
            sources = [tensor for tensor in (leaf, *weights) if tensor.requires_grad]
            summed, found = loss.gradient(leaf, targets[part], sources)
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


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
