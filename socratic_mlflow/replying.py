"""Conversations -> replies of one loaded model, one request after the other. Knows nothing of MLflow and of HTTP."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.dialogues import Message
from socratic_mlflow.incoming import BadRequestError, ReplyParams
from socratic_mlflow.streaming import Pieces, Spelling, cut

if TYPE_CHECKING:
    from socratic_mlflow.tokens import ChatFormat

MAX_PROMPT_TOKENS = 4096
# Below it the logits overflow; the replies are the greedy ones long before.
_LOWEST_TEMPERATURE = 0.01
# Seconds between two looks at whether anybody still waits, while another request is being answered.
_LOOK_S = 0.1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A reply and its lengths in tokens; `finish` is 'stop' (its own end, or a stop text) or 'length' (max_tokens)."""

    text: str
    prompt_tokens: int
    tokens: int
    finish: str


class UnwantedError(Exception):
    """Nobody waits for these answers any more, so they were not made, or not to their end."""


class Replier:
    """Answers with `model`, at most `batch_size` conversations in one generate call; safe to share between threads.

    Requests wait for each other: peft's and bitsandbytes' layers keep state in a forward pass, sampling draws from torch's
    one global generator, and two generations at once would share the same cores or GPU and both take twice as long.
    """

    def __init__(self, model: Any, chat: ChatFormat, batch_size: int, max_prompt_tokens: int = MAX_PROMPT_TOKENS) -> None:
        self._model, self._chat, self._batch_size = model, chat, batch_size
        config = model.config.get_text_config()
        self._context = getattr(config, "max_position_embeddings", None) or sys.maxsize
        self._max_prompt = max_prompt_tokens
        self._generating, self._tokenizing = threading.Lock(), threading.Lock()

    def prompt(self, messages: Sequence[Message], params: ReplyParams) -> list[int]:
        """The token ids after which the reply to `messages` is generated; BadRequestError (one line) where there are none.

        What is too long is refused by its length in characters, where that is certain, before anything is tokenized.
        """
        from jinja2 import TemplateError

        from socratic_mlflow.tokens import TurnMarkerError

        try:
            with self._tokenizing:
                messages = self._folded(messages)
                self._check_length(self._chat.at_least(messages), params, "at least ")
                ids = self._chat.prompt(messages)
        except TurnMarkerError:
            sentence = "a message holds what this model takes for the beginning or end of a turn; reword it"
            raise BadRequestError(sentence) from None
        except TemplateError as error:
            why = " ".join(str(error).split())[:200]
            raise BadRequestError(f"this model's chat template refuses the conversation: {why}") from None
        self._check_length(len(ids), params)
        return ids

    def answer(
        self,
        prompts: Sequence[list[int]],
        params: ReplyParams,
        hear: Callable[[str], object] | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """One answer to each of `prompts`, in their order; UnwantedError as soon as `is_over()`, also while others have the
        model.

        `hear` gets the answer (of one prompt only) in pieces as it is generated. With a seed, the same prompts get the same
        replies; global random state is left as it was.
        """
        import torch

        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
        answers: dict[int, Answer] = {}
        cuda = [self._model.device] if self._model.device.type == "cuda" else []
        with self._turn(is_over), torch.random.fork_rng(cuda), torch.inference_mode():
            torch.manual_seed(secrets.randbits(63) if params.seed is None else params.seed)
            self._model.eval()
            for start in range(0, len(order), self._batch_size):
                chosen = order[start : start + self._batch_size]
                made = self._generate([prompts[index] for index in chosen], params, hear, is_over)
                answers |= zip(chosen, made, strict=True)
        return [answers[index] for index in range(len(prompts))]

    @contextmanager
    def _turn(self, is_over: Callable[[], bool]) -> Iterator[None]:
        """The model for oneself. Who waits in vain is not to keep a thread of the server's until it is their turn."""
        while True:
            if is_over():
                raise UnwantedError
            if self._generating.acquire(timeout=_LOOK_S):
                break
        try:
            yield
        finally:
            self._generating.release()

    def _folded(self, messages: Sequence[Message]) -> Sequence[Message]:
        """`messages` with a system message's text put before the first question: no training dialogue has such a turn.

        Refused where the chat template refuses it.
        """
        if messages[0]["role"] != "system":
            return messages
        system, first, *others = messages
        if not self._takes_system():
            raise BadRequestError("this model's chat template takes no system message; put its text into the user's first")
        return [{"role": "user", "content": f"{system['content'].strip()}\n\n{first['content']}"}, *others]

    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        said = [{"role": "system", "content": "qz0zq"}, {"role": "user", "content": "qz1zq"}]
        try:
            return "qz0zq" in self._chat.tokenizer.apply_chat_template(said, tokenize=False)
        except TemplateError:
            return False

    def _check_length(self, tokens: int, params: ReplyParams, about: str = "") -> None:
        if tokens > self._max_prompt:
            raise BadRequestError(
                f"the conversation has {about}{tokens} tokens; this server takes at most {self._max_prompt}"
            )
        if tokens + params.max_tokens > self._context:
            raise BadRequestError(
                f"the conversation has {about}{tokens} tokens and max_tokens is {params.max_tokens}; together this model "
                f"takes at most {self._context}"
            )

    def _generate(
        self,
        prompts: list[list[int]],
        params: ReplyParams,
        hear: Callable[[str], object] | None,
        is_over: Callable[[], bool],
    ) -> list[Answer]:
        import torch
        from transformers import StoppingCriteriaList

        width, pad = max(map(len, prompts)), self._chat.tokenizer.pad_token_id
        lacking = [width - len(prompt) for prompt in prompts]
        device = self._model.device
        ids = torch.tensor([[pad] * gap + ids for gap, ids in zip(lacking, prompts, strict=True)], device=device)
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in lacking], device=device)
        watch = _Watch(self._chat, len(prompts), params.stop, hear, is_over)
        made = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=params.max_tokens,
            eos_token_id=self._chat.stop_ids,
            pad_token_id=pad,
            use_cache=True,
            stopping_criteria=StoppingCriteriaList([watch]),
            **_drawn(params),
        )
        if is_over():
            raise UnwantedError
        rows = made[:, width:].tolist()
        answers = [self._answer(len(prompt), row, params) for prompt, row in zip(prompts, rows, strict=True)]
        watch.tell_rest(answers[0])
        return answers

    def _answer(self, prompt_tokens: int, row: list[int], params: ReplyParams) -> Answer:
        tokens = next((index for index, token in enumerate(row) if token in self._chat.stop_ids), len(row))
        text, stopped = cut(self._chat.text(row[:tokens]), params.stop)
        return Answer(text, prompt_tokens, tokens, "stop" if stopped or tokens < len(row) else "length")


class _Watch:
    """Sees each token as it is generated (a StoppingCriteria): ends the rows that have reached a stop text, or all."""

    def __init__(
        self,
        chat: ChatFormat,
        rows: int,
        stop: Sequence[str],
        hear: Callable[[str], object] | None,
        is_over: Callable[[], bool],
    ) -> None:
        self._hear, self._is_over = hear, is_over
        self._rows = [(Spelling(chat), Pieces(stop)) for _ in range(rows)] if stop or hear else []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Which of the rows of `input_ids` (rows x tokens, prompt included) are done, as a bool tensor."""
        import torch

        over = self._is_over()
        done = [over] * len(input_ids)
        if self._rows and not over:
            for (spelling, pieces), token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                self._tell(pieces.more(spelling.more(token)))
            done = [pieces.stopped for _, pieces in self._rows]
        return torch.tensor(done, device=input_ids.device)

    def tell_rest(self, answer: Answer) -> None:
        """Have the last of the finished `answer` heard: what was held back because more might have come."""
        if self._hear:
            self._tell(self._rows[0][1].rest(answer.text))

    def _tell(self, piece: str) -> None:
        if self._hear and piece:
            self._hear(piece)


def _drawn(params: ReplyParams) -> dict[str, Any]:
    """How the next token is chosen, as generate() names it; top_k 0 switches off the 50 that it would take by itself."""
    if params.temperature < _LOWEST_TEMPERATURE:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": params.temperature, "top_p": params.top_p, "top_k": 0}


def failure(error: BaseException) -> str:
    """What a client reads where answering failed, in one sentence; what failed goes to the server's log."""
    _logger.error("a request could not be answered", exc_info=error)
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError):
        return "the server has not enough memory for this request; send less at once"
    return "the server failed to answer this request; its log says why"
