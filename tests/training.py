"""One small training through the command line, as a person starts it, and what it leaves behind; test files share it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stores
import tiny
from mlflow import MlflowClient

from socratic_mlflow import cli

MODEL = "tiny-socrates"
# Three batches an epoch: checkpoints at steps 2, 4, 6 and 7 lie in the middle of epochs.
MAX_STEPS, EVAL_STEPS, EVALUATED = 7, 2, [0, 2, 4, 6, 7]
DIALOGUES, HELD_OUT = 14, 3


@dataclass(frozen=True)
class Training:
    """A finished command: where it ran, what it was given, what it printed, and its MLflow run."""

    folder: Path
    arguments: list[str]
    printed: str
    store: str
    run: Any

    @property
    def output(self) -> Path:
        """Its output_dir."""
        return self.folder / "out"


def write_inputs(folder: Path) -> Path:
    """Base, dialogues (three of them unusable) and questions."""
    tiny.save_base(folder / "base")
    file = tiny.write_dialogues(folder / "dialogues.jsonl", DIALOGUES)
    unusable = [
        {"messages": [{"role": "system", "content": "a"}, {"role": "model", "content": "b"}]},
        {"messages": tiny.dialogue(3)},
        {"messages": [tiny.dialogue(0)[0], tiny.dialogue(0)[1] | {"content": "長い。" * 400}]},
    ]
    with file.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in unusable)
    (folder / "questions.txt").write_text("\n".join(tiny.QUESTIONS[:4]), encoding="utf-8")
    return folder


def arguments(inputs: Path, output: str = "out", **changes: Any) -> list[str]:
    """The command line of the small training; `changes` by flag."""
    given = {
        "preset": "embedded",
        "base_model": inputs / "base",
        "data": inputs / "dialogues.jsonl",
        "questions": inputs / "questions.txt",
        "max_steps": MAX_STEPS,
        "eval_steps": EVAL_STEPS,
        "save_total_limit": 9,
        "batch_size": 4,
        "learning_rate": 0.05,
        "lora_r": 4,
        "lora_dropout": 0.2,
        "max_new_tokens": 6,
        "generation_batch_size": 3,
        "registered_model_name": MODEL,
        "output_dir": output,
    }
    return ["train", *(f"--{name}={value}" for name, value in (given | changes).items())]


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The working directory for the while, with this process' reactions to signals put back afterwards."""
    before, handlers = Path.cwd(), {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def command(folder: Path, given: list[str]) -> tuple[int, str]:
    """(exit code, what it printed to stdout) of `socratic-mlflow` in `folder`, in this process."""
    printed = io.StringIO()
    with working_in(folder), contextlib.redirect_stdout(printed):
        code = cli.main(given)
    return code, printed.getvalue()


def finish(folder: Path, inputs: Path, empty_database: Path) -> Training:
    """The small training, finished and registered in an SQLite store of its own."""
    given, uri = arguments(inputs), stores.make(folder, "sqlite", empty_database)
    with stores.used(uri):
        code, printed = command(folder, given)
        assert code == 0, printed
        return Training(folder, given, printed, uri, stores.only_run())


def version(name: str, number: str | int) -> Any:
    """One registered version."""
    return MlflowClient().get_model_version(name, str(number))
