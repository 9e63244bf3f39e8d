"""From the configured data file to what the Trainer and the evaluation take: split, encoded, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.config import Config
from socratic_mlflow.dialogues import (
    Dialogue,
    DialogueStream,
    Message,
    Skip,
    read_questions,
    skip_counts,
    split_sources,
    text_digest,
)
from socratic_mlflow.quality import mean
from socratic_mlflow.style import socratic_style, socratic_tone
from socratic_mlflow.style_profile import StyleProfile, read_profile
from socratic_mlflow.token_store import lengths, store, unstored
from socratic_mlflow.tokens import ChatFormat, Encoded, TurnMarkerError, encode_each


@dataclass(frozen=True)
class Corpus:
    """Everything that a training learns from and is judged by.

    `train` is a memory-mapped `datasets.Dataset` as `token_store` makes it; in memory are the held-out dialogues that are
    evaluated. `not_evaluated` counts those beyond `max_samples`, which serve nothing. `reference_style` is the mean style
    of the held-out dialogues' own replies under the style `profile`, `reference_tone` their mean tone: the goal.
    """

    train: Any
    held_out: list[Dialogue]
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
            "data.train_tokens": sum(lengths(self.train)),
            "evaluation.questions_digest": self.questions_digest,
            "evaluation.style_profile_name": self.profile.name,
            "evaluation.style_profile_digest": self.profile.digest(),
            "evaluation.questions_asked": len(self.questions),
        }


def load_corpus(config: Config, chat: ChatFormat) -> Corpus:
    """Read, check, encode and split the dialogues, and pick the questions; ValueError (one line) if that cannot be."""
    stream, left_out = DialogueStream(config.data.path), list[Skip]()
    used = store(encode_each(chat, stream, config.data.max_length, left_out))
    stream.check_used()
    if not len(used):
        raise ValueError(f"{config.data.path}: no usable dialogue; {_all_left_out(left_out, config.data.max_length)}")
    train, all_held_out = split_sources(used.data.column("source").to_pylist(), config.data.test_size, config.training.seed)
    evaluated = [unstored(used[index]) for index in evenly(all_held_out, config.evaluation.max_samples)]
    held_out = [dialogue for dialogue, _ in evaluated]
    questions, profile = pick_questions(config, held_out), read_profile(config.evaluation.style_profile)
    where = config.data.path if config.evaluation.questions == "heldout" else config.evaluation.questions
    check_questions(chat, questions, config.data.max_length, where)
    replies = [message["content"] for dialogue in held_out for message in dialogue.messages if message["role"] == "model"]
    return Corpus(
        train=used.select(train),
        held_out=held_out,
        held_out_encoded=[encoded for _, encoded in evaluated],
        not_evaluated=len(all_held_out) - len(held_out),
        skipped=stream.skipped + left_out,
        digest=stream.digest,
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
