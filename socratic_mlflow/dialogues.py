"""Read, check and split dialogues. Standard library only; knows nothing of tokens.

A dialogue is `{"messages": [{"role", "content"}, ...]}` that starts with `user`, alternates, and ends with `model`
(`assistant` means the same). Whatever is not used is kept as a `Skip` with its place and reason, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from socratic_mlflow.json_items import items
from socratic_mlflow.text_files import check_regular, lines, pieces, read_text, too_large

BUNDLED = "bundled"

# Numbers serve nothing here, and Python refuses integers of more than 4,300 digits.
_JSON = json.JSONDecoder(parse_int=float)
# No text: NUL, and half a surrogate pair, which JSON can spell but UTF-8 cannot.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_MOST_SKIPPED = 100_000
_MOST_QUESTIONS = 100_000

_ROLES = {"user": "user", "model": "model", "assistant": "model"}

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue: `messages` are {'role': 'user' | 'model', 'content': str}; `source` groups what must not be split."""

    messages: tuple[Message, ...]
    source: str
    place: str


@dataclass(frozen=True, slots=True)
class Skip:
    """A dialogue that is not used: where it stands ('line 7', 'index 3'), the reason's name, and what exactly is wrong."""

    place: str
    reason: str
    detail: str


@dataclass(frozen=True)
class DialogueFile:
    """What a file held. `digest` is the SHA-256 of its (decompressed) bytes, in hexadecimal."""

    path: str
    dialogues: list[Dialogue]
    skipped: list[Skip]
    digest: str


def skip_counts(skipped: Sequence[Skip]) -> dict[str, int]:
    """{reason: how many}, most frequent first."""
    return dict(Counter(skip.reason for skip in skipped).most_common())


def resolve(path: str, bundled_name: str) -> Path:
    """The file that `path` means: the bundled one for 'bundled', else itself; ValueError if it is no regular file."""
    if path == BUNDLED:
        return Path(str(resources.files("socratic_mlflow"))) / "data" / bundled_name
    return check_regular(path)


class DialogueStream:
    """The usable dialogues of a JSON list or JSONL file, one after the other; memory holds one of them.

    What is not used gathers in `skipped`; `used` counts the others. `digest` is the SHA-256 of the (decompressed) bytes in
    hexadecimal, once all are read. ValueError (one line: file and place) where the file cannot be read as that.
    """

    def __init__(self, path: str) -> None:
        self.path, self.skipped, self.used, self.digest = path, list[Skip](), 0, ""
        self._file = resolve(path, "dialogues.jsonl")

    def __iter__(self) -> Iterator[Dialogue]:
        self.skipped, self.used, sha256 = [], 0, hashlib.sha256()
        seen: dict[bytes, str] = {}
        try:
            for place, item in items(self.path, pieces(self._file, sha256, pipes=False), _JSON):
                try:
                    dialogue = _dialogue(item, place)
                    _check_new(dialogue, seen)
                except _UnusableError as why:
                    self.skipped.append(Skip(place, why.reason, why.detail))
                    self._check_skipped()
                else:
                    self.used += 1
                    yield dialogue
        except MemoryError:
            raise too_large(self.path) from None
        self.digest = sha256.hexdigest()

    def check_used(self) -> None:
        """ValueError (one line) if nothing in the file is usable; to be asked when it is read."""
        if not self.used:
            raise ValueError(f"{self.path}: no usable dialogue {_held(self.skipped)}")

    def _check_skipped(self) -> None:
        if len(self.skipped) > max(_MOST_SKIPPED, 10 * self.used):
            raise ValueError(
                f"{self.path}: more than {_MOST_SKIPPED} unusable dialogues, {self.used} usable {_held(self.skipped)}"
            )


def _check_new(dialogue: Dialogue, seen: dict[bytes, str]) -> None:
    """Adds to `seen`, {digest of the texts: place}: the texts themselves would be the whole file in memory."""
    words = "\0".join(message["content"] for message in dialogue.messages)
    digest = hashlib.blake2b(words.encode(), digest_size=16).digest()
    if digest in seen:
        raise _UnusableError("duplicate", f"the same as {seen[digest]}")
    seen[digest] = dialogue.place


def scan_dialogues(path: str) -> DialogueFile:
    """All that `DialogueStream` has of a file, in memory."""
    stream = DialogueStream(path)
    dialogues = list(stream)
    return DialogueFile(path, dialogues, stream.skipped, stream.digest)


def read_dialogues(path: str) -> DialogueFile:
    """As `scan_dialogues`, but ValueError (one line) if nothing in the file is usable."""
    stream = DialogueStream(path)
    dialogues = list(stream)
    stream.check_used()
    return DialogueFile(path, dialogues, stream.skipped, stream.digest)


def dialogues_digest(path: str) -> str:
    """The digest of a file of which at least one dialogue is usable, else ValueError (one line); none is kept."""
    stream = DialogueStream(path)
    for _ in stream:
        pass
    stream.check_used()
    return stream.digest


def _held(skipped: Sequence[Skip]) -> str:
    if not skipped:
        return "(the file is empty)"
    counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(skipped).items())
    return f"({counts}); {skipped[0].place}: {skipped[0].detail}"


class _UnusableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _dialogue(item: Any, place: str) -> Dialogue:
    messages = item.get("messages") if isinstance(item, dict) else None
    if not isinstance(messages, list) or not messages:
        found = _found(item, messages)
        raise _UnusableError("no_messages", f"expected an object with a non-empty list 'messages', found {found}")
    checked = tuple(_message(message, number) for number, message in enumerate(messages, 1))
    wanted = ["user", "model"] * ((len(checked) + 1) // 2)
    if [message["role"] for message in checked] != wanted:
        raise _UnusableError("wrong_order", "messages must start with user, alternate, and end with model")
    source = item.get("source_file")
    return Dialogue(checked, source if isinstance(source, str) and source else place, place)


def _found(item: Any, messages: Any) -> str:
    if not isinstance(item, dict):
        return _kind(item)
    if "messages" in item:
        return f"{_kind(messages)} as 'messages'"
    key = next(iter(item), None)
    return "an empty object" if key is None else f"an object with {key[:40]!r} and without 'messages'"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", float: "a number", bool: "true or false", type(None): "null"}
    return "an empty list" if value == [] else names[type(value)]


def _message(message: Any, number: int) -> Message:
    if not isinstance(message, dict):
        raise _UnusableError("bad_message", f"message {number} is {_kind(message)}, no object with 'role' and 'content'")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        shown = repr(role[:40]) if isinstance(role, str) else _kind(role)
        raise _UnusableError("bad_role", f"message {number} has role {shown}; allowed: user, model, assistant")
    if not isinstance(content, str):
        raise _UnusableError("bad_message", f"message {number} has no text as 'content' but {_kind(content)}")
    if not content.strip():
        raise _UnusableError("empty_content", f"message {number} is empty")
    if odd := _NO_TEXT.search(content):
        what = "a NUL character" if odd[0] == "\0" else "half a surrogate pair"
        raise _UnusableError("bad_message", f"message {number} holds {what}, which is no text")
    return {"role": _ROLES[role], "content": content.strip()}


def split(dialogues: Sequence[Dialogue], test_size: float, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """(training, held-out) dialogues, as `split_sources` parts them."""
    train, held_out = split_sources([dialogue.source for dialogue in dialogues], test_size, seed)
    return [dialogues[index] for index in train], [dialogues[index] for index in held_out]


def split_sources(sources: Sequence[str], test_size: float, seed: int) -> tuple[list[int], list[int]]:
    """(training, held-out) indices into the `sources` of all dialogues, ascending; those of one source stay together.

    Held out are `test_size` of them, rounded up, or as near below it as whole sources come (at least one source). Raises
    ValueError where there are fewer than two sources, since then one side would be empty.
    """
    sizes = Counter(sources)
    order = sorted(sizes)
    if len(order) < 2:
        raise ValueError("data needs dialogues of at least two sources (or without 'source_file') to hold some out")
    random.Random(seed).shuffle(order)
    most = min(math.ceil(test_size * len(sources)), len(sources) - 1)
    held_out: set[str] = set()
    count = 0
    for source in order:
        # A source that is too large for what is left is passed over: one giant source must not be held out whole.
        if count + sizes[source] <= most:
            held_out.add(source)
            count += sizes[source]
    held_out = held_out or {min(order, key=sizes.__getitem__)}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, source in enumerate(sources):
        sides[source in held_out].append(index)
    return sides


def read_questions(path: str) -> tuple[list[str], str]:
    """(opening questions, SHA-256) of a text file, one question a line; of dialogues (.json, .jsonl) the first messages.

    ValueError if it holds none.
    """
    if Path(path.lower().removesuffix(".gz")).suffix in (".json", ".jsonl"):
        stream = DialogueStream(path)
        openings = list(dict.fromkeys(dialogue.messages[0]["content"] for dialogue in stream))
        stream.check_used()
        return openings, stream.digest
    text, digest = read_text(resolve(path, "questions.txt"), pipes=False)
    # A question that stands twice would make the second reply the same to "another" question.
    questions: dict[str, None] = {}
    for number, line in lines(text):
        if "\0" in line:
            raise ValueError(f"{path}:{number}: a NUL character; that is no UTF-8 text, save the file as UTF-8")
        questions.update((part.strip(), None) for part in line.splitlines() if part.strip())
        if len(questions) > _MOST_QUESTIONS:
            raise ValueError(f"{path}:{number}: more than {_MOST_QUESTIONS} questions; give fewer")
    if not questions:
        raise ValueError(f"{path}: holds no question; write one a line")
    return list(questions), digest


def text_digest(texts: Sequence[str]) -> str:
    """SHA-256 in hexadecimal of a list of texts, order included."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()
