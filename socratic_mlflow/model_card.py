"""The README.md of an exported model, as the Hugging Face Hub wants it: what it is, on what terms, how to use it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from socratic_mlflow.model import EMBEDDED_BASE
from socratic_mlflow.redaction import redact

if TYPE_CHECKING:
    from socratic_mlflow.bootstrap import Interval
    from socratic_mlflow.merging import Likeness
    from socratic_mlflow.origin import Origin

QUESTION = "正義とは何でしょうか？"
GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"

# Gemma 1 to 3 and what was made of them; later ones have other terms.
_GEMMA = re.compile(r"gemma-(1\.1|2b|7b|2|3)(?![0-9.])")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN_PARAMS = ("training.", "lora.", "quantization.", "data.max_length", "data.test_size")
_LICENCES = {
    "mit": "The base was made by this project and is under the MIT licence, Copyright (c) 2026 The Socratic MLflow "
    "authors; so is the adapter.",
    "gemma": "The base is Gemma or was made from it. Weights derived from Gemma carry its terms: whoever uses or passes on "
    "this model is bound by the Gemma Terms of Use and its Prohibited Use Policy (ai.google.dev/gemma/terms, "
    "ai.google.dev/gemma/prohibited_use_policy). The weights here are modified: fine-tuned with LoRA. See NOTICE.",
    "unknown": "The licence of the base is not known to the program that wrote this card. What is derived from a base is "
    "bound by its terms: look them up, and correct the line `license` above, before you pass this on.",
}


@dataclass(frozen=True)
class Base:
    """A base as a card names it: `name` is 'embedded', a name on the Hub, or only a folder's own name."""

    name: str
    revision: str
    folder: bool

    @property
    def licence(self) -> str:
        """The Hub's identifier of its licence; 'unknown' where it cannot be told from the name."""
        if self.name == EMBEDDED_BASE:
            return "mit"
        return "gemma" if not self.folder and _GEMMA.search(self.name.lower()) else "unknown"

    @property
    def on_hub(self) -> bool:
        """Whether its name is one of the Hub."""
        return not self.folder and bool(_HUB_NAME.fullmatch(self.name))


@dataclass(frozen=True)
class Card:
    """All that goes into a card; `profile` is the style's name or empty, `stop_ids` end a turn.

    `likeness` is there for a merged model.
    """

    base: Base
    origin: Origin
    profile: str
    stop_ids: Sequence[int]
    likeness: Likeness | None = None

    def text(self) -> str:
        """The whole README.md."""
        parts = [self._title(), _licence(self.base), self._use(), self._scores(), self._likeness(), self._training()]
        return redact(f"---\n{self._metadata()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n")

    def _metadata(self) -> str:
        from huggingface_hub import ModelCardData

        known = self.base.on_hub or self.base.name == EMBEDDED_BASE
        data = ModelCardData(
            base_model=self.base.name if known else None,
            base_model_relation=("finetune" if self.likeness else "adapter") if known else None,
            library_name="transformers" if self.likeness else "peft",
            pipeline_tag="text-generation",
            language=["ja"],
            license=self.base.licence,
            tags=["lora", "qlora", "conversational", "socratic-mlflow", *([] if self.likeness else ["base_model:adapter"])],
        )
        return data.to_yaml().strip()

    def _title(self) -> str:
        origin, kind = self.origin, "A chat model" if self.likeness else "A LoRA adapter for a chat model"
        came = [origin.version and f"version {_code(origin.version)}", origin.run_id and f"run {_code(origin.run_id)}"]
        came += [origin.step and f"step {_line(origin.step)}"]
        named = ", ".join(part for part in came if part)
        style = f" ({_code(self.profile)})" if self.profile else ""
        digest = f"SHA-256 {_code(origin.data_digest)}" if origin.data_digest else "not known"
        return (
            f"# {_line(origin.version.split('/')[1]) if origin.version else 'Socratic chat model'}\n\n"
            f"{kind} that answers in Japanese in a speaking style{style}, fine-tuned with QLoRA by socratic-mlflow"
            f"{f' ({named})' if named else ''}.\n\n"
            f"- Base: {self._base()}\n- Data: dialogues, {digest}"
        )

    def _base(self) -> str:
        base = self.base
        if base.name == EMBEDDED_BASE:
            where = "merged into the weights here" if self.likeness else "a copy lies in `base/`"
            return f"`embedded`, the small model that socratic-mlflow brings ({where}); SHA-256 {_code(base.revision)}"
        return f"{_code(base.name)}, {'a local folder; SHA-256' if base.folder else 'revision'} {_code(base.revision)}"

    def _use(self) -> str:
        load = _MERGED if self.likeness else _ADAPTER.replace("BASE", self._base_arguments())
        stop = "" if self.likeness else f", eos_token_id={list(self.stop_ids)}"
        first = "" if self.likeness else "from peft import PeftModel\n"
        # transformers takes no base from a subfolder where an adapter lies above it, so that must be on the disk.
        needs_files = self.base.name == EMBEDDED_BASE and not self.likeness
        where = 'what huggingface_hub.snapshot_download("NAME") gives' if needs_files else "its name on the Hub"
        # The base's name comes last: it may hold any of these words.
        code = _TALK.replace("IMPORT", first).replace("STOP", stop).replace("WHERE", where).replace("LOAD", load)
        return f"## How to use it\n\n```python\n{code}```"

    def _base_arguments(self) -> str:
        base = self.base
        if base.name == EMBEDDED_BASE:
            return 'f"{folder}/base"'
        return repr(base.name) if base.folder else f"{base.name!r}, revision={base.revision!r}"

    def _scores(self) -> str:
        found = [f"| {_WORDS[name]} | {_shown(value)} |" for name, value in self.origin.scores.items()]
        later = [f"- {_line(text)}" for text in self.origin.evaluated]
        if not found and not later:
            return "## Scores\n\nNot known."
        table = "| on generated replies, from 0 to 1 | mean and 95% interval |\n| --- | --- |\n" + "\n".join(found)
        how = "Measured with the adapter on the base as the training had it."
        return "\n\n".join(part for part in ["## Scores", table if found else "", how, "\n".join(later)] if part)

    def _likeness(self) -> str:
        alike = self.likeness
        if alike is None:
            return ""
        rows = "\n".join(f"| {_cell(asked)} | {_cell(ours)} | {_cell(new)} |" for asked, ours, new in alike.replies)
        return (
            "## Merged and adapter\n\n"
            f"The weights are {alike.dtype}. Against the unquantized base with the adapter, over {alike.tokens} tokens: "
            f"the logits differ by {alike.difference:.2g} of their norm, and {alike.same_choice:.1%} of the tokens have "
            "the same likeliest one after them.\n\n"
            f"Against the {alike.quantization} base with the adapter, as it was trained and scored: {alike.identical} of "
            f"{len(alike.replies)} replies are the same{f'; mean {alike.told_styles}' if alike.styles else ''}.\n\n"
            f"| question | adapter ({alike.quantization} base) | merged |\n| --- | --- | --- |\n{rows}"
        )

    def _training(self) -> str:
        chosen = {key: value for key, value in self.origin.params.items() if key.startswith(_SHOWN_PARAMS)}
        if not chosen:
            return ""
        rows = "\n".join(f"| `{_cell(key)}` | {_cell(value)} |" for key, value in sorted(chosen.items()))
        return f"## Training\n\n| parameter | value |\n| --- | --- |\n{rows}"


_WORDS = {"socratic_style": "style", "socratic_tone": "tone"}
_ADAPTER = "base = AutoModelForCausalLM.from_pretrained(BASE)\nmodel = PeftModel.from_pretrained(base, folder)"
_MERGED = "model = AutoModelForCausalLM.from_pretrained(folder)"
_TALK = f'''IMPORTfrom transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or WHERE
tokenizer = AutoTokenizer.from_pretrained(folder)
LOAD
messages = [{{"role": "user", "content": "{QUESTION}"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
made = model.generate(**inputs, max_new_tokens=128, do_sample=FalseSTOP)
print(tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
'''


def base_for_card(base_model: str, revision: str) -> Base:
    """`base_model` as a configuration has it; of a folder only its own name is told."""
    folder = base_model != EMBEDDED_BASE and Path(base_model).is_dir()
    return Base(Path(base_model).resolve().name if folder else base_model, revision, folder)


def _licence(base: Base) -> str:
    return f"## Licence\n\n{_LICENCES[base.licence]}"


def _shown(value: Interval) -> str:
    between = "" if math.isnan(value.low) else f" ({value.low:.3f} to {value.high:.3f})"
    return f"{value.mean:.3f}{between}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return "`" + _line(text).replace("`", "'") + "`"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
