"""A conversation with one model: what was said, what of it the model still sees, and its next reply.

Knows nothing of terminals; texts come and go as plain values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.dialogues import Message
from socratic_mlflow.evaluation import Sampling, generate_after
from socratic_mlflow.streaming import TextStream

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel

Write = Callable[[str], object]

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model said; `forgotten` counts the oldest turns that it no longer saw for the first time."""

    text: str
    forgotten: int = 0


class Conversation:
    """`messages` are all that was said, question and reply in turn; the model sees those from `first` on."""

    def __init__(self, named: NamedModel, sampling: Sampling) -> None:
        self.messages: list[Message] = []
        self.first = 0
        self.context = context_tokens(named.model)
        self._model, self._chat, self._sampling = named.model, named.chat, sampling

    def reset(self) -> None:
        """Forget everything."""
        self.messages, self.first = [], 0

    def ask(self, question: str, write: Write, stopping: Any = None) -> Answer:
        """The reply to `question`, each piece given to `write` as it is made; both are remembered unless it is empty.

        `stopping` is a StoppingCriteriaList of transformers. ValueError (one line) for a question that cannot be asked.
        """
        if odd := _NO_TEXT.search(question):
            raise ValueError(f"the question holds {'a NUL character' if odd[0] == chr(0) else 'what is no character'}")
        asked = [*self.messages, {"role": "user", "content": question}]
        prompt, first = self._prompt(asked)
        adapter_on(self._model)
        text = self._reply(prompt, write, stopping)
        forgotten, self.first = (first - self.first) // 2, first
        if text:
            self.messages = [*asked, {"role": "model", "content": text}]
        return Answer(text, forgotten)

    def ask_base(self, write: Write, stopping: Any = None) -> str:
        """The reply of the base alone to the last question, with all that was said before it; it is not remembered.

        ValueError (one line) as from `check_base`.
        """
        self.check_base()
        prompt, _ = self._prompt(self.messages[:-1])
        with base_alone(self._model):
            return self._reply(prompt, write, stopping)

    def check_base(self) -> None:
        """ValueError (one line) where nothing was asked, or the base cannot be had without loading it once more."""
        if not self.messages:
            raise ValueError("nothing was said yet")
        _check_adapter(self._model)

    def save(self, file: Path) -> None:
        """Write the conversation as one line of JSONL, as dialogues are read; ValueError (one line) where that fails."""
        if not self.messages:
            raise ValueError("nothing was said yet, so there is nothing to save")
        line = json.dumps({"messages": self.messages}, ensure_ascii=False)
        try:
            with file.open("x", encoding="utf-8") as new:
                new.write(line + "\n")
        except FileExistsError:
            raise ValueError(f"{file}: exists already and is left alone; give another name") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be written ({getattr(error, 'strerror', None) or error})") from None

    def _prompt(self, messages: list[Message]) -> tuple[list[int], int]:
        """(token ids, index of the first message in them) of what the model sees of `messages`, with room for a reply."""
        first, last = self.first, len(messages) - 1
        if not self.context:
            return self._chat.prompt(messages[first:]), first
        # Far more text than fits would take long to tokenize.
        if self._chat.at_least(messages[last:]) >= self.context:
            raise ValueError(f"the question is longer than the model's context of {self.context} tokens; shorten it")
        room = min(self._sampling.max_new_tokens, self.context // 2)
        prompt = self._chat.prompt(messages[first:])
        while first < last and len(prompt) + room > self.context:
            first += 2
            prompt = self._chat.prompt(messages[first:])
        if len(prompt) >= self.context:
            raise ValueError(f"the question has {len(prompt)} tokens, the model's context {self.context}; shorten it")
        return prompt, first

    def _reply(self, prompt: list[int], write: Write, stopping: Any) -> str:
        limit = self._sampling.max_new_tokens
        room = min(limit, self.context - len(prompt)) if self.context else limit
        sampling = dataclasses.replace(self._sampling, max_new_tokens=room)
        stream = TextStream(self._chat, write)
        more: dict[str, Any] = {} if stopping is None else {"stopping_criteria": stopping}
        if sampling.temperature > 0:
            # Otherwise only the 50 likeliest words, or as many as the base's own settings say.
            more["top_k"] = 0
        generate_after(self._model, self._chat, prompt, sampling, streamer=stream, **more)
        return stream.text


def context_tokens(model: Any) -> int:
    """How many tokens `model` can see at once; 0 where its configuration does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else 0


@contextlib.contextmanager
def base_alone(model: Any) -> Iterator[None]:
    """`model` without its adapter for the while; ValueError (one line) where it has none, or also changed the base."""
    _check_adapter(model)
    adapter_on(model)
    with model.disable_adapter():
        yield


def adapter_on(model: Any) -> None:
    """Switch the adapter of `model` on in every layer, where it has one.

    Ctrl-C can end `base_alone` while it does so, and a model must never answer with a part of its adapter.
    """
    if getattr(model, "peft_config", None):
        model.base_model.enable_adapter_layers()


def _check_adapter(model: Any) -> None:
    adapters = getattr(model, "peft_config", None)
    if not adapters:
        raise ValueError("this is the base itself; there is no adapter to compare it with")
    if any(adapter.bias != "none" for adapter in adapters.values()):
        raise ValueError("this adapter has trained the base's biases as well; talk to the base itself: chat base")
