"""Generate replies freely to opening questions and score them. Knows nothing of MLflow or of the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow import quality
from socratic_mlflow.bootstrap import interval
from socratic_mlflow.config import EvaluationConfig
from socratic_mlflow.dialogues import Message
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import socratic_style, socratic_tone
from socratic_mlflow.style_profile import StyleProfile

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat

SCORES = {"socratic_style": socratic_style, "socratic_tone": socratic_tone}


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


def generate_after(model: Any, chat: ChatFormat, prompt: list[int], sampling: Sampling, **more: Any) -> Reply:
    """The reply of a model in evaluation mode to one prompt (token ids); `more` is for transformers' `generate`."""
    import torch

    with torch.inference_mode():
        return _generate_batch(model, chat, [prompt], sampling, **more)[0]


def _generate_batch(model: Any, chat: ChatFormat, prompts: list[list[int]], sampling: Sampling, **more: Any) -> list[Reply]:
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
        **more,
    )
    return [_reply(chat, row) for row in made[:, width:].tolist()]


def _reply(chat: ChatFormat, row: list[int]) -> Reply:
    stops = set(chat.stop_ids)
    end = next((index for index, token in enumerate(row) if token in stops), len(row))
    return Reply(chat.text(row[:end]), end, end == len(row))


# (conversations, what makes one reply to each) -> replies, in the same order.
Spread = Callable[[Sequence[Any], Callable[[Sequence[Any]], list[Reply]]], list[Reply]]


class StyleEvaluator:
    """Asks a model the same questions each time; `questions` are opening messages of a user.

    With `spread` (`ranks.spread`), the processes of a training share the questions, and each gets all replies.
    """

    def __init__(
        self,
        chat: ChatFormat,
        questions: Sequence[str],
        sampling: Sampling,
        batch_size: int,
        profile: StyleProfile = SOCRATIC,
        spread: Spread | None = None,
    ) -> None:
        self.chat, self.questions, self.sampling, self.batch_size = chat, list(questions), sampling, batch_size
        self.profile, self._spread = profile, spread or _alone

    def __call__(self, model: Any) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(metrics, one row a question with its reply and scores) of `model` as it is now; see `judge`."""
        conversations = [[{"role": "user", "content": question}] for question in self.questions]
        replies = self._spread(
            conversations, lambda share: generate(model, self.chat, share, self.sampling, self.batch_size)
        )
        return judge(self.questions, replies, self.profile)


def _alone(conversations: Sequence[Any], work: Callable[[Sequence[Any]], list[Reply]]) -> list[Reply]:
    return work(conversations)


def evaluator_for(
    chat: ChatFormat,
    questions: Sequence[str],
    limits: EvaluationConfig,
    profile: StyleProfile,
    spread: Spread | None = None,
) -> StyleEvaluator:
    """The evaluator that a configuration asks for."""
    sampling = Sampling(max_new_tokens=limits.max_new_tokens)
    return StyleEvaluator(chat, questions, sampling, limits.generation_batch_size, profile, spread)


def judge(
    questions: Sequence[str], replies: Sequence[Reply], profile: StyleProfile = SOCRATIC
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """(metrics, one row a question) of one reply to each question.

    Metrics: `socratic_style` and `socratic_tone`, means over the replies in [0, 1], each with `_low` and `_high`, its 95%
    bootstrap interval over the questions; and all of `quality.measure`.
    """
    texts, cut_off = [reply.text for reply in replies], [reply.cut_off for reply in replies]
    scores = {name: [score(text, profile) for text in texts] for name, score in SCORES.items()}
    metrics: dict[str, float] = {}
    for name, values in scores.items():
        found = interval(values)
        metrics |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    rows = [
        {
            "question": question,
            "reply": text,
            **{name: round(values[index], 4) for name, values in scores.items()},
            "hollow": why,
            "cut_off": cut_off[index],
        }
        for index, (question, text, why) in enumerate(zip(questions, texts, quality.hollow(texts), strict=True))
    ]
    return metrics | quality.measure(questions, texts, cut_off), rows
