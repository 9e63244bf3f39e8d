"""Messages -> token ids and the mask of what the model itself says. Training and serving both format chats here.

A chat is tokenized piece by piece (prompt, reply, prompt, reply ...), so that a reply's tokens in training are just those
that generation would produce after the prompt, and the mask's boundaries are exact for any chat template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.dialogues import Dialogue, Message, Skip

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens: `input_ids` and `labels` are of equal length; labels are IGNORED outside replies."""

    input_ids: list[int]
    labels: list[int]


class ChatFormat:
    """A tokenizer's chat template, with 'model' and 'assistant' both understood. ValueError if it has no template."""

    def __init__(self, tokenizer: Any) -> None:
        self._name = getattr(tokenizer, "name_or_path", "") or "this base model"
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"{self._name}: its tokenizer has no chat template; choose an instruction-tuned (chat) model as base_model"
            )
        self.tokenizer = tokenizer
        self._markers = sorted(map(str, tokenizer.get_added_vocab()), key=len, reverse=True)
        self.stop_ids = self._find_stop_ids()
        self.rewrites_history = self._rewrites_history()

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """A whole dialogue (ending with a reply) as ids and labels.

        Where the template `rewrites_history` (Qwen3 drops earlier replies' thinking, say), only the last reply has labels.
        """
        ids: list[int] = []
        labels: list[int] = []
        for asked, said in self._pieces(messages):
            spoken = self._reply_length(said)
            ids += asked + said
            labels += [IGNORED] * len(asked) + said[:spoken] + [IGNORED] * (len(said) - spoken)
        return Encoded(ids, labels)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the model's reply to the last message (a user's) is generated: those of training."""
        return [token for asked, said in self._pieces(messages) for token in asked + said]

    def _pieces(self, messages: Sequence[Message]) -> Iterator[tuple[list[int], list[int]]]:
        """(prompt, reply) of each reply as ids; where the last message is a user's, its reply is empty."""
        plain = [self._plain(message) for message in messages]
        replies = [number for number, message in enumerate(plain) if message["role"] == "assistant"]
        if plain[-1]["role"] == "user":
            replies.append(len(plain))
        done = ""
        for number in replies[-1:] if self.rewrites_history else replies:
            prompt = self._render(plain[:number], add_generation_prompt=True)
            whole = self._render(plain[: number + 1], add_generation_prompt=False) if number < len(plain) else prompt
            if not (prompt.startswith(done) and whole.startswith(prompt)):
                raise ValueError(
                    f"{self._name}: its chat template puts something else before a reply than before the generation of "
                    "one, so replies cannot be told from prompts; choose another base_model"
                )
            yield self._ids(prompt[len(done) :]), self._ids(whole[len(prompt) :])
            done = whole

    def text(self, ids: Sequence[int]) -> str:
        """The reply that generated `ids` spell, without markers and padding."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                # Templates of models that think aloud know this; the others ignore it.
                enable_thinking=False,
            )
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _plain(self, message: Message) -> Message:
        """Role as templates want it; turn markers inside the text made harmless, so that they open no turn."""
        content = message["content"].strip()
        for marker in self._markers:
            if marker in content:
                content = content.replace(marker, marker.replace("<", "＜").replace(">", "＞").replace("[", "［"))
        return {"role": "assistant" if message["role"] in ("model", "assistant") else "user", "content": content}

    def _reply_length(self, ids: Sequence[int]) -> int:
        """How many of a reply's ids count for the loss: up to and with its end-of-turn marker, without what follows."""
        ends = [index for index, token in enumerate(ids) if token in self.stop_ids]
        return ends[-1] + 1 if ends else len(ids)

    def _find_stop_ids(self) -> list[int]:
        """End-of-sequence and the marker with which this template ends a reply."""
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before = self._render(said[:1], add_generation_prompt=True)
        reply = self._ids(self._render(said, add_generation_prompt=False)[len(before) :])
        # Added tokens need not be markers: Gemma's tokenizer adds line breaks, and HTML tags, as ordinary text.
        added = {number for marker, number in self.tokenizer.get_added_vocab().items() if marker.strip()}
        stops = [token for token in reply if token in added][:1]
        if self.tokenizer.eos_token_id is not None:
            stops.append(self.tokenizer.eos_token_id)
        return sorted(set(stops))

    def _rewrites_history(self) -> bool:
        """Whether earlier turns look otherwise once later ones have come."""
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
        before = self._render(said[:2], add_generation_prompt=False)
        return not self._render(said, add_generation_prompt=True).startswith(before)


def encode_dialogues(
    chat: ChatFormat, dialogues: Sequence[Dialogue], max_length: int
) -> tuple[list[Dialogue], list[Encoded], list[Skip]]:
    """(dialogues used, their encodings, what was left out as too long for `max_length` tokens); nothing is ever cut."""
    used: list[Dialogue] = []
    encoded: list[Encoded] = []
    skipped: list[Skip] = []
    for dialogue in dialogues:
        tokens = chat.encode(dialogue.messages)
        if len(tokens.input_ids) > max_length:
            detail = f"{len(tokens.input_ids)} tokens, more than max_length {max_length}"
            skipped.append(Skip(dialogue.place, "too_long", detail))
        else:
            used.append(dialogue)
            encoded.append(tokens)
    return used, encoded, skipped
