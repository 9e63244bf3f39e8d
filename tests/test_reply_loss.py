"""The loss on reply tokens, in chunks: the numbers of transformers' own loss over all logits, in float64."""

from __future__ import annotations

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


class Largest(TorchDispatchMode):
    """The most elements of any tensor that torch makes while it is entered; views of what there was do not count."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        found = [each for each in tree_leaves(made) if isinstance(each, torch.Tensor) and not each._is_view()]
        self.elements = max([getattr(self, "elements", 0), *(each.numel() for each in found)])
        return made


@pytest.mark.parametrize("vocabulary", [1_000, 50_000])
def test_an_evaluation_makes_no_more_logits_at_a_time_of_a_larger_vocabulary(
    vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_loss, "LOGITS_AT_ONCE_EVALUATED", 20_000)
    computed = ReplyLoss(tiny.model(vocab_size=vocabulary))
    states, targets = torch.randn(100, tiny.model().config.hidden_size), torch.randint(vocabulary, (100,))
    with Largest() as made:
        computed.evaluated(states, targets)
    assert 15_000 < made.elements <= 20_000


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
