"""Folders from elsewhere are data, never code: what in a base's or an adapter's folder would run code is refused here.

transformers and peft read these folders afterwards; they import modules by name and read pickles where a configuration
says so. Knows nothing of models. Standard library; peft where an adapter is checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from socratic_mlflow.config import LoraConfig, shown

# Bytes; a configuration has a few thousand, an index of the largest models a few hundred thousand.
_LARGEST = 8 * 1024 * 1024
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_NAME = re.compile(r"[\w.-]{1,200}")
CONVERT = (
    "pickled weights run code when they are read and are refused; choose a revision with safetensors, or convert weights "
    "that you trust elsewhere: MODEL.save_pretrained(NEW_FOLDER) writes safetensors"
)


def check_base(folder: Path) -> None:
    """Raise ValueError (one line) where reading the base in `folder` would read a pickle or an adapter's configuration."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder}: is an adapter, no base; give the base that it was trained on")
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder}: holds no safetensors, only {shown(pickles[0])}; {CONVERT}")
    config = folder / "config.json"
    named = read_object(config).get("transformers_weights") if config.exists() else None
    _check_weights(config, [] if named is None else [named], (".safetensors", ".safetensors.index.json"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        files = read_object(index).get("weight_map")
        _check_weights(index, list(files.values()) if isinstance(files, dict) else [files], (".safetensors",))


def _check_weights(where: Path, names: list[Any], endings: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(name, str) or not name.endswith(endings) or not _NAME.fullmatch(name):
            raise ValueError(f"{where}: names {shown(name)} as weights, which is no safetensors file beside it; {CONVERT}")


def check_adapter(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of `folder`; ValueError (one line) unless it is a plain LoRA with safetensors beside it."""
    from peft import LoraConfig as PeftConfig

    if not (folder / "adapter_model.safetensors").is_file():
        pickled = f" but adapter_model.bin; {CONVERT}" if (folder / "adapter_model.bin").exists() else ""
        way_out = pickled or "; give the folder of a LoRA adapter"
        raise ValueError(f"{folder}: holds no adapter_model.safetensors{way_out}")
    file = folder / "adapter_config.json"
    config = read_object(file)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{file}: peft_type is {shown(config.get('peft_type'))}; allowed: LORA")
    # The rest of what peft knows (other kinds of adapter, modules to import) stays as it is by default; what peft does
    # not know it ignores.
    for spec in dataclasses.fields(PeftConfig):
        if spec.name in config and not _accepted(spec, config[spec.name]):
            raise ValueError(f"{file}: {spec.name} is {shown(config[spec.name])}; only a plain LoRA adapter is loaded")
    return config


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; ValueError (one line) where it is none, too large, or no regular file (it might hang)."""
    try:
        if file.exists() and not file.is_file():
            raise ValueError("not a regular file")
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"larger than {_LARGEST // 1024**2} MiB")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: cannot be read as JSON ({reason})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, found {shown(found)}")
    return found


def _accepted(spec: dataclasses.Field[Any], value: Any) -> bool:
    if spec.name in _FREE:
        return _FREE[spec.name](value)
    default = spec.default if spec.default_factory is dataclasses.MISSING else None
    return value in (None, {}, []) or (type(value) is type(default) and value == default) or spec.name == "runtime_config"


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def _is_number(low: float, high: float, kinds: tuple[type, ...] = (int, float)) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds and low <= value <= high


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) < 4096 and value.isprintable())


def _are_names(value: Any) -> bool:
    # One string would be a regular expression, which can take for ever.
    return value in (None, "all-linear") or (isinstance(value, list) and all(_is_name(name) for name in value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _is_pattern(value: Any) -> bool:
    numbers = _is_number(1, _HIGHEST_ALPHA)
    return value is None or (isinstance(value, dict) and all(_is_name(key) and numbers(value[key]) for key in value))


def _highest(name: str) -> int:
    return next(int(spec.metadata["high"]) for spec in dataclasses.fields(LoraConfig) if spec.name == name)


_HIGHEST_ALPHA = _highest("alpha")
_FREE: dict[str, Callable[[Any], bool]] = {
    "peft_type": _one_of("LORA"),
    "task_type": _one_of("CAUSAL_LM", None),
    "base_model_name_or_path": _is_text,
    "revision": _is_text,
    "peft_version": _is_text,
    "inference_mode": _one_of(True, False),
    "r": _is_number(1, _highest("r"), (int,)),
    "lora_alpha": _is_number(0, _HIGHEST_ALPHA),
    "lora_dropout": _is_number(0, 1),
    "bias": _one_of("none", "all", "lora_only"),
    "fan_in_fan_out": _one_of(True, False),
    "use_rslora": _one_of(True, False),
    "use_dora": _one_of(True, False),
    "init_lora_weights": _one_of(True, False, "gaussian"),
    "target_modules": _are_names,
    "modules_to_save": _are_names,
    "layers_to_transform": lambda value: value is None or (isinstance(value, list) and all(type(n) is int for n in value)),
    "rank_pattern": _is_pattern,
    "alpha_pattern": _is_pattern,
}
