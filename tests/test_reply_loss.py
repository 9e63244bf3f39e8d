"""The loss on reply tokens, in chunks: the numbers of transformers' own loss over all logits, in float64."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from socratic_mlflow import reply_loss
from socratic_mlflow.packing import Packed, Padded
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.tokens import IGNORED, ChatFormat

FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES)
TARGETS = {"gemma": ["q_proj", "v_proj"], "llama": ["q_proj", "v_proj"], "neox": ["query_key_value"]}


def learner(family: str, *more: str) -> tuple[Any, list[dict[str, list[int]]]]:
    """(a float64 model with an adapter that has an effect, encoded dialogues)."""
    words = tiny.tokenizer(family)
    chat = ChatFormat(words)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=[*TARGETS[family], *more], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(tiny.model(family, vocab_size=len(words)), lora).double()
    encoded = [chat.encode(tiny.dialogue(number)) for number in range(6)]
    return model, [{"input_ids": item.input_ids, "labels": item.labels} for item in encoded]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def own_loss(model: Any, features: list[dict[str, list[int]]]) -> torch.Tensor:
    """transformers' own, of padded rows with all logits; float32, whatever the model's dtype."""
    loss = model(**Padded(0)(features)).loss
    assert isinstance(loss, torch.Tensor)
    return loss


def whole_loss(model: Any, features: list[dict[str, list[int]]]) -> torch.Tensor:
    """The textbook's: all logits of padded rows, shifted by one, and the mean over labels that count; float64."""
    inputs = Padded(0)(features)
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=IGNORED)


def our_loss(model: Any, inputs: dict[str, torch.Tensor], split_head: bool = True) -> torch.Tensor:
    computed = ReplyLoss(model.get_base_model(), split_head)
    states, targets = computed.states(model, inputs)
    return computed.summed(states, targets) / len(targets)


def assert_same(model: Any, ours: torch.Tensor, wanted: torch.Tensor) -> None:
    # Within the layers the models themselves go down to float32 in places (norms, rotary embeddings, softmax).
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=0)
    ours.backward()
    our_gradients = gradients(model)
    wanted.backward()
    wanted_gradients = gradients(model)
    assert our_gradients.keys() == wanted_gradients.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in wanted_gradients.values())
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-5, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("split_head", [True, False])
@pytest.mark.parametrize("collate", [Packed(0), Packed(0, one_row=True), Padded(0)])
def test_packed_and_reply_only_is_the_loss_and_gradient_of_padded_rows_with_all_logits(
    family: str, split_head: bool, collate: Any
) -> None:
    model, features = learner(family)
    assert_same(model, our_loss(model, collate(features), split_head), whole_loss(model, features))


@FAMILIES
def test_it_is_the_number_that_transformers_computes_itself(family: str) -> None:
    model, features = learner(family)
    torch.testing.assert_close(our_loss(model, Packed(0)(features)).float(), own_loss(model, features), rtol=1e-6, atol=0)


@FAMILIES
def test_packed_is_the_sum_of_dialogues_one_by_one(family: str) -> None:
    model, features = learner(family)
    computed = ReplyLoss(model.get_base_model())
    together = computed.summed(*computed.states(model, Packed(0)(features)))
    together.backward()
    packed = gradients(model)
    alone = torch.stack([computed.summed(*computed.states(model, Padded(0)([feature]))) for feature in features]).sum()
    alone.backward()
    unpacked = gradients(model)
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=0)
    for name, gradient in unpacked.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [1, 3, 1000])
def test_the_size_of_a_chunk_changes_nothing(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, features = learner("gemma")
    whole = our_loss(model, Packed(0)(features))
    whole.backward()
    wanted = gradients(model)
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE", positions * model.config.vocab_size)
    chunked = our_loss(model, Packed(0)(features))
    chunked.backward()
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)


def test_logits_are_made_for_reply_tokens_only_and_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, features = learner("gemma")
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE", 5 * model.config.vocab_size)
    inputs, made = Packed(0)(features), []
    head = model.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: made.append(output.shape[:-1].numel()))
    our_loss(model, inputs)
    replies = sum(label != IGNORED for feature in features for label in feature["labels"])
    assert max(made) == 5
    assert sum(made) == replies < inputs["input_ids"].numel()


@FAMILIES
def test_a_head_that_is_trained_gets_its_gradient(family: str) -> None:
    model, features = learner(family, "lm_head")
    assert any("lm_head" in name and weight.requires_grad for name, weight in model.named_parameters())
    assert_same(model, our_loss(model, Packed(0)(features)), whole_loss(model, features))


@FAMILIES
def test_a_head_that_is_trained_alone_gets_its_gradient(family: str) -> None:
    model, features = learner(family, "lm_head")
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and "lm_head" in name)
    assert_same(model, our_loss(model, Packed(0)(features)), whole_loss(model, features))


@FAMILIES
@pytest.mark.parametrize("trained_head", [(), ("lm_head",)])
@pytest.mark.parametrize("split_head", [True, False])
@pytest.mark.parametrize(("at_once", "positions"), [(7, 2048), (10_000, 2048), (40, 3)])
def test_an_evaluation_has_the_loss_and_the_most_likely_tokens_of_all_logits(
    family: str, trained_head: tuple[str], split_head: bool, at_once: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, features = learner(family, *trained_head)
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE_EVALUATED", at_once * model.config.vocab_size)
    monkeypatch.setattr(reply_loss, "_POSITIONS_EVALUATED", positions)
    inputs = Padded(0)(features)
    with torch.no_grad():
        computed = ReplyLoss(model.get_base_model(), split_head)
        states, targets = computed.states(model, inputs)
        summed, predicted = computed.evaluated(states, targets)
        wanted = model(**inputs).logits.argmax(dim=-1)[:, :-1][inputs["labels"][:, 1:] != IGNORED]
        torch.testing.assert_close(summed / len(targets), whole_loss(model, features), rtol=1e-6, atol=0)
    assert torch.equal(predicted, wanted)
    assert len(set(predicted.tolist())) > 3


class Living(TorchDispatchMode):
    """How many elements the tensors have at most that torch makes while it is entered and that are still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # What is changed in place and views of what there was take no further memory.
        for each in [] if func._schema.is_mutable else tree_leaves(made):
            if isinstance(each, torch.Tensor) and not each._is_view():
                self.now += each.numel()
                weakref.finalize(each, self._gone, each.numel())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, elements: int) -> None:
        self.now -= elements


@pytest.mark.parametrize("vocabulary", [1_000, 50_000])
def test_an_evaluation_makes_no_more_logits_at_a_time_of_a_larger_vocabulary(
    vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE_EVALUATED", 20_000)
    computed = ReplyLoss(tiny.model(vocab_size=vocabulary))
    states, targets = torch.randn(100, tiny.model().config.hidden_size), torch.randint(vocabulary, (100,))
    with Living() as made:
        computed.evaluated(states, targets)
    # One part with and without its soft-capping, beside a few numbers for each position.
    assert 20_000 < made.most < 3 * 20_000


def whole_numbers(bias: bool) -> tuple[ReplyLoss, torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """(loss, head, states, targets) whose logits are exact in 16 bits; words 10 and 250 always have the same one."""
    torch.manual_seed(0)
    model = tiny.model("llama", vocab_size=300)
    head = torch.nn.Linear(model.config.hidden_size, 300, bias=bias).requires_grad_(False)
    for weight in head.parameters():
        weight.copy_(torch.randint(-1, 2, weight.shape))
        weight[250] = weight[10]
    model.set_output_embeddings(head)
    states = torch.randint(-1, 2, (60, model.config.hidden_size)).float()
    states[::3] = head.weight[10]
    return ReplyLoss(model), head, states, torch.randint(300, (60,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_of_equally_likely_words_the_first_is_taken_in_16_bits_as_well(
    half: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, head, states, targets = whole_numbers(bias)
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE_EVALUATED", 60 * 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = head(states)
        summed, predicted = computed.evaluated(states, targets)
    assert logits.dtype == (torch.bfloat16 if half else torch.float32)
    torch.testing.assert_close(summed, cross_entropy(logits.float(), targets, reduction="sum"))
    assert predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert 10 in predicted.tolist()


def test_a_head_whose_bias_alone_is_trained_gets_its_gradient() -> None:
    computed, head, states, targets = whole_numbers(bias=True)
    head.bias.requires_grad_()
    computed.summed(states, targets).backward()
    ours, head.bias.grad = head.bias.grad, None
    cross_entropy(head(states), targets, reduction="sum").backward()
    torch.testing.assert_close(ours, head.bias.grad)


def test_autocast_casts_the_heads_weights_once_for_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    computed, head, states, targets = whole_numbers(bias=True)
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE", 60 * 32)
    own, plain = states.clone().requires_grad_(), states.clone().requires_grad_()
    casts = []
    with torch.autocast("cpu", torch.bfloat16), Casts(head.weight.numel(), casts):
        loss = computed.summed(own, targets)
    loss.backward()
    assert len(casts) == 1 < len(list(computed.chunks(60)))
    with torch.autocast("cpu", torch.bfloat16):
        cross_entropy(head(plain).float(), targets, reduction="sum").backward()
    torch.testing.assert_close(own.grad, plain.grad, rtol=0.02, atol=0.02)


class Casts(TorchDispatchMode):
    """Puts into `found` each cast of a tensor with as many elements."""

    def __init__(self, elements: int, found: list[torch.dtype]) -> None:
        super().__init__()
        self._elements, self._found = elements, found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and made.numel() == self._elements:
            self._found.append(made.dtype)
        return made


def test_nothing_to_evaluate_is_no_error() -> None:
    model = tiny.model()
    nothing = torch.empty(0, model.config.hidden_size), torch.empty(0, dtype=torch.int64)
    summed, predicted = ReplyLoss(model).evaluated(*nothing)
    assert (summed.item(), predicted.tolist()) == (0, [])


def test_without_gradients_none_is_computed() -> None:
    model, features = learner("gemma")
    with torch.no_grad():
        loss = our_loss(model, Padded(0)(features))
    assert not loss.requires_grad
    torch.testing.assert_close(loss, whole_loss(model, features).detach())
