"""Adapters that change what their base says, made without a training."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch

from socratic_mlflow.model import attach_adapter, load_base


def changed(folder: Path, base_model: Path | str, seed: int = 0, std: float = 0.05) -> Path:
    """The folder of an adapter on `base_model` that changes its answers; the more, the larger `std` is."""
    config = tiny.config(base_model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = attach_adapter(load_base(config.model, config.quantization), config)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if "lora_B" in name:
                    weights.normal_(std=std)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder
