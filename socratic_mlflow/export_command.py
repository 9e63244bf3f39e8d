"""What `socratic-mlflow export` does: a named model -> a folder that plain peft or transformers loads."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.model_names import full_name, load_full
from socratic_mlflow.new_folder import check_free, new_folder
from socratic_mlflow.options import parse_values
from socratic_mlflow.quiet import quiet

if TYPE_CHECKING:
    from socratic_mlflow.merging import Likeness
    from socratic_mlflow.model_card import Base
    from socratic_mlflow.named_model import NamedModel
    from socratic_mlflow.style_profile import StyleProfile

# How many questions a merged model and its adapter are both asked.
_QUESTIONS = 5
_BASE_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def export(model: str, to: str, output_dir: str, given: Mapping[str, Any]) -> int:
    """Write `model` to the new folder `output_dir` as `to` ('adapter' or 'merged'); returns the exit code.

    ValueError (one line) where there is nothing to export, or the folder holds something.
    """
    quiet()
    fields, place = parse_values(given), check_free(output_dir)
    if model == "base":
        raise ValueError("base has no adapter, so there is nothing to export; name a version, a run or an adapter folder")
    from socratic_mlflow.interruption import Interruption
    from socratic_mlflow.merging import UnlikeError
    from socratic_mlflow.progress import say

    name = full_name(model)
    with Interruption():
        say(f"loading {name} ...")
        named = load_full(name, fields)
        try:
            with new_folder(place) as folder:
                likeness = _write(named, to, folder)
        except UnlikeError as error:
            print(f"socratic-mlflow: error: {error}", file=sys.stderr, flush=True)
            return 1
        say(f"wrote {to} to {output_dir}: {', '.join(sorted(file.name for file in place.iterdir()))}")
        if likeness:
            _tell(likeness)
    return 0


def _write(named: NamedModel, to: str, folder: Path) -> Likeness | None:
    from socratic_mlflow.model import base_revision
    from socratic_mlflow.model_card import Card, base_for_card
    from socratic_mlflow.origin import trace

    origin, profile = trace(named), _profile(named)
    # Of what was loaded: anybody can edit a tag.
    base = base_for_card(_base_name(named.config.model.base_model), base_revision(named.config.model))
    likeness = None
    if to == "merged":
        likeness = _write_merged(named, folder, profile)
    else:
        _write_adapter(named, base, folder)
    card = Card(base, origin, profile.name if profile else "", named.chat.stop_ids, likeness)
    (folder / "README.md").write_text(card.text(), encoding="utf-8")
    add_notice(base, folder)
    return likeness


def _profile(named: NamedModel) -> StyleProfile | None:
    """The one that `named` was trained with, or None (and a line that says why) where it cannot be read any more."""
    from socratic_mlflow.origin import profile_of
    from socratic_mlflow.progress import say

    try:
        return profile_of(named, None)
    except ValueError as error:
        say(f"note   no reply is scored, for the style profile cannot be read: {' '.join(str(error).split())}")
        return None


def _base_name(loaded: str) -> str:
    """The base as a training named it; the embedded one travels along with its models, which are loaded with that copy."""
    from socratic_mlflow.model import EMBEDDED_BASE, base_location

    copy = Path(loaded)
    travelled = copy.parts[-2:] == ("artifacts", "base") and (copy.parents[1] / "MLmodel").is_file()
    return EMBEDDED_BASE if travelled or loaded == base_location(EMBEDDED_BASE) else loaded


def _write_adapter(named: NamedModel, base: Base, folder: Path) -> None:
    """The adapter as peft writes it, its tokenizer and, where no one else has it, its base."""
    from socratic_mlflow.model import EMBEDDED_BASE, base_location

    config = named.model.peft_config[named.model.active_adapter]
    if base.name == EMBEDDED_BASE:
        # A name that this program knows; the place where it was loaded from means nothing elsewhere.
        config.base_model_name_or_path = EMBEDDED_BASE
        _copy_base(Path(base_location(named.config.model.base_model)), folder / "base")
    elif not base.folder:
        config.base_model_name_or_path, config.revision = base.name, base.revision
    _save_adapter(named, folder)
    named.chat.tokenizer.save_pretrained(folder)


def _save_adapter(named: NamedModel, folder: Path) -> None:
    # 'auto' would ask the Hub whether the base has grown.
    named.model.save_pretrained(folder, save_embedding_layers=False)


def _copy_base(source: Path, folder: Path) -> None:
    folder.mkdir()
    for name in _BASE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write_merged(named: NamedModel, folder: Path, profile: StyleProfile | None) -> Likeness:
    from socratic_mlflow.corpus import evenly
    from socratic_mlflow.dialogues import read_questions
    from socratic_mlflow.merging import write_merged

    questions = evenly(read_questions("bundled")[0], _QUESTIONS)
    scratch = folder / ".adapter"
    try:
        _save_adapter(named, scratch)
        return write_merged(named, scratch, folder, questions, profile)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def add_notice(base: Base, folder: Path) -> None:
    """Gemma's terms want this sentence in whatever is passed on."""
    from socratic_mlflow.model_card import GEMMA_NOTICE

    if base.licence == "gemma":
        (folder / "NOTICE").write_text(GEMMA_NOTICE, encoding="utf-8")


def _tell(alike: Likeness) -> None:
    from socratic_mlflow.progress import say

    say(
        f"check  against the unquantized base with the adapter: logits differ by {alike.difference:.2g} of their norm, "
        f"{alike.same_choice:.1%} of {alike.tokens} tokens have the same likeliest one after them"
    )
    say(
        f"       against the {alike.quantization} base with the adapter: {alike.identical} of {len(alike.replies)} replies "
        f"are the same{f'; {alike.told_styles}' if alike.styles else ''}"
    )
