"""What makes two starts the same training: which fields may change between them, and which name its folder has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from socratic_mlflow.config import Config, flatten

# What decides neither what is learned nor how it is scored may differ between a training and its continuation.
_MAY_CHANGE_SECTIONS = ("run.", "registry.", "training.dataloader_")
LENGTH = {"training.epochs", "training.max_steps"}
_MAY_CHANGE = LENGTH | {
    "training.eval_batch_size",
    "training.eval_steps",
    "training.save_total_limit",
    "training.empty_cache_steps",
    "training.gradient_checkpointing",
    "evaluation.generation_batch_size",
}
# Each other field takes part in the name of the folder that output_dir=auto stands for.
_NOT_IN_AUTO = {
    "run.output_dir",
    "run.resume",
    "run.require_tracking",
    "run.num_processes",
    "run.accelerate_config",
    "registry.promote",
    "registry.register",
}


def identity(config: Config, digests: Mapping[str, str]) -> str:
    """What a training shares with all its continuations, as 64 hexadecimal digits: the fields that must not change, and
    the contents of the data (those entries of `digests` that are named ..._digest, so that run.yaml's will do)."""
    fixed = {key: value for key, value in flatten(config).items() if not may_change(key)}
    return _digest([fixed, {key: value for key, value in digests.items() if key.endswith("_digest")}])


def may_change(key: str) -> bool:
    """Whether the field `key` (dotted) may differ between a training and its continuation."""
    return key in _MAY_CHANGE or key.startswith(_MAY_CHANGE_SECTIONS)


def auto_name(config: Config, tracking_uri: str, digests: Mapping[str, str]) -> str:
    """The folder's name that `output_dir=auto` stands for: one for each configuration, store and content of the data."""
    own = {key: value for key, value in flatten(config).items() if key not in _NOT_IN_AUTO}
    return f"{config.run.preset}-{_digest([own, tracking_uri, dict(digests)])[:8]}"


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
