from __future__ import annotations

import pytest

from socratic_mlflow.config import Config, flatten, with_values
from socratic_mlflow.options import build_config, options
from socratic_mlflow.presets import EMBEDDED, GEMMA, PRESETS, choose_preset

# Spelt out on purpose: this is the recipe that users were promised, whatever the field defaults become.
GEMMA_RECIPE = {
    "model.base_model": "google/gemma-2-2b-jpn-it",
    "data.test_size": 0.2,
    "data.max_length": 512,
    "training.epochs": 30,
    "training.max_steps": 0,
    "training.learning_rate": 8e-5,
    "training.weight_decay": 0.06,
    "training.warmup_ratio": 0.25,
    "training.lr_scheduler_type": "cosine_with_restarts",
    "training.batch_size": 4,
    "training.eval_batch_size": 2,
    "training.gradient_accumulation_steps": 8,
    "training.gradient_checkpointing": True,
    "training.max_grad_norm": 0.5,
    "training.optim": "adamw_torch_fused",
    "training.eval_steps": 20,
    "training.save_total_limit": 3,
    "training.dataloader_num_workers": 2,
    "training.dataloader_pin_memory": True,
    "training.empty_cache_steps": 50,
    "lora.r": 16,
    "lora.alpha": 32,
    "lora.dropout": 0.1,
    "lora.bias": "none",
    "lora.target_modules": "auto",
    "quantization.load_in_4bit": True,
    "quantization.bnb_4bit_quant_type": "nf4",
    "quantization.bnb_4bit_use_double_quant": True,
    "quantization.bnb_4bit_compute_dtype": "auto",
    "evaluation.max_samples": 100,
}


def test_gemma_preset_carries_the_promised_recipe() -> None:
    flat = flatten(build_config({"preset": "gemma-2-2b-jpn-it"}))
    assert {key: flat[key] for key in GEMMA_RECIPE} == GEMMA_RECIPE
    assert flat["run.preset"] == "gemma-2-2b-jpn-it"


def test_embedded_is_the_same_pipeline_with_nothing_left_out() -> None:
    flat = flatten(build_config({"preset": "embedded"}))
    assert flat["model.base_model"] == "embedded"
    assert flat["training.epochs"] == 30
    assert flat["lora.r"] == 16
    assert flat["data.path"] == flat["evaluation.questions"] == "bundled"
    quantization = {key: value for key, value in flat.items() if key.startswith("quantization.")}
    assert quantization == {key: value for key, value in GEMMA_RECIPE.items() if key.startswith("quantization.")}


def test_presets_are_exactly_the_choices_of_the_field() -> None:
    choices = next(option for option in options() if option.key == "run.preset").spec.metadata["choices"]
    assert choices == ("auto", *PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_only_what_it_changes(name: str) -> None:
    defaults = flatten(Config())
    assert PRESETS[name].keys() <= defaults.keys()
    assert all(value != defaults[key] for key, value in PRESETS[name].items())
    assert all(type(value) is type(defaults[key]) for key, value in PRESETS[name].items())
    with_values(Config(), PRESETS[name])


@pytest.mark.parametrize(
    ("requested", "cuda_available", "chosen"),
    [
        ("auto", True, GEMMA),
        ("auto", False, EMBEDDED),
        (GEMMA, False, GEMMA),
        (EMBEDDED, True, EMBEDDED),
    ],
)
def test_auto_depends_on_the_machine_and_a_name_does_not(requested: str, cuda_available: bool, chosen: str) -> None:
    assert choose_preset(requested, cuda_available) == chosen
