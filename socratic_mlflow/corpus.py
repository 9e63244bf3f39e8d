"""From the configured data file to what the Trainer and the evaluation take: split, encoded, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.config import Config
from socratic_mlflow.dialogues import (
    Dialogue,
    Message,
    Skip,
    read_dialogues,
    read_questions,
    skip_counts,
    split,
    text_digest,
)
from socratic_mlflow.quality import mean
from socratic_mlflow.style import socratic_style, socratic_tone
from socratic_mlflow.style_profile import StyleProfile, read_profile
from socratic_mlflow.tokens import ChatFormat, Encoded, TurnMarkerError, encode_dialogues


@dataclass(frozen=True)
class Corpus:
    """Everything that a training learns from and is judged by.

    `not_evaluated` counts held-out dialogues beyond `max_samples`, which serve nothing. `reference_style` is the mean style
    of the held-out dialogues' own replies under the style `profile`, `reference_tone` their mean tone: the goal.
    """

    train: list[Dialogue]
    held_out: list[Dialogue]
    train_encoded: list[Encoded]
    held_out_encoded: list[Encoded]
    not_evaluated: int
    skipped: list[Skip]
    digest: str
    questions: list[str]
    questions_digest: str
    profile: StyleProfile
    reference_style: float
    reference_tone: float

    def params(self) -> dict[str, Any]:
        """Counts and digests for the run's params, under `data.` and `evaluation.`."""
        counts = {f"data.skipped.{reason}": count for reason, count in skip_counts(self.skipped).items()}
        return counts | {
            "data.digest": self.digest,
            "data.train_dialogues": len(self.train),
            "data.held_out_dialogues": len(self.held_out),
            "data.held_out_not_evaluated": self.not_evaluated,
            "data.skipped": len(self.skipped),
            "data.train_tokens": sum(len(dialogue.input_ids) for dialogue in self.train_encoded),
            "evaluation.questions_digest": self.questions_digest,
            "evaluation.style_profile_name": self.profile.name,
            "evaluation.style_profile_digest": self.profile.digest(),
            "evaluation.questions_asked": len(self.questions),
        }


def load_corpus(config: Config, chat: ChatFormat) -> Corpus:
    """Read, check, encode and split the dialogues, and pick the questions; ValueError (one line) if that cannot be."""
    file = read_dialogues(config.data.path)
    used, encoded, left_out = encode_dialogues(chat, file.dialogues, config.data.max_length)
    if not used:
        raise ValueError(f"{config.data.path}: no usable dialogue; {_all_left_out(left_out, config.data.max_length)}")
    train, held_out = split(used, config.data.test_size, config.training.seed)
    by_place = {dialogue.place: tokens for dialogue, tokens in zip(used, encoded, strict=True)}
    all_held_out, held_out = held_out, evenly(held_out, config.evaluation.max_samples)
    questions, profile = pick_questions(config, held_out), read_profile(config.evaluation.style_profile)
    where = config.data.path if config.evaluation.questions == "heldout" else config.evaluation.questions
    check_questions(chat, questions, config.data.max_length, where)
    replies = [message["content"] for dialogue in held_out for message in dialogue.messages if message["role"] == "model"]
    return Corpus(
        train=train,
        held_out=held_out,
        train_encoded=[by_place[dialogue.place] for dialogue in train],
        held_out_encoded=[by_place[dialogue.place] for dialogue in held_out],
        not_evaluated=len(all_held_out) - len(held_out),
        skipped=file.skipped + left_out,
        digest=file.digest,
        questions=questions,
        questions_digest=text_digest(questions),
        profile=profile,
        reference_style=mean([socratic_style(reply, profile) for reply in replies]),
        reference_tone=mean([socratic_tone(reply, profile) for reply in replies]),
    )


def _all_left_out(left_out: Sequence[Skip], max_length: int) -> str:
    counts = skip_counts(left_out)
    if counts.keys() == {"too_long"}:
        return f"all {len(left_out)} are longer than max_length {max_length} tokens"
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def pick_questions(config: Config, held_out: list[Dialogue]) -> list[str]:
    """At most `max_samples` opening questions: the bundled list, the held-out dialogues' own, or those of a file."""
    if config.evaluation.questions == "heldout":
        openings = list(dict.fromkeys(dialogue.messages[0]["content"] for dialogue in held_out))
    else:
        openings, _ = read_questions(config.evaluation.questions)
    return evenly(openings, config.evaluation.max_samples)


def check_questions(chat: ChatFormat, questions: Sequence[str], max_length: int, where: str) -> None:
    """ValueError (one line) where a question's prompt has more than `max_length` tokens; `where` names its file."""
    for question in questions:
        messages = [{"role": "user", "content": question}]
        if (least := chat.at_least(messages)) > max_length:
            count = f"at least {least}"
        elif (exact := _prompt_length(chat, messages, where)) > max_length:
            count = str(exact)
        else:
            continue
        raise ValueError(
            f"{where}: the question {_beginning(question)} is a prompt of {count} tokens, more than max_length "
            f"{max_length}; shorten it or raise max_length"
        )


def _prompt_length(chat: ChatFormat, messages: list[Message], where: str) -> int:
    try:
        return len(chat.prompt(messages))
    except TurnMarkerError as error:
        raise ValueError(f"{where}: the question {_beginning(messages[0]['content'])}: {error}") from None


def _beginning(question: str) -> str:
    words = " ".join(question[:80].split())
    return repr(words[:40] + "…" if len(question) > 40 else words)


def evenly(items: list[Any], most: int) -> list[Any]:
    """At most `most` of `items`, evenly spaced, so that a list sorted by theme keeps all its themes."""
    if len(items) <= most:
        return items
    return [items[index * len(items) // most] for index in range(most)]
