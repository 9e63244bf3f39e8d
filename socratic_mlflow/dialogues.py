"""Read, check and split dialogues. Standard library only; knows nothing of tokens.

A dialogue is `{"messages": [{"role", "content"}, ...]}` that starts with `user`, alternates, and ends with `model`
(`assistant` means the same). Whatever is not used is kept as a `Skip` with its place and reason, never dropped in silence.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

BUNDLED = "bundled"

_ROLES = {"user": "user", "model": "model", "assistant": "model"}

Message = dict[str, str]


@dataclass(frozen=True)
class Dialogue:
    """One dialogue: `messages` are {'role': 'user' | 'model', 'content': str}; `source` groups what must not be split."""

    messages: tuple[Message, ...]
    source: str
    place: str


@dataclass(frozen=True)
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
    found = Path(path)
    try:
        found.stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: {reason}") from None
    if not found.is_file():
        raise ValueError(f"{path}: not a regular file; give a JSON or JSONL file")
    return found


def read_text(path: Path) -> tuple[str, str]:
    """(text, SHA-256 of its bytes) of a UTF-8 file, plain or gzip; ValueError (file, place) where it is not."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b" or path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        return raw.decode("utf-8-sig"), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def read_dialogues(path: str) -> DialogueFile:
    """As `scan_dialogues`, but ValueError (one line) if nothing in the file is usable."""
    file = scan_dialogues(path)
    if not file.dialogues:
        counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(file.skipped).items())
        raise ValueError(f"{path}: no usable dialogue ({counts or 'the file is empty'})")
    return file


def scan_dialogues(path: str) -> DialogueFile:
    """All dialogues of a JSON list or JSONL file; ValueError (one line: file and place) if it cannot be read as that."""
    file = resolve(path, "dialogues.jsonl")
    text, digest = read_text(file)
    dialogues: list[Dialogue] = []
    skipped: list[Skip] = []
    seen: dict[tuple[str, ...], str] = {}
    for place, item in _items(path, text):
        try:
            dialogue = _dialogue(item, place)
            words = tuple(message["content"] for message in dialogue.messages)
            if words in seen:
                raise _UnusableError("duplicate", f"the same as {seen[words]}")
            seen[words] = place
            dialogues.append(dialogue)
        except _UnusableError as why:
            skipped.append(Skip(place, why.reason, why.detail))
    return DialogueFile(path, dialogues, skipped, digest)


class _UnusableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _items(path: str, text: str) -> Iterator[tuple[str, Any]]:
    """(place, decoded JSON value) of every element of a JSON list, or of every line of JSONL."""
    if text.lstrip()[:1] == "[":
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, error) from None
        yield from ((f"index {index}", item) for index, item in enumerate(loaded))
        return
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _malformed(path, error, number) from None


def _malformed(path: str, error: Exception, line: int | None = None) -> ValueError:
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"{path}:{line or error.lineno}: malformed JSON (column {error.colno}: {error.msg})")
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ValueError(f"{path}:{line or 1}: malformed JSON ({what})")


def _dialogue(item: Any, place: str) -> Dialogue:
    messages = item.get("messages") if isinstance(item, dict) else None
    if not isinstance(messages, list) or not messages:
        raise _UnusableError("no_messages", "expected an object with a non-empty list 'messages'")
    checked = tuple(_message(message, number) for number, message in enumerate(messages, 1))
    wanted = ["user", "model"] * ((len(checked) + 1) // 2)
    if [message["role"] for message in checked] != wanted:
        raise _UnusableError("wrong_order", "messages must start with user, alternate, and end with model")
    source = item.get("source_file")
    return Dialogue(checked, source if isinstance(source, str) and source else place, place)


def _message(message: Any, number: int) -> Message:
    if not isinstance(message, dict):
        raise _UnusableError("bad_message", f"message {number} is no object with 'role' and 'content'")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise _UnusableError("bad_role", f"message {number} has role {str(role)[:40]!r}; allowed: user, model, assistant")
    if not isinstance(content, str):
        raise _UnusableError("bad_message", f"message {number} has no text as 'content'")
    if not content.strip():
        raise _UnusableError("empty_content", f"message {number} is empty")
    if any("\ud800" <= char <= "\udfff" for char in content):
        raise _UnusableError("bad_message", f"message {number} holds half a surrogate pair, which is no Unicode text")
    return {"role": _ROLES[role], "content": content.strip()}


def split(dialogues: Sequence[Dialogue], test_size: float, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """(training, held-out) dialogues; those of one source stay together.

    Held out are `test_size` of them, rounded up, or as near below it as whole sources come (at least one source). Raises
    ValueError where there are fewer than two sources, since then one side would be empty.
    """
    sources = sorted({dialogue.source for dialogue in dialogues})
    if len(sources) < 2:
        raise ValueError("data needs dialogues of at least two sources (or without 'source_file') to hold some out")
    random.Random(seed).shuffle(sources)
    sizes = Counter(dialogue.source for dialogue in dialogues)
    most = min(math.ceil(test_size * len(dialogues)), len(dialogues) - 1)
    held_out: set[str] = set()
    count = 0
    for source in sources:
        # A source that is too large for what is left is passed over: one giant source must not be held out whole.
        if count + sizes[source] <= most:
            held_out.add(source)
            count += sizes[source]
    held_out = held_out or {min(sources, key=sizes.__getitem__)}
    return (
        [dialogue for dialogue in dialogues if dialogue.source not in held_out],
        [dialogue for dialogue in dialogues if dialogue.source in held_out],
    )


def read_questions(path: str) -> tuple[list[str], str]:
    """(opening questions, SHA-256) of a text file, one question a line; of dialogues (.json, .jsonl) the first messages.

    ValueError if it holds none.
    """
    if Path(path.lower().removesuffix(".gz")).suffix in (".json", ".jsonl"):
        found = read_dialogues(path)
        return list(dict.fromkeys(dialogue.messages[0]["content"] for dialogue in found.dialogues)), found.digest
    text, digest = read_text(resolve(path, "questions.txt"))
    # A question that stands twice would make the second reply the same to "another" question.
    questions = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not questions:
        raise ValueError(f"{path}: holds no question; write one a line")
    return questions, digest


def text_digest(texts: Sequence[str]) -> str:
    """SHA-256 in hexadecimal of a list of texts, order included."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()
