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

from socratic_mlflow.text_files import check_regular, lines, read_text

BUNDLED = "bundled"

# Numbers serve nothing here, and Python refuses integers of more than 4,300 digits.
_JSON = json.JSONDecoder(parse_int=float)
_SPACE = re.compile(r"[ \t\r\n]*")
# No text: NUL, and half a surrogate pair, which JSON can spell but UTF-8 cannot.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
# A list or object takes some hundred bytes of memory, however short it is in the file.
_MANY_BRACKETS = 100_000
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


def read_dialogues(path: str) -> DialogueFile:
    """As `scan_dialogues`, but ValueError (one line) if nothing in the file is usable."""
    file = scan_dialogues(path)
    if not file.dialogues:
        raise ValueError(f"{path}: no usable dialogue {_held(file.skipped)}")
    return file


def _held(skipped: Sequence[Skip]) -> str:
    if not skipped:
        return "(the file is empty)"
    counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(skipped).items())
    return f"({counts}); {skipped[0].place}: {skipped[0].detail}"


def scan_dialogues(path: str) -> DialogueFile:
    """All dialogues of a JSON list or JSONL file; ValueError (one line: file and place) if it cannot be read as that."""
    text, digest = read_text(resolve(path, "dialogues.jsonl"), pipes=False)
    _check_brackets(path, text)
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
            _check_skipped(path, skipped, len(dialogues))
    return DialogueFile(path, dialogues, skipped, digest)


def _check_brackets(path: str, text: str) -> None:
    brackets = text.count("[") + text.count("{")
    if brackets > _MANY_BRACKETS and 8 * brackets > len(text):
        raise ValueError(f"{path}: {brackets} brackets in {len(text)} characters; that is no file of dialogues")


def _check_skipped(path: str, skipped: Sequence[Skip], used: int) -> None:
    if len(skipped) > max(_MOST_SKIPPED, 10 * used):
        raise ValueError(f"{path}: more than {_MOST_SKIPPED} unusable dialogues, {used} usable {_held(skipped)}")


class _UnusableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _items(path: str, text: str) -> Iterator[tuple[str, Any]]:
    """(place, decoded JSON value) of every element of a JSON list, or of every line of JSONL."""
    start = _after_space(text, 0)
    if text.startswith("[", start):
        yield from _elements(path, text, start + 1)
        return
    for number, line in lines(text):
        try:
            item = _JSON.decode(line)
        except (ValueError, RecursionError) as error:
            raise _spread(path, text, start) or _malformed(path, error, number) from None
        yield f"line {number}", item


def _elements(path: str, text: str, position: int) -> Iterator[tuple[str, Any]]:
    """Those of the JSON list whose first element is at `position`, decoded one by one: all at once take far more memory."""
    position = _after_space(text, position)
    index, end = 0, text.startswith("]", position)
    while not end:
        try:
            item, behind = _JSON.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, error, text.count("\n", 0, position) + 1) from None
        yield f"index {index}", item
        position, index = _after_space(text, behind), index + 1
        end = text.startswith("]", position)
        if not end and not text.startswith(",", position):
            raise _malformed(path, json.JSONDecodeError("Expecting ',' delimiter", text, position))
        position = position if end else _after_space(text, position + 1)
    position = _after_space(text, position + 1)
    if position < len(text):
        raise _malformed(path, json.JSONDecodeError("Extra data", text, position))


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _spread(path: str, text: str, start: int) -> ValueError | None:
    """What to say of a JSON object that takes several lines, such as one dialogue alone."""
    try:
        _, end = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    if "\n" not in text[start:end]:
        return None
    line = text.count("\n", 0, start) + 1
    return ValueError(f"{path}:{line}: a JSON object over several lines; give one dialogue a line, or a list [...] of them")


def _malformed(path: str, error: Exception, line: int = 1) -> ValueError:
    """`line` is where the value begins, the error's own line one behind it, or 1 where it saw that line alone."""
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"{path}:{max(line, error.lineno)}: malformed JSON (column {error.colno}: {error.msg})")
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ValueError(f"{path}:{line}: malformed JSON ({what})")


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
