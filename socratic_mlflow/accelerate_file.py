"""What an accelerate configuration file says about how processes share a model; all else in it is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIVIDED = "ACCELERATE_USE_FSDP"
# What changes the numbers that are computed belongs to what a training is: it has fields of its own, or is not wanted.
_NOT_USED = ("mixed_precision", "dynamo_backend")


def accelerate_settings(file: str, processes: int) -> tuple[dict[str, str], str]:
    """(the environment variables by which `accelerate launch --config_file FILE` tells its processes how to share the
    model, a note on what else the file sets and is not used, or '').

    ValueError (one line) where accelerate cannot use the file, or it wants something else than DDP and FSDP.
    """
    from accelerate.commands.launch import (  # type: ignore[import-untyped]
        _validate_launch_command,
        launch_command_parser,
    )
    from accelerate.utils.launch import prepare_multi_gpu_env  # type: ignore[import-untyped]

    given = [f"--config_file={file}", f"--num_processes={processes}", "--main_process_port=0", "train"]
    try:
        args, *_ = _validate_launch_command(launch_command_parser().parse_args(given))
        found = prepare_multi_gpu_env(args)
    # Whatever reading and understanding the file raised.
    except Exception as error:
        raise ValueError(f"accelerate_config {file}: {' '.join(str(error).split())[:300]}") from None
    if other := _other_way(args):
        raise ValueError(f"accelerate_config {file}: {other} cannot be used here; give MULTI_GPU or FSDP")
    return {name: value for name, value in found.items() if name == _DIVIDED or name.startswith("FSDP_")}, _note(file, args)


def check_divisible(environment: Mapping[str, str], source: str) -> None:
    """Raise ValueError (one line) where `environment` wants FSDP and there is no GPU: accelerate would pass over it."""
    from torch import cuda

    if environment.get(_DIVIDED) == "true" and not cuda.is_available():
        raise ValueError(f"{source}: FSDP needs GPUs, and this machine has none; leave it out")


def _other_way(args: Any) -> str:
    """How the file would have a model shared, other than by DDP or FSDP."""
    ways = {"use_deepspeed": "DEEPSPEED", "use_megatron_lm": "MEGATRON_LM", "use_parallelism_config": "parallelism_config"}
    return next((name for option, name in (ways | {"tpu": "XLA"}).items() if getattr(args, option, False)), "")


def _note(file: str, args: Any) -> str:
    others = [f"{name} {value}" for name in _NOT_USED if (value := str(getattr(args, name)).lower()) != "no"]
    if not others:
        return ""
    return f"note   accelerate_config {file}: {', '.join(others)} is not used; bnb_4bit_compute_dtype says how to compute"
