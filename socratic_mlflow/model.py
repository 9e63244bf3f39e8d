"""Base model + NF4 + LoRA: where a base comes from, on which device and in which dtype it computes, and its adapter."""

from __future__ import annotations

import hashlib
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.config import Config, ModelConfig, QuantizationConfig, shown, with_values
from socratic_mlflow.untrusted import CONVERT, check_adapter, check_base

if TYPE_CHECKING:
    import torch

EMBEDDED_BASE = "embedded"

# The attention projections by the names that model families give them; the first set of which a base has any wins.
_PROJECTIONS = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),  # Gemma, Llama, Qwen, SmolLM, Mistral
    ("q_proj", "k_proj", "v_proj", "out_proj"),  # OPT, GPT-Neo
    ("qkv_proj", "o_proj"),  # Phi-3
    ("query_key_value", "dense"),  # GPT-NeoX, Falcon, BLOOM
    ("c_attn", "c_proj"),  # GPT-2
    ("Wqkv", "out_proj"),  # MPT-like
)
_GPU_ATTENTION = ("flex_attention", "flash_attention_2")  # flex attention has no backward pass on CPUs (torch 2.13)


def cuda_available() -> bool:
    """Whether a CUDA GPU can be used; imports torch."""
    import torch

    return bool(torch.cuda.is_available())


def base_location(base_model: str) -> str:
    """Where transformers finds the base: the folder inside this package for 'embedded', else the name itself."""
    if base_model == EMBEDDED_BASE:
        return str(resources.files("socratic_mlflow") / "base")
    return base_model


def base_revision(model: ModelConfig) -> str:
    """The commit of a Hub base that was loaded, or the SHA-256 over the safetensors of a local one, in hexadecimal."""
    folder = Path(base_location(model.base_model))
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        # The Hub's cache keeps each commit in a folder of its name.
        cached = try_to_load_from_cache(model.base_model, "config.json", revision=model.revision)
        return Path(cached).parent.name if isinstance(cached, str) else model.revision
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.glob("*.safetensors") if file.is_file()):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def resolve_dtype(config: Config) -> Config:
    """`config` with the compute dtype 'auto' replaced by what suits this machine."""
    import torch

    if config.quantization.bnb_4bit_compute_dtype != "auto":
        return config
    if not torch.cuda.is_available():
        chosen = "float32"
    else:
        chosen = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return with_values(config, {"quantization.bnb_4bit_compute_dtype": chosen})


def load_tokenizer(model: ModelConfig) -> Any:
    """The base's tokenizer; ValueError (one line, with the way out) where it cannot be had."""
    from transformers import AutoTokenizer

    try:
        _check_source(model)
        tokenizer = AutoTokenizer.from_pretrained(base_location(model.base_model), **_source(model))
    except Exception as error:  # whatever reading a file raised, RecursionError and the validators' own among it
        raise _cannot_load(model, error) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(model: ModelConfig, quantization: QuantizationConfig) -> Any:
    """The frozen base on `device()`, quantized as `quantization` says; ValueError (one line) where it cannot be had."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from socratic_mlflow.ranks import are_weights_divided

    # transformers would ask a stranger's service to convert a Hub base without safetensors, and take what comes back.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    dtype = getattr(torch, quantization.bnb_4bit_compute_dtype)
    extra: dict[str, Any] = {}
    if quantization.load_in_4bit:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
            # FSDP cuts up weights of one dtype only, that of what is not quantized.
            bnb_4bit_quant_storage=torch.float32 if are_weights_divided() else torch.uint8,
        )
    try:
        _check_source(model)
        base = AutoModelForCausalLM.from_pretrained(
            base_location(model.base_model),
            **_source(model),
            **extra,
            # What is not quantized (embeddings, norms) stays in float32, as peft prepares it for training, so that a
            # served adapter computes as it was evaluated; float16 would overflow in Gemma-2's residual stream.
            dtype=torch.float32 if quantization.load_in_4bit else dtype,
            # FSDP brings each piece to its GPU.
            device_map=None if are_weights_divided() else {"": device()},
            attn_implementation=model.attn_implementation,
            use_safetensors=True,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise _cannot_load(model, error) from None
    _keep_trainable(base)
    return base


def _keep_trainable(base: Any) -> None:
    """Switch off bitsandbytes' inference-only weight layout on CPUs with AVX512-BF16.

    The first forward pass in eval mode would repack the weights for a kernel without a backward pass, and they stay so:
    every training step after an evaluation would then get wrong gradients, with no more than a warning
    (bitsandbytes 0.50.2, nn/modules.py, Linear4bit.forward).
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def target_modules(base: Any, wanted: str) -> list[str]:
    """The names of the linear layers that get an adapter: those in `wanted`, or for 'auto' attention's projections.

    Raises ValueError, naming the layers that the base has, where none fits.
    """
    present = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if hasattr(module, "weight")}
    if wanted != "auto":
        chosen = [name.strip() for name in wanted.split(",") if name.strip()]
        missing = [name for name in chosen if name not in present]
        if missing or not chosen:
            raise ValueError(
                f"lora.target_modules names {', '.join(missing) or 'nothing'}; this base has: {', '.join(sorted(present))}"
            )
        return chosen
    for names in _PROJECTIONS:
        if present.issuperset(names):
            return list(names)
    raise ValueError(
        "lora.target_modules is auto, but this base names its attention otherwise; "
        f"give some of: {', '.join(sorted(present))}"
    )


def attach_adapter(base: Any, config: Config) -> Any:
    """`base` with a new, trainable LoRA adapter (initially without effect) as a PeftModel.

    Raises ValueError for an attention kernel that cannot train on this device, before anything is trained.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    attention = config.model.attn_implementation
    if attention in _GPU_ATTENTION and device().type == "cpu":
        raise ValueError(f"model.attn_implementation is {attention!r}; it trains on a GPU only, on a CPU: eager or sdpa")
    if config.quantization.load_in_4bit:
        base = prepare_model_for_kbit_training(
            base,
            use_gradient_checkpointing=config.training.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    elif config.training.gradient_checkpointing:
        base.enable_input_require_grads()
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        bias=config.lora.bias,
        target_modules=target_modules(base, config.lora.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, lora)


def load_adapter(base: Any, folder: str) -> Any:
    """`base` with the adapter of `folder`, for inference; ValueError where it does not fit, or is no plain LoRA."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    trained_on = check_adapter(Path(folder)).get("base_model_name_or_path")
    weights = Path(folder) / "adapter_model.safetensors"
    try:
        with safe_open(weights, "pt") as stored:
            names = set(stored.keys())
        model = PeftModel.from_pretrained(base, folder).eval()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: cannot be read ({_one_line(error)}); copy or train the adapter again") from None
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise _misfit(base, folder, trained_on, str(error).strip().splitlines()[-1:]) from None
    # peft takes an adapter for more or for fewer layers with no more than a warning.
    if names != set(get_peft_model_state_dict(model, save_embedding_layers=False)):
        raise _misfit(base, folder, trained_on, ["the two have other layers"])
    return model


def _misfit(base: Any, folder: str, trained_on: str | None, why: list[str]) -> ValueError:
    name, reason = trained_on or "another base", "".join(why).strip()[:300]
    return ValueError(
        f"{folder}: this adapter does not fit the base {base.name_or_path}; it was trained on {name} ({reason})"
    )


def _check_source(model: ModelConfig) -> None:
    from transformers.utils import find_adapter_config_file

    location, source = base_location(model.base_model), _source(model)
    if Path(location).is_dir():
        check_base(Path(location))
    elif find_adapter_config_file(location, revision=source["revision"]):
        raise ValueError("it is an adapter, no base; give the base that it was trained on")


def _source(model: ModelConfig) -> dict[str, Any]:
    source: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if not Path(base_location(model.base_model)).is_dir():
        source["revision"] = model.revision
    return source


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]


def _cannot_load(model: ModelConfig, error: Exception) -> ValueError:
    text = " ".join(str(error).split())
    local = Path(base_location(model.base_model)).is_dir()
    if "trust_remote_code" in text and not model.trust_remote_code:
        why = (
            "it brings Python code of its own, which does not run unless it is asked for; read that code, and if you trust "
            "it give trust_remote_code=true"
        )
    elif not local and "file named model.safetensors" in text:
        why = f"it has no safetensors; {CONVERT}"
    elif local or not isinstance(error, OSError):
        why = _one_line(error) or type(error).__name__
    elif re.search(r"gated|40[13] Client Error", text, re.IGNORECASE):
        why = (
            f"the model is gated; accept its licence at huggingface.co/{model.base_model} and log in with "
            "'hf auth login' (or set HF_TOKEN)"
        )
    else:
        why = (
            "it can neither be downloaded nor found in the local cache; check the name and the network, and for a gated "
            f"model accept its licence at huggingface.co/{model.base_model} and log in with 'hf auth login'"
        )
    return ValueError(
        f"cannot load base_model {shown(model.base_model)}: {why}. "
        "Without it, preset=embedded trains the small model that ships here"
    )
