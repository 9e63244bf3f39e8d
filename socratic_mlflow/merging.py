"""An adapter merged into its unquantized base, and whether what was written answers as the adapter does.

Quantization changes a base a little, so a merged model is held to (unquantized base + adapter), where only rounding may
differ; how its replies compare with those of the quantized base is told, not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.style import socratic_style

if TYPE_CHECKING:
    import torch

    from socratic_mlflow.named_model import NamedModel
    from socratic_mlflow.style_profile import StyleProfile
    from socratic_mlflow.tokens import ChatFormat

# Largest relative difference of the logits (Euclidean norm), by the dtype of the merged weights. Merging rounds every
# weight once more: bfloat16 keeps 8 bits.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
# Tokens of a compared reply.
_LONGEST = 64


class UnlikeError(Exception):
    """A merged model answers otherwise than its adapter; its text is one line."""


@dataclass(frozen=True)
class Likeness:
    """How a merged model answers. `difference` is its logits' to those of the unquantized base with the adapter, relative
    to their norm, over `tokens` tokens, of which the share `same_choice` has the same likeliest next token.

    `replies` are (question, the adapter's on the base as it was trained, the merged model's), greedy; `styles` the mean
    scores of these two, or None where there is no profile to score by.
    """

    dtype: str
    difference: float
    same_choice: float
    tokens: int
    replies: tuple[tuple[str, str, str], ...]
    quantization: str
    styles: tuple[float, float] | None

    @property
    def identical(self) -> int:
        """How many of the replies are the same."""
        return sum(ours == theirs for _, ours, theirs in self.replies)

    @property
    def told_styles(self) -> str:
        """`styles` in words; empty where there are none."""
        return "style {:.3f} with the adapter, {:.3f} merged".format(*self.styles) if self.styles else ""


def write_merged(
    named: NamedModel, adapter: Path, folder: Path, questions: Sequence[str], profile: StyleProfile | None
) -> Likeness:
    """Write the merged model into `folder`, and compare what was written with the adapter (of that folder); the replies
    are scored where there is a `profile`.

    UnlikeError where the two answer differently.
    """
    from socratic_mlflow.model import load_adapter, load_base

    config = unquantized(named.config)
    before = _answers(named.model, named.chat, questions)
    dialogues = [_dialogue(question, reply) for question, reply in zip(questions, before, strict=True)]
    whole = load_adapter(load_base(config.model, config.quantization), str(adapter))
    expected = logits_of(whole, named.chat, dialogues)
    merged = whole.merge_and_unload(safe_merge=True)
    # Not every base says what ends a turn in its chat template.
    merged.generation_config.eos_token_id = list(named.chat.stop_ids)
    merged.save_pretrained(folder)
    named.chat.tokenizer.save_pretrained(folder)
    del whole, merged
    written = _load_written(folder, config)
    difference, same = compare(logits_of(written, named.chat, dialogues), expected)
    dtype = config.quantization.bnb_4bit_compute_dtype
    if not difference <= TOLERANCE[dtype]:
        raise UnlikeError(
            f"the merged model answers otherwise than its adapter (its logits differ by {difference:.2g}, more than "
            f"{TOLERANCE[dtype]:g}); nothing was written, export the adapter instead"
        )
    after = _answers(written, named.chat, questions)
    return Likeness(
        dtype=dtype,
        difference=difference,
        same_choice=same,
        tokens=len(expected),
        replies=tuple(zip(questions, before, after, strict=True)),
        quantization=_kind(named.config),
        styles=(_mean_style(before, profile), _mean_style(after, profile)) if profile else None,
    )


def unquantized(config: Config) -> Config:
    """`config` with its base as it is stored: not quantized, in its own dtype."""
    from transformers import AutoConfig

    from socratic_mlflow.model import base_location

    model = config.model
    found = AutoConfig.from_pretrained(
        base_location(model.base_model), revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    dtype = str(found.dtype or found.get_text_config().dtype or "float32").removeprefix("torch.")
    changes = {"load_in_4bit": False, "bnb_4bit_compute_dtype": dtype if dtype in TOLERANCE else "float32"}
    return with_values(config, {f"quantization.{name}": value for name, value in changes.items()})


def _load_written(folder: Path, config: Config) -> Any:
    """The model in `folder` as anybody loads it."""
    from transformers import AutoModelForCausalLM

    from socratic_mlflow.model import device

    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map={"": device()},
        attn_implementation=config.model.attn_implementation,
        use_safetensors=True,
    ).eval()


def _answers(model: Any, chat: ChatFormat, questions: Sequence[str]) -> list[str]:
    asked = [[{"role": "user", "content": question}] for question in questions]
    return [reply.text for reply in generate(model, chat, asked, Sampling(_LONGEST), len(asked))]


def _dialogue(question: str, reply: str) -> list[dict[str, str]]:
    said = [{"role": "user", "content": question}]
    return [*said, {"role": "model", "content": reply}] if reply else said


def logits_of(model: Any, chat: ChatFormat, dialogues: Sequence[list[dict[str, str]]]) -> torch.Tensor:
    """(tokens of all dialogues, vocabulary) in float32 on the CPU."""
    import torch

    rows = []
    with torch.inference_mode():
        for messages in dialogues:
            ids = chat.encode(messages).input_ids if len(messages) % 2 == 0 else chat.prompt(messages)
            rows.append(model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu())
    return torch.cat(rows)


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """(relative difference, share of tokens with the same likeliest one after them)."""
    import torch

    if ours.shape != theirs.shape:
        return float("inf"), 0.0
    difference = torch.dist(ours, theirs) / torch.linalg.vector_norm(theirs)
    return float(difference), float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())


def _kind(config: Config) -> str:
    chosen = config.quantization
    return f"{chosen.bnb_4bit_quant_type} 4-bit" if chosen.load_in_4bit else "unquantized"


def _mean_style(replies: Sequence[str], profile: StyleProfile) -> float:
    return sum(socratic_style(reply, profile) for reply in replies) / max(len(replies), 1)
