"""What `socratic-mlflow score` does: replies from an argument, a file or standard input -> their scores, and why.

Replies come from models: what could steer a terminal is escaped. Standard library and, for tables, rich.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from socratic_mlflow.dialogues import BUNDLED, resolve
from socratic_mlflow.style import Explanation, Found, explain, socratic_style, socratic_tone
from socratic_mlflow.style_profile import StyleProfile, read_profile
from socratic_mlflow.text_files import read_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_STDIN = "standard input"
_FIELDS = ("reply", "text", "content", "messages")
_NO_JSON = "not read as JSON; give JSONL (.jsonl, one reply or dialogue a line) or plain text"
_EXPECTED = "expected a JSON string, or an object with text under reply, text or content, or with messages"
# From this width on, what was found stands beside the sentence and not under it.
_WIDE = 72
# At most so many sentences, and characters of each, of a phrase and of a reply's beginning.
_SENTENCES, _SENTENCE, _PHRASE, _BEGINNING = 200, 240, 60, 500


class Reply(NamedTuple):
    """One text to score; `place` is where it stood in JSONL ('line 7'), empty for text that is one reply as a whole."""

    text: str
    place: str = ""


def score(text: str | None, file: str | None, profile: str, as_json: bool) -> int:
    """Print the scores of the reply or replies; returns the exit code. ValueError (one line) where there is none."""
    style = read_profile(profile)
    replies = _replies(text, file)
    if sys.stdout is None:
        return 0
    if as_json:
        return _print((_json(reply, style) for reply in replies), "utf-8")
    return _print(_tables(replies, style), sys.stdout.encoding)


def _print(parts: Iterable[str], encoding: str) -> int:
    try:
        for part in parts:
            sys.stdout.buffer.write(part.encode(encoding, "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except OSError as error:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"socratic-mlflow: error: standard output: {error.strerror}", file=sys.stderr)
            return 1
    return 0


def _replies(text: str | None, file: str | None) -> list[Reply]:
    """What is to be scored, at least one reply."""
    if text is None and file is None and sys.stdin and sys.stdin.isatty():
        raise ValueError("nothing to score; give TEXT or --file FILE, or pipe text in ('score --help' has examples)")
    where, content, jsonl = ("TEXT", text, False) if text is not None else _read("-" if file is None else file)
    replies = list(_jsonl(where, content)) if jsonl else [Reply(content)] if content.strip() else []
    if not replies:
        raise ValueError(f"{where}: empty; there is nothing to score")
    return replies


def _read(file: str) -> tuple[str, str, bool]:
    """Name for messages, content, and whether that is JSONL."""
    if file == "-":
        try:
            content = sys.stdin.buffer.read().decode("utf-8-sig") if sys.stdin else ""
        except UnicodeDecodeError as error:
            raise ValueError(f"{_STDIN}: not UTF-8 text (byte {error.start})") from None
        jsonl = _looks_like_jsonl(content)
        if not jsonl and _is_json(content):
            raise ValueError(f"{_STDIN}: {_NO_JSON}")
        return _STDIN, content, jsonl
    path = resolve(file, "dialogues.jsonl") if file == BUNDLED else Path(file)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".json"):
        raise ValueError(f"{file}: {_NO_JSON}")
    return file, read_text(path)[0], name.endswith(".jsonl")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _looks_like_jsonl(text: str) -> bool:
    """Whether every line is a JSON object or string, or the first one is such an object as only JSONL begins with."""
    values = (json.loads(line) for _, line in _lines(text))
    try:
        first = next(values, None)
        # Decided here, so that a line further on which is cut off is an error and makes no plain text of the rest.
        if isinstance(first, dict) and not first.keys().isdisjoint(_FIELDS):
            return True
        return isinstance(first, dict | str) and all(isinstance(value, dict | str) for value in values)
    except (ValueError, RecursionError):
        return False


def _is_json(text: str) -> bool:
    """Whether `text` as a whole is a JSON list or object."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _jsonl(where: str, text: str) -> Iterator[Reply]:
    for number, line in _lines(text):
        try:
            found = _texts(json.loads(line))
        except (ValueError, RecursionError) as error:
            why = f"malformed JSON (column {error.colno})" if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(f"{where}:{number}: {why}; {_EXPECTED}") from None
        for count, reply in enumerate(found, 1):
            yield Reply(reply, f"line {number}, reply {count}" if len(found) > 1 else f"line {number}")


def _texts(value: Any) -> list[str]:
    """The replies in one line of JSONL; ValueError says what is wrong with it."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, dict):
        raise ValueError("neither an object nor a string")
    name = next((name for name in _FIELDS if name in value), "")
    if name == "messages":
        return _model_replies(value[name])
    if not isinstance(value.get(name), str):
        raise ValueError(f"{name} is no text" if name else "an object without a reply")
    return [value[name]]


def _model_replies(messages: Any) -> list[str]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("messages is no list of objects with 'role' and 'content'")
    replies = [message.get("content") for message in messages if message.get("role") in ("model", "assistant")]
    if not replies:
        raise ValueError("messages has no reply of role model or assistant")
    if not all(isinstance(reply, str) for reply in replies):
        raise ValueError("a reply in messages has no text as 'content'")
    return replies


def _json(reply: Reply, profile: StyleProfile) -> str:
    parts = dataclasses.asdict(explain(reply.text, profile)) | {"profile": profile.name}
    text = json.dumps(parts | ({"place": reply.place} if reply.place else {}), ensure_ascii=False)
    # Unprintable ones stand inside JSON strings only: half a surrogate pair is no UTF-8, U+009B begins a control sequence.
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _shown(text: str, most: int) -> str:
    """`text` for a terminal: its middle left out where it is longer than `most`, what is not printable escaped."""
    short = text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)


def _tables(replies: Sequence[Reply], profile: StyleProfile) -> Iterator[str]:
    from rich.console import Console

    # NO_COLOR alone would leave bold.
    colors: Any = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(color_system=colors, markup=False, emoji=False, highlight=False)
    if len(replies) > 1:
        yield from _rows(replies, profile, console)
        return
    found, wide = explain(replies[0].text, profile), console.width >= _WIDE
    scores = f"style {found.style:.3f}  tone {found.tone:.3f}  (from 0 to 1, profile {_shown(profile.name, _PHRASE)})"
    yield _rendered(console, scores, "bold") + "\n"
    if found.sentences:
        yield _rendered(console, _sentences(found, profile, wide)) + "\n"
        yield _rendered(console, _tone(found, profile, wide))
    else:
        yield "No sentence in it, so both scores are 0."


def _rendered(console: Console, part: RenderableType, style: str | None = None) -> str:
    with console.capture() as capture:
        console.print(part, style=style)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def _rows(replies: Sequence[Reply], profile: StyleProfile, console: Console) -> Iterator[str]:
    """One line a reply, then the means; made one by one, since there may be very many."""
    from rich.text import Text

    styles = tones = 0.0
    yield _rendered(console, "style  tone   reply", "bold")
    for reply in replies:
        style, tone = socratic_style(reply.text, profile), socratic_tone(reply.text, profile)
        styles, tones = styles + style, tones + tone
        beginning = Text(_shown(" ".join(reply.text[:_BEGINNING].split()), _BEGINNING))
        beginning.truncate(max(console.width - 14, 10), overflow="ellipsis")
        yield f"{style:.3f}  {tone:.3f}  {beginning}"
    means = f"{styles / len(replies):.3f}  {tones / len(replies):.3f}  mean of {len(replies)} replies"
    yield _rendered(console, means, "bold")


def _sentences(found: Explanation, profile: StyleProfile, wide: bool) -> Table:
    from rich.cells import cell_len
    from rich.console import Group

    count = len(found.sentences)
    mean = f"mean of {count} sentence{'s' * (count != 1)}"
    mean += f", the first {_SENTENCES} shown (--json has all)" if count > _SENTENCES else ""
    table = _table(wide, ("style", f"{found.style:.3f}"), ("sentence", mean), ("why", ""))
    width = max(cell_len(feature.name) for feature in profile.style)
    for sentence in found.sentences[:_SENTENCES]:
        parts: list[RenderableType] = [_shown(sentence.text, _SENTENCE), *_why(sentence.found, width)]
        table.add_row(f"{sentence.style:.3f}", *(parts if wide else [Group(*parts)]))
    return table


def _why(found: Sequence[Found], width: int) -> list[Table]:
    from rich.table import Column, Table

    grid = Table.grid("", Column(min_width=min(width, 12)), "", padding=(0, 1))
    for part in found:
        grid.add_row(*_cells(part))
    return [grid] if found else []


def _tone(found: Explanation, profile: StyleProfile, wide: bool) -> Table:
    total = found.tone_base + sum(part.weight for part in found.tone_found)
    bound = ", at least 0" if total < 0 else ", at most 1" if total > 1 + 1e-9 else ""
    table = _table(wide, ("tone", f"{found.tone:.3f}"), ("feature", f"sum{bound}"), ("found", ""), ("meaning", ""))
    table.add_row(f"{found.tone_base:.3f}", "base")
    meanings = {feature.name: feature.what for feature in profile.tone}
    for part in found.tone_found:
        table.add_row(*_cells(part), *([_shown(meanings[part.name], _SENTENCE)] if wide else []))
    return table


def _cells(part: Found) -> tuple[Text, str, str]:
    from rich.text import Text

    color = "green" if part.weight > 0 else "red" if part.weight < 0 else ""
    return Text(f"{part.weight:+.3f}", color), _shown(part.name, _PHRASE), _shown(part.evidence, _PHRASE)


def _table(wide: bool, score: tuple[str, str], *columns: tuple[str, str]) -> Table:
    """An empty table; each column is its heading and its footer, and the last one is there in a wide terminal only."""
    from rich import box
    from rich.table import Column, Table

    others = [Column(*names, overflow="fold") for names in (columns if wide else columns[:-1])]
    first = Column(*score, justify="right", no_wrap=True)
    return Table(first, *others, box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, show_footer=True)
