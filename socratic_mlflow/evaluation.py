"""Generate replies freely to opening questions and score them. Knows nothing of MLflow or of the Trainer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.dialogues import Message
from socratic_mlflow.style import socratic_style

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat

# Four characters or more, three times in a row.
_LOOP = re.compile(r"(.{4,}?)\1\1", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """A generated reply; `cut_off` tells that it met the token limit instead of its own end."""

    text: str
    tokens: int
    cut_off: bool


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn; the default is greedy. `temperature` 0 means greedy as well."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0


def is_loop(text: str) -> bool:
    """Whether the same four characters or more stand three times in a row."""
    return bool(_LOOP.search(text))


def generate(
    model: Any, chat: ChatFormat, conversations: Sequence[Sequence[Message]], sampling: Sampling, batch_size: int
) -> list[Reply]:
    """One reply to each conversation (ending with a user message), in the order given.

    Left-padded batches of like length, stopped at the end-of-turn token; the model's training mode is restored.
    """
    import torch

    prompts = [chat.prompt(messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    replies: list[Reply | None] = [None] * len(prompts)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                made = _generate_batch(model, chat, [prompts[index] for index in chosen], sampling)
                for index, reply in zip(chosen, made, strict=True):
                    replies[index] = reply
    finally:
        model.train(was_training)
    return [reply for reply in replies if reply is not None]


def _generate_batch(model: Any, chat: ChatFormat, prompts: list[list[int]], sampling: Sampling) -> list[Reply]:
    import torch

    width = max(map(len, prompts))
    pad = chat.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=chat.stop_ids,
        pad_token_id=pad,
        use_cache=True,
        **drawn,
    )
    return [_reply(chat, row) for row in made[:, width:].tolist()]


def _reply(chat: ChatFormat, row: list[int]) -> Reply:
    stops = set(chat.stop_ids)
    end = next((index for index, token in enumerate(row) if token in stops), len(row))
    return Reply(chat.text(row[:end]), end, end == len(row))


class StyleEvaluator:
    """Asks a model the same questions each time; `questions` are opening messages of a user."""

    def __init__(self, chat: ChatFormat, questions: Sequence[str], sampling: Sampling, batch_size: int) -> None:
        self.chat, self.questions, self.sampling, self.batch_size = chat, list(questions), sampling, batch_size

    def __call__(self, model: Any) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(metrics, one row a question with its reply and score) of `model` as it is now.

        Metrics: `socratic_style` (mean over replies, in [0, 1]), `reply_chars` (mean), `loop_share`, `cut_off_share` and
        `empty_share` (shares of the replies, in [0, 1]).
        """
        conversations = [[{"role": "user", "content": question}] for question in self.questions]
        replies = generate(model, self.chat, conversations, self.sampling, self.batch_size)
        styles = [socratic_style(reply.text) for reply in replies]
        metrics = {
            "socratic_style": mean(styles),
            "reply_chars": mean([len(reply.text) for reply in replies]),
            "loop_share": mean([is_loop(reply.text) for reply in replies]),
            "cut_off_share": mean([reply.cut_off for reply in replies]),
            "empty_share": mean([not reply.text for reply in replies]),
        }
        rows = [
            {"question": question, "reply": reply.text, "socratic_style": round(style, 4), "cut_off": reply.cut_off}
            for question, reply, style in zip(self.questions, replies, styles, strict=True)
        ]
        return metrics, rows


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0
