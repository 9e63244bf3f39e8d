"""The one typed configuration: every default, its unit, its allowed range and its help stand here and nowhere else.

Command-line flags, YAML files, MLproject parameters and logged params are derived from these dataclasses (see
`options.py`). The field defaults are the recipe for google/gemma-2-2b-jpn-it on one GPU; `presets.py` names what another
preset changes. Standard library only.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

# As many optimizer steps as nobody makes; beyond it libraries count in types that overflow.
_MOST_STEPS = 10**9
# Characters: the longest path of Linux, and what of a wrong value an error message shows.
_LONGEST_TEXT, _SHOWN = 4096, 100
_KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
# What MLflow's stores and the addresses of a model (models:/NAME@ALIAS) leave of a name.
_NAME_RULE = "1 to 255 bytes of UTF-8, none of / : @ ? # % \\, no space at the ends, not only dots"
_MODEL_NAME = re.compile(r"(?!\.+$)(?!\s)[^/:@?#%\\]+(?<!\s)")


def _option(
    default: Any,
    help: str,
    *,
    flag: str = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with what a person needs to know of it; `flag` is its short name where that is not the field's own."""
    meta = {"help": help, "flag": flag, "low": low, "above": above, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


def allowed(spec: dataclasses.Field[Any]) -> str:
    """The values `spec` takes, in words for an error message or help; empty where anything goes."""
    meta = spec.metadata
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    words = []
    if meta["low"] is not None:
        words.append(f"at least {meta['low']:.12g}")
    if meta["above"] is not None:
        words.append(f"above {meta['above']:.12g}")
    if meta["high"] is not None:
        words.append(f"at most {meta['high']:.12g}")
    return " and ".join(words)


def shown(value: Any) -> str:
    """`value` as an error message shows it: in one line, and no longer than what a person reads."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _problem(value: Any, spec: dataclasses.Field[Any]) -> str:
    """What `spec` takes, in words, where that is not `value`; else empty."""
    kind = {"bool": bool, "int": int, "float": int | float, "str": str}[str(spec.type)]
    if not isinstance(value, kind) or (isinstance(value, bool) and spec.type != "bool"):
        return f"{_KINDS[str(spec.type)]} {allowed(spec)}".strip()
    if isinstance(value, str):
        return allowed(spec) if spec.metadata["choices"] and value not in spec.metadata["choices"] else _text_problem(value)
    return "" if isinstance(value, bool) or _in_range(value, spec.metadata) else allowed(spec)


def _text_problem(value: str) -> str:
    if not value.strip() or len(value) > _LONGEST_TEXT:
        return f"text of 1 to {_LONGEST_TEXT} characters that is not empty"
    # A surrogate stands for a byte that is no UTF-8; neither a store nor a file name in a log takes it.
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        return "text without control characters, in UTF-8"
    return ""


def _in_range(value: int | float, meta: Any) -> bool:
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (meta["low"] is None or value >= meta["low"])
        and (meta["above"] is None or value > meta["above"])
        and (meta["high"] is None or value <= meta["high"])
    )


class _Section:
    """Checks each field of a section against the type and the range that the field itself declares."""

    def __post_init__(self) -> None:
        """Raise ValueError (field, value, allowed range) for the first field out of its range."""
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            if wanted := _problem(value, spec):
                section = type(self).__name__.removesuffix("Config").lower()
                raise ValueError(f"{section}.{spec.name} is {shown(value)}; allowed: {wanted}")


@dataclass(frozen=True)
class RunConfig(_Section):
    """Where a run's files lie and how it begins."""

    preset: str = _option(
        "auto",
        "hyper-parameters that belong together; auto takes gemma-2-2b-jpn-it where a CUDA GPU is present, else embedded",
        choices=("auto", "gemma-2-2b-jpn-it", "embedded"),
    )
    output_dir: str = _option(
        "auto", "folder for checkpoints; auto is outputs/PRESET-DIGEST, the same for the same configuration"
    )
    resume: str = _option(
        "auto",
        "auto: go on from the newest checkpoint in output_dir if there is one; must: stop if there is none; "
        "never: stop if output_dir holds a training",
        choices=("auto", "must", "never"),
    )
    require_tracking: bool = _option(
        False, "stop at the start where MLflow's server cannot be reached; without it, the journal waits for the server"
    )
    num_processes: int = _option(
        1,
        "processes that train together, each on a GPU of its own or a share of the cores; a step sees as many dialogues as "
        "with one",
        low=1,
        high=1024,
    )
    accelerate_config: str = _option(
        "none", "accelerate's YAML file for several processes, as 'accelerate config' writes it (docs/processes.md)"
    )


@dataclass(frozen=True)
class ModelConfig(_Section):
    """The base model under the adapter."""

    base_model: str = _option(
        "google/gemma-2-2b-jpn-it",
        "Hub id or local folder of a causal chat model; 'embedded' is the one that ships here",
    )
    revision: str = _option("main", "branch, tag or commit of a Hub model")
    attn_implementation: str = _option(
        "eager",
        "attention kernel (Gemma-2 has no SDPA, because of its logit soft-capping)",
        choices=("eager", "sdpa", "flex_attention", "flash_attention_2"),
    )
    trust_remote_code: bool = _option(False, "run Python code that comes with the base model")


@dataclass(frozen=True)
class DataConfig(_Section):
    """The dialogues to learn from."""

    path: str = _option(
        "bundled",
        "JSON list or JSONL (.gz too) of {'messages': [...]}; 'bundled' are the ones that ship here",
        flag="data",
    )
    test_size: float = _option(0.2, "share of dialogues held out for evaluation", above=0, high=0.9)
    max_length: int = _option(512, "tokens; longer dialogues are left out, counted and named", low=16, high=131072)


@dataclass(frozen=True)
class TrainingConfig(_Section):
    """Optimization; names follow transformers.TrainingArguments where they mean the same."""

    epochs: int = _option(30, "passes over the training dialogues", low=1, high=100000)
    max_steps: int = _option(0, "optimizer steps; 0: as many as the epochs make", low=0, high=_MOST_STEPS)
    learning_rate: float = _option(8e-5, "peak learning rate", above=0, high=1)
    weight_decay: float = _option(0.06, "AdamW's decoupled weight decay", low=0, high=1)
    warmup_ratio: float = _option(0.25, "share of the steps over which the learning rate rises", low=0, high=0.99)
    lr_scheduler_type: str = _option(
        "cosine_with_restarts",
        "shape of the learning rate after warm-up",
        choices=("cosine_with_restarts", "cosine", "linear", "constant_with_warmup", "constant"),
    )
    batch_size: int = _option(4, "dialogues in one forward pass", low=1, high=65536)
    eval_batch_size: int = _option(2, "held-out dialogues in one forward pass", low=1, high=65536)
    packing: bool = _option(True, "several dialogues in one row without padding; changes no gradient")
    gradient_accumulation_steps: int = _option(8, "forward passes to one optimizer step", low=1, high=65536)
    gradient_checkpointing: bool = _option(True, "recompute activations to save memory")
    max_grad_norm: float = _option(0.5, "gradients are clipped to this norm", above=0, high=1e6)
    optim: str = _option(
        "adamw_torch_fused",
        "optimizer",
        choices=("adamw_torch_fused", "adamw_torch", "paged_adamw_8bit", "adamw_bnb_8bit"),
    )
    eval_steps: int = _option(20, "evaluate and save every so many optimizer steps", low=1, high=_MOST_STEPS)
    save_total_limit: int = _option(3, "checkpoints kept on disk, the best one always among them", low=1, high=100000)
    dataloader_num_workers: int = _option(2, "loader processes", low=0, high=256)
    dataloader_pin_memory: bool = _option(True, "page-locked host memory for faster copies to a GPU")
    empty_cache_steps: int = _option(50, "release cached GPU memory every so many steps; 0: never", low=0, high=_MOST_STEPS)
    seed: int = _option(42, "seed of split, adapter, order and dropout", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class LoraConfig(_Section):
    """The low-rank adapter (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = _option(16, "rank", flag="lora_r", low=1, high=4096)
    alpha: int = _option(32, "scale is alpha / r", flag="lora_alpha", low=1, high=65536)
    dropout: float = _option(0.1, "dropout on the adapter's input", flag="lora_dropout", low=0, high=0.99)
    bias: str = _option("none", "which biases train", flag="lora_bias", choices=("none", "all", "lora_only"))
    target_modules: str = _option(
        "auto", "comma-separated projections; auto: q, k, v and o of attention, as the base names them"
    )


@dataclass(frozen=True)
class QuantizationConfig(_Section):
    """How the frozen base is stored (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool = _option(True, "quantize the base to 4 bits with bitsandbytes")
    bnb_4bit_quant_type: str = _option("nf4", "4-bit data type", choices=("nf4", "fp4"))
    bnb_4bit_use_double_quant: bool = _option(True, "quantize the quantization constants as well")
    bnb_4bit_compute_dtype: str = _option(
        "auto",
        "dtype of the arithmetic; auto: bfloat16 on a GPU that has it, else float16; float32 without a GPU",
        choices=("auto", "bfloat16", "float16", "float32"),
    )


@dataclass(frozen=True)
class EvaluationConfig(_Section):
    """What is asked of the model at every evaluation, and which score of its replies chooses the best checkpoint."""

    questions: str = _option(
        "bundled",
        "opening questions to answer: 'bundled', 'heldout' (first messages of the held-out dialogues) or a file",
    )
    style_profile: str = _option("socratic", "the style to score: 'socratic', 'gozaru' or a YAML file (docs/style.md)")
    metric_for_best_model: str = _option(
        "socratic_style",
        "which score chooses the best checkpoint and the champion; ties go to the lower evaluation loss",
        choices=("socratic_style", "socratic_tone"),
    )
    max_samples: int = _option(100, "at most so many questions, and so many held-out dialogues", low=1, high=100000)
    max_new_tokens: int = _option(128, "tokens; a reply is cut there", low=1, high=8192)
    generation_batch_size: int = _option(25, "replies generated together", low=1, high=65536)


@dataclass(frozen=True)
class RegistryConfig(_Section):
    """Where the best adapter goes."""

    registered_model_name: str = _option("socratic-gemma", "model name in the MLflow registry")
    promote: str = _option(
        "if_better",
        "if_better: Production and champion when the style is at least the present champion's, else Staging and "
        "challenger; always; never: Staging and challenger",
        choices=("if_better", "always", "never"),
    )
    register: bool = _option(True, "register the best adapter; false leaves it in output_dir, and nothing is promoted")

    def __post_init__(self) -> None:
        """Raise ValueError for a name that the registry would refuse only after the training."""
        super().__post_init__()
        name = self.registered_model_name
        # The file store makes a folder of it.
        if not _MODEL_NAME.fullmatch(name) or len(name.encode()) > 255:
            raise ValueError(f"registry.registered_model_name is {shown(name)}; allowed: {_NAME_RULE}")


@dataclass(frozen=True)
class Config:
    """The whole configuration; `flatten` gives it as dotted keys."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)


def flatten(config: Config) -> dict[str, Any]:
    """Every field under its dotted key, e.g. {'training.learning_rate': 8e-05, ...}, in declared order."""
    return {f"{name}.{key}": value for name, part in dataclasses.asdict(config).items() for key, value in part.items()}


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """A copy of `config` with the dotted keys of `values` replaced; ValueError if a value is out of its range."""
    by_section: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        by_section.setdefault(section, {})[name] = value
    parts = {name: dataclasses.replace(getattr(config, name), **changes) for name, changes in by_section.items()}
    return dataclasses.replace(config, **parts)
