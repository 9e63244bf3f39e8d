"""Which shortcuts a base allows is found on the base itself; one that allows none is trained all the same, and rightly."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import BloomConfig, BloomForCausalLM, GraniteConfig, GraniteForCausalLM

from socratic_mlflow.packing import Packed
from socratic_mlflow.shortcuts import can_pack, has_known_head


def granite() -> Any:
    """Its logits are divided by a constant of its configuration."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return GraniteForCausalLM(GraniteConfig(vocab_size=300, **shape, num_key_value_heads=2, logits_scaling=8.0))


def bloom() -> Any:
    """Its attention knows no position_ids, only distances within a row."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("one_row", [False, True])
def test_common_families_allow_both(family: str, one_row: bool) -> None:
    model = tiny.model(family)
    assert has_known_head(model)
    assert can_pack(model, Packed(0, one_row))


def test_a_quantized_base_allows_both(tmp_path: Any) -> None:
    base, _ = tiny.quantized(tiny.save_base(tmp_path, width=64))
    assert has_known_head(base)
    assert can_pack(base, Packed(0))


def test_a_head_that_does_more_is_noticed() -> None:
    assert not has_known_head(granite())


def test_attention_that_would_mix_dialogues_is_noticed() -> None:
    assert not can_pack(bloom(), Packed(0))


def test_soft_capping_that_the_configuration_does_not_tell_of_is_noticed() -> None:
    model = tiny.model("gemma")
    assert has_known_head(model)
    model.config.final_logit_softcapping = None
    own = model.forward
    model.forward = lambda *args, **kwargs: _capped(own(*args, **kwargs))
    assert not has_known_head(model)


def _capped(output: Any) -> Any:
    output.logits = torch.tanh(output.logits / 5) * 5
    return output


@pytest.mark.parametrize("training", [True, False])
def test_trying_leaves_the_model_in_the_mode_it_was_in(training: bool) -> None:
    model = tiny.model("gemma").train(training)
    has_known_head(model)
    can_pack(model, Packed(0))
    assert model.training is training
    assert all(weight.grad is None for weight in model.parameters())
