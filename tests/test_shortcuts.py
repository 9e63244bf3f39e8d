"""Which shortcuts a base allows is found on the base itself; one that allows none is trained all the same, and rightly."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    GraniteConfig,
    GraniteForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from socratic_mlflow.packing import Packed
from socratic_mlflow.shortcuts import _has_16_bits, can_pack, has_known_head


def granite() -> Any:
    """Its logits are divided by a constant of its configuration."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return GraniteForCausalLM(GraniteConfig(vocab_size=300, **shape, num_key_value_heads=2, logits_scaling=8.0))


def bloom() -> Any:
    """Its attention knows no position_ids, only distances within a row."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2))


def gemma4() -> Any:
    """It takes images as well, and keeps its soft-capping among its settings of text."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16, "final_logit_softcapping": 30.0}
    words = {"vocab_size": 300, "vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 0}
    config = Gemma4Config(text_config={**shape, **heads, **words}, vision_config=None, audio_config=None)
    return _as_sure_as_a_trained_one(Gemma4ForConditionalGeneration(config), 16)


def recurrent_gemma() -> Any:
    """Its soft-capping has a name of its own, and what it remembers of a row goes on into the next dialogue."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "lru_width": 32}
    return _as_sure_as_a_trained_one(RecurrentGemmaForCausalLM(RecurrentGemmaConfig(vocab_size=300, **shape)), 6)


def _as_sure_as_a_trained_one(model: Any, factor: float) -> Any:
    """Logits with a standard deviation of about 2: a cap of 30 changes few of them by more than a hundredth."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(factor)
    return model.eval()


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_common_families_allow_both(family: str, one_row: bool, dtype: torch.dtype) -> None:
    model = tiny.model(family).to(dtype)
    assert has_known_head(model)
    assert can_pack(model, Packed(0, one_row))


def test_a_quantized_base_allows_both(tmp_path: Any) -> None:
    base, _ = tiny.quantized(tiny.save_base(tmp_path, width=64))
    assert has_known_head(base)
    assert can_pack(base, Packed(0))


def test_what_a_quantized_base_computes_in_decides_how_near_is_near_enough(tmp_path: Any) -> None:
    base, _ = tiny.quantized(tiny.save_base(tmp_path, width=64))
    assert not _has_16_bits(base)
    for module in base.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16
    assert _has_16_bits(base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_does_more_is_noticed(dtype: torch.dtype) -> None:
    assert not has_known_head(granite().to(dtype))


def test_soft_capping_is_found_where_a_model_of_images_keeps_it() -> None:
    assert has_known_head(gemma4())


def test_soft_capping_of_another_name_and_memory_beyond_a_dialogue_are_noticed() -> None:
    assert not has_known_head(recurrent_gemma())
    assert not can_pack(recurrent_gemma(), Packed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_would_mix_dialogues_is_noticed(dtype: torch.dtype) -> None:
    assert not can_pack(bloom().to(dtype), Packed(0))


def test_soft_capping_that_the_configuration_does_not_tell_of_is_noticed() -> None:
    model = _as_sure_as_a_trained_one(tiny.model("gemma"), 16)
    assert has_known_head(model)
    model.config.final_logit_softcapping = None
    own = model.forward
    model.forward = lambda *args, **kwargs: _capped(own(*args, **kwargs))
    assert not has_known_head(model)


def _capped(output: Any) -> Any:
    output.logits = torch.tanh(output.logits / 30) * 30
    return output


@pytest.mark.parametrize("training", [True, False])
def test_trying_leaves_the_model_in_the_mode_it_was_in(training: bool) -> None:
    model = tiny.model("gemma").train(training)
    has_known_head(model)
    can_pack(model, Packed(0))
    assert model.training is training
    assert all(weight.grad is None for weight in model.parameters())
