"""Messages -> token ids and the mask of what the model itself says. Training and serving both format chats here.

A chat is tokenized piece by piece (prompt, reply, prompt, reply ...), so that a reply's tokens in training are just those
that generation would produce after the prompt, and the mask's boundaries are exact for any chat template.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.dialogues import Dialogue, Message, Skip
from socratic_mlflow.token_bounds import TokenBound
from socratic_mlflow.turn_markers import TurnMarkers

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens: `input_ids` and `labels` are of equal length; labels are IGNORED outside replies."""

    input_ids: list[int]
    labels: list[int]


class TurnMarkerError(ValueError):
    """A message's text would open or close a turn, and no other spelling of it was found that does not."""


class ChatFormat:
    """A tokenizer's chat template, with 'model' and 'assistant' both understood. ValueError if it has no template."""

    def __init__(self, tokenizer: Any) -> None:
        self._name = getattr(tokenizer, "name_or_path", "") or "this base model"
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"{self._name}: its tokenizer has no chat template; choose an instruction-tuned (chat) model as base_model"
            )
        self.tokenizer = tokenizer
        self._markers = TurnMarkers(tokenizer, self._around())
        self._bound = TokenBound(tokenizer)
        self._placeholder_shapes = functools.cache(self._shapes_of_placeholders)
        self.stop_ids = self._find_stop_ids()
        self.rewrites_history = self._rewrites_history()

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """A whole dialogue (ending with a reply) as ids and labels.

        Where the template `rewrites_history` (Qwen3 drops earlier replies' thinking, say), only the last reply has labels.
        Raises TurnMarkerError where a text would open or close a turn.
        """
        ids: list[int] = []
        labels: list[int] = []
        for asked, said in self._pieces(messages):
            spoken = self._reply_length(said)
            ids += asked + said
            labels += [IGNORED] * len(asked) + said[:spoken] + [IGNORED] * (len(said) - spoken)
        return Encoded(ids, labels)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the model's reply to the last message (a user's) is generated: those of training.

        Raises TurnMarkerError where a text would open or close a turn.
        """
        return [token for asked, said in self._pieces(messages) for token in asked + said]

    def at_least(self, messages: Sequence[Message]) -> int:
        """How many tokens `messages` have for certain, found without tokenizing them; 0 where nothing is certain."""
        # One rendering, of the raw texts: what makes markers harmless changes no length, and takes longer.
        last = messages[-1]["role"] == "user"
        plain = [{"role": _role(message), "content": message["content"].strip()} for message in messages]
        return self._bound.at_least(self._render(plain, add_generation_prompt=last))

    def _pieces(self, messages: Sequence[Message]) -> list[tuple[list[int], list[int]]]:
        """(prompt, reply) of each reply as ids; where the last message is a user's, its reply is empty."""
        plain = [
            {"role": _role(message), "content": self._markers.harmless(message["content"].strip())} for message in messages
        ]
        texts = list(self._texts(plain))
        pieces = self._piece_ids(texts)
        if self._shapes(pieces, texts) != self._placeholder_shapes(tuple(message["role"] for message in plain)):
            raise TurnMarkerError(f"a text holds what {self._name} takes for the beginning or end of a turn; reword it")
        return pieces

    def _texts(self, plain: Sequence[Message]) -> Iterator[tuple[str, str]]:
        """(prompt, reply) of each reply as text."""
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
            yield prompt[len(done) :], whole[len(prompt) :]
            done = whole

    def _shapes(self, pieces: Sequence[tuple[list[int], list[int]]], texts: Sequence[tuple[str, str]]) -> list[Any]:
        """The turn markers in each prompt and each reply."""
        return [
            self._markers.shape(ids, text)
            for piece, both in zip(pieces, texts, strict=True)
            for ids, text in zip(piece, both, strict=True)
        ]

    def _shapes_of_placeholders(self, roles: tuple[str, ...]) -> list[Any]:
        """Those of a dialogue in which nobody says anything of interest."""
        texts = list(self._texts([{"role": role, "content": "x"} for role in roles]))
        return self._shapes(self._piece_ids(texts), texts)

    def _around(self) -> list[str]:
        """What the template puts behind each message of a dialogue, in front of the next one or of its generation."""
        said = [{"role": role, "content": f"qz{number}zq"} for number, role in enumerate(["user", "assistant"] * 2)]
        texts = [self._render(said, add_generation_prompt=False), self._render(said[:3], add_generation_prompt=True)]
        return [around for text in texts for around in re.split(r"qz\dzq", text)[1:]]

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

    def _piece_ids(self, texts: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        # One call for all of them: a call costs far more than a reply's tokens.
        ids = self._ids([text for both in texts for text in both])
        return list(zip(ids[::2], ids[1::2], strict=True))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _reply_length(self, ids: Sequence[int]) -> int:
        """How many of a reply's ids count for the loss: up to and with its end-of-turn marker, without what follows."""
        ends = [index for index, token in enumerate(ids) if token in self.stop_ids]
        return ends[-1] + 1 if ends else len(ids)

    def _find_stop_ids(self) -> list[int]:
        """End-of-sequence and the marker with which this template ends a reply."""
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before = self._render(said[:1], add_generation_prompt=True)
        (reply,) = self._ids([self._render(said, add_generation_prompt=False)[len(before) :]])
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


def _role(message: Message) -> str:
    """As templates want it."""
    return "assistant" if message["role"] in ("model", "assistant") else "user"


def encode_dialogues(
    chat: ChatFormat, dialogues: Iterable[Dialogue], max_length: int
) -> tuple[list[Dialogue], list[Encoded], list[Skip]]:
    """(dialogues used, their encodings, what was left out), as `encode_each` has them."""
    skipped: list[Skip] = []
    pairs = list(encode_each(chat, dialogues, max_length, skipped))
    return [dialogue for dialogue, _ in pairs], [encoded for _, encoded in pairs], skipped


def encode_each(
    chat: ChatFormat, dialogues: Iterable[Dialogue], max_length: int, skipped: list[Skip]
) -> Iterator[tuple[Dialogue, Encoded]]:
    """(dialogue, its encoding) of each that is used, one after the other; nothing is ever cut.

    What is left out is added to `skipped`: what has more than `max_length` tokens ('too_long'), and that of which no
    spelling was found that opens no turn of its own ('turn_marker').
    """
    for dialogue in dialogues:
        try:
            tokens = _encode(chat, dialogue, max_length)
        except _SkippedError as why:
            skipped.append(why.skip)
        else:
            yield dialogue, tokens


class _SkippedError(Exception):
    def __init__(self, dialogue: Dialogue, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.skip = Skip(dialogue.place, reason, detail)


def _encode(chat: ChatFormat, dialogue: Dialogue, max_length: int) -> Encoded:
    if (least := chat.at_least(dialogue.messages)) > max_length:
        raise _SkippedError(dialogue, "too_long", f"at least {least} tokens, more than max_length {max_length}")
    try:
        tokens = chat.encode(dialogue.messages)
    except TurnMarkerError as error:
        raise _SkippedError(dialogue, "turn_marker", str(error)) from None
    if len(tokens.input_ids) > max_length:
        raise _SkippedError(dialogue, "too_long", f"{len(tokens.input_ids)} tokens, more than max_length {max_length}")
    return tokens
