"""A forward pass -> loss and most likely tokens, of the reply tokens only and a chunk of them at a time.

A vocabulary of 256,000 words makes one position's logits a megabyte in float32: neither prompts nor padding get any, and no
more than LOGITS_AT_ONCE exist at a time. What is computed is the causal language-model loss of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from socratic_mlflow.tokens import IGNORED

# Logits in one chunk, whatever the vocabulary: 128 MiB in float32, of which the loss and its gradient take about five.
LOGITS_AT_ONCE = 2**25


class ReplyLoss:
    """Loss and predictions of `causal`, a causal language model whose vocabulary's weights may be trained or not.

    `split_head` runs the decoder on all positions and the head on those of replies. Without it, for a head that does more
    than is known here (`shortcuts.has_known_head`), the model computes all logits itself.
    """

    def __init__(self, causal: Any, split_head: bool = True) -> None:
        self._causal, self._split_head = causal, split_head
        self._output = causal.get_output_embeddings()
        self._cap = getattr(causal.config, "final_logit_softcapping", None)
        self._chunk = max(1, LOGITS_AT_ONCE // self._output.weight.shape[0])

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
        try:
            # The head has to run on something: on the last position of each row.
            model(**passed, logits_to_keep=1, use_cache=False)
        finally:
            hook.remove()
        return caught[0]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (n, vocabulary) in float32 at least, with Gemma-2's soft-capping where the base has it."""
        logits = self._output(states) if self._split_head else states
        if self._split_head and self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def summed(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of `targets` (n,) given `states`, summed (nats).

        The gradient is computed along with it, chunk by chunk: no chunk's logits outlive it, and none are made twice.
        """
        weights = [weight for weight in self._output.parameters() if weight.requires_grad] if self._split_head else []
        return _Summed.apply(self, targets, states, *weights)

    def predicted(self, states: torch.Tensor) -> torch.Tensor:
        """The most likely tokens (n,)."""
        found = [self.logits(states[part]).argmax(dim=-1) for part in self.chunks(len(states))]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=states.device)

    def chunks(self, positions: int) -> Iterator[slice]:
        """Slices of `positions` with at most LOGITS_AT_ONCE logits each, and at least one position."""
        for start in range(0, positions, self._chunk):
            yield slice(start, start + self._chunk)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: ReplyLoss, targets: torch.Tensor, states: torch.Tensor, *weights: Any) -> torch.Tensor:
        total = states.new_zeros((), dtype=torch.promote_types(states.dtype, torch.float32))
        # Of the states and of each trained weight of the head.
        gradients = [torch.zeros_like(tensor) for tensor in (states, *weights)] if states.requires_grad else []
        for part in loss.chunks(len(states)):
            with torch.set_grad_enabled(bool(gradients)):
                leaf = states[part].detach().requires_grad_(bool(gradients))
                summed = cross_entropy(loss.logits(leaf), targets[part], reduction="sum")
            total += summed.detach()
            if gradients:
                of_part, *of_weights = torch.autograd.grad(summed, (leaf, *weights))
                gradients[0][part] = of_part
                for sum_of_weight, gradient in zip(gradients[1:], of_weights, strict=True):
                    sum_of_weight += gradient
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[Any, ...]:
        return None, None, *(gradient * above for gradient in ctx.saved_tensors)
