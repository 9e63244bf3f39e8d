"""Where a base comes from, in which dtype it computes, and that bitsandbytes really quantizes it."""

from __future__ import annotations

import hashlib
import json
import shutil

import bitsandbytes as bnb
import huggingface_hub.constants
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from socratic_mlflow.config import ModelConfig, QuantizationConfig
from socratic_mlflow.model import (
    base_location,
    base_revision,
    device,
    load_base,
    load_tokenizer,
    resolve_dtype,
)

FAMILIES = tuple(tiny.FAMILIES)


def quantized_layers(base):
    return {name: module for name, module in base.named_modules() if isinstance(module, bnb.nn.Linear4bit)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_but_the_head_is_nf4_with_double_quantization(bases, family):
    base, _ = tiny.quantized(bases[family])
    layers = quantized_layers(base)
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linear - set(layers) == {"lm_head"}
    assert len(layers) == 2 * (4 if family == "neox" else 7)
    for layer in layers.values():
        state = layer.weight.quant_state
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.numel() * 2 == layer.in_features * layer.out_features
        assert (state.quant_type, state.nested, state.absmax.dtype) == ("nf4", True, torch.uint8)
        assert layer.compute_dtype == torch.float32


def test_quantized_weights_are_near_the_saved_ones(bases):
    base, _ = tiny.quantized(bases["gemma"])
    saved = load_file(bases["gemma"] / "model.safetensors")
    for name, layer in quantized_layers(base).items():
        restored = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        error = (restored - saved[f"{name}.weight"]).abs().mean() / saved[f"{name}.weight"].abs().mean()
        assert 0.01 < error < 0.15


@pytest.mark.parametrize(("kind", "double"), [("fp4", False), ("nf4", False)])
def test_quantization_follows_the_configuration(bases, kind, double):
    values = {"quantization__bnb_4bit_quant_type": kind, "quantization__bnb_4bit_use_double_quant": double}
    base, _ = tiny.quantized(bases["gemma"], **values)
    states = [layer.weight.quant_state for layer in quantized_layers(base).values()]
    assert {(state.quant_type, state.nested) for state in states} == {(kind, double)}


def test_a_base_can_stay_unquantized(bases):
    base, _ = tiny.quantized(bases["gemma"], quantization__load_in_4bit=False)
    assert quantized_layers(base) == {}
    saved = load_file(bases["gemma"] / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in base.named_parameters())


def test_no_layer_may_repack_its_weights_for_inference(bases):
    """What test_adapter.py shows on a CPU with AVX512-BF16 only, in bitsandbytes' own words."""
    layers = quantized_layers(tiny.quantized(bases["gemma"])[0]).values()
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def load_base_in_float32(model):
    return load_base(model, QuantizationConfig(bnb_4bit_compute_dtype="float32"))


@pytest.mark.parametrize("load", [load_tokenizer, load_base_in_float32])
def test_a_base_that_cannot_be_downloaded_says_what_to_do(load):
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    model = ModelConfig(base_model="google/gemma-2-2b-jpn-it")
    with pytest.raises(ValueError, match="cannot load base_model 'google/gemma-2-2b-jpn-it'") as caught:
        load(model)
    text = str(caught.value)
    assert "\n" not in text
    for hint in ("accept its licence at huggingface.co/google/gemma-2-2b-jpn-it", "'hf auth login'", "preset=embedded"):
        assert hint in text


@pytest.mark.parametrize("reply", ["401 Client Error. Cannot access gated repo", "Access to this model is gated"])
def test_a_gated_base_asks_for_licence_and_login(monkeypatch, reply):
    def refuse(*_, **__):
        raise OSError(reply)

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(ValueError, match=r"the model is gated; accept its licence .* 'hf auth login'.*preset=embedded"):
        load_tokenizer(ModelConfig(base_model="google/gemma-2-2b-jpn-it"))


def test_a_broken_local_base_is_one_clear_line_about_the_folder(bases, tmp_path):
    folder = shutil.copytree(bases["gemma"], tmp_path / "model-401")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot load base_model .*model-401") as caught:
        tiny.quantized(folder)
    assert "\n" not in str(caught.value)
    assert "gated" not in str(caught.value)


def test_a_local_folder_that_is_no_model_is_one_clear_line(tmp_path):
    folder = tmp_path / "model-403"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    with pytest.raises(ValueError, match=r"cannot load base_model .*model-403") as caught:
        tiny.quantized(folder)
    assert "licence" not in str(caught.value)


def test_pickled_weights_are_not_read(bases, tmp_path):
    folder = shutil.copytree(bases["gemma"], tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot load base_model .*only 'pytorch_model.bin'"):
        tiny.quantized(folder)


def test_the_revision_of_a_local_base_is_the_digest_of_its_weights(bases, tmp_path):
    folder = shutil.copytree(bases["gemma"], tmp_path / "copy")
    weights = folder / "model.safetensors"
    before = base_revision(ModelConfig(base_model=str(folder)))
    assert before == base_revision(ModelConfig(base_model=str(bases["gemma"])))
    assert before == hashlib.sha256(hashlib.sha256(weights.read_bytes()).digest()).hexdigest()
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    assert base_revision(ModelConfig(base_model=str(folder))) != before


def test_the_revision_of_a_hub_base_is_the_commit_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_revision(ModelConfig(base_model="some/model", revision="v2")) == "v2"
    repository, commit = tmp_path / "models--some--model", "0123abcd" * 5
    for file, text in ((f"snapshots/{commit}/config.json", "{}"), ("refs/v2", commit)):
        (repository / file).parent.mkdir(parents=True)
        (repository / file).write_text(text)
    assert base_revision(ModelConfig(base_model="some/model", revision="v2")) == commit


def test_the_embedded_base_lies_in_the_package():
    assert base_location("embedded").endswith("socratic_mlflow/base")
    assert base_location("some/model") == "some/model"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_without_a_gpu_arithmetic_is_float32_on_the_cpu():
    assert device() == torch.device("cpu")
    resolved = resolve_dtype(tiny.config("unused", quantization__bnb_4bit_compute_dtype="auto"))
    assert resolved.quantization.bnb_4bit_compute_dtype == "float32"


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_on_a_gpu_arithmetic_is_bfloat16_where_it_has_that(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    resolved = resolve_dtype(tiny.config("unused", quantization__bnb_4bit_compute_dtype="auto"))
    assert resolved.quantization.bnb_4bit_compute_dtype == dtype


def test_a_dtype_that_was_chosen_stays():
    chosen = tiny.config("unused", quantization__bnb_4bit_compute_dtype="bfloat16")
    assert resolve_dtype(chosen) == chosen


def test_a_tokenizer_without_padding_gets_some(tmp_path):
    words = tiny.tokenizer("llama")
    words.pad_token = None
    words.save_pretrained(tmp_path)
    assert load_tokenizer(ModelConfig(base_model=str(tmp_path))).pad_token == words.eos_token


def test_for_fsdp_the_4_bit_weights_are_stored_in_the_dtype_of_the_others(bases, monkeypatch):
    model = ModelConfig(base_model=str(bases[FAMILIES[0]]))
    quantization = QuantizationConfig(bnb_4bit_compute_dtype="float32")
    ids = torch.arange(40).reshape(2, 20)
    with torch.inference_mode():
        whole = load_base(model, quantization)
        monkeypatch.setattr("socratic_mlflow.ranks.are_weights_divided", lambda: True)
        in_pieces = load_base(model, quantization)
        assert {weight.dtype for weight in in_pieces.parameters()} == {torch.float32}
        assert {weight.dtype for weight in whole.parameters()} == {torch.float32, torch.uint8}
        assert torch.equal(whole(ids).logits, in_pieces(ids).logits)
