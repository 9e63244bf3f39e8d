"""What each preset changes in the field defaults of `config.py`, and which one `auto` means. Standard library only."""

from __future__ import annotations

from typing import Any

# The field defaults are this preset, so it changes nothing.
GEMMA = "gemma-2-2b-jpn-it"
EMBEDDED = "embedded"

PRESETS: dict[str, dict[str, Any]] = {
    GEMMA: {},
    # A model of a few million parameters on two CPU cores: a far higher learning rate, no memory to save, short replies.
    EMBEDDED: {
        "model.base_model": "embedded",
        "training.learning_rate": 1e-3,
        "training.weight_decay": 0.01,
        "training.warmup_ratio": 0.1,
        "training.batch_size": 16,
        "training.eval_batch_size": 16,
        "training.gradient_accumulation_steps": 1,
        "training.gradient_checkpointing": False,
        "training.max_grad_norm": 1.0,
        "training.eval_steps": 84,
        "training.dataloader_num_workers": 0,
        "training.dataloader_pin_memory": False,
        "training.empty_cache_steps": 0,
        "lora.dropout": 0.05,
        "evaluation.max_new_tokens": 64,
        "evaluation.generation_batch_size": 50,
    },
}


def choose_preset(requested: str, cuda_available: bool) -> str:
    """The preset that `requested` ('auto' or a name) stands for on this machine."""
    if requested != "auto":
        return requested
    return GEMMA if cuda_available else EMBEDDED
