"""Lines as a person types them, in `--help` and in documents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "socratic-mlflow"
# What `mlflow run . -e sweep -P` takes besides fields.
SWEEPS_OWN = {"n_trials", "space", "storage", "config"}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)


def words(example: str) -> list[str]:
    """What the program is given of a line, which may be a pipe or have redirections, and a remark behind it."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars="<>|")
    lexer.whitespace_split = True
    found = list(lexer)
    found = found[found.index(PROGRAM) + 1 :]
    ends = [index for index, word in enumerate(found) if word in ("<", ">", "|")]
    return found[: min(ends, default=len(found))]


@dataclass(frozen=True)
class Shown:
    """A command in a document, and the line below it, where its output begins ('' where there is none)."""

    command: str
    output: str


def shown(document: Path) -> list[Shown]:
    """The lines of a Markdown file's blocks, fenced or indented: those behind `$ `, or all, in bash or where no `$ ` is."""
    text = document.read_text(encoding="utf-8").replace("\\\n", "")
    blocks = [(found[2], found[3]) for found in _FENCE.finditer(text)]
    blocks += [("", found[0]) for found in _INDENTED.finditer(_FENCE.sub("", text))]
    return [each for block in blocks for each in _of_block(*block)]


def mentioned(document: Path) -> list[str]:
    """What stands as code in the sentences and tables of a Markdown file, each in one line."""
    text = _INDENTED.sub("", _FENCE.sub("", document.read_text(encoding="utf-8")))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def _of_block(language: str, block: str) -> Iterator[Shown]:
    lines = [line.strip() for line in block.splitlines()]
    prompted = language != "bash" and any(line.startswith("$ ") for line in lines)
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("$ ") or not prompted:
            yield Shown(line.removeprefix("$ "), below)
