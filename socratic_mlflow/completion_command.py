"""`completion`: a shell's script, made of the parser by shtab. The parser itself carries nothing that only TAB needs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from socratic_mlflow.options import options
from socratic_mlflow.plain_table import write

# Fields and arguments whose value is a path; MODEL may be an adapter's folder, and names in the registry are not known
# without asking the store.
FILES = ("data.path", "evaluation.questions", "evaluation.style_profile", "config", "file", "space", "html", "figure")
FOLDERS = ("run.output_dir", "model.base_model", "output_dir", "model", "against")


def completion(shell: str) -> int:
    """Print the script for `shell`; returns the exit code."""
    import shtab

    from socratic_mlflow.cli import with_commands

    parser, commands = with_commands()
    choices = _choices()
    for command in commands.values():
        _prepare(command, choices)
    return write(shtab.complete(parser, shell))


def _prepare(command: argparse.ArgumentParser, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Tell shtab what each argument of `command` takes; each field is offered once, under its short name."""
    import shtab

    for action in command._actions:
        hint: Any = action
        action.option_strings = action.option_strings[:1] if "." in action.dest else action.option_strings
        if action.dest in FILES:
            hint.complete = shtab.FILE
        elif action.dest in FOLDERS:
            hint.complete = shtab.DIRECTORY
        else:
            action.choices = action.choices or choices.get(action.dest)


def _choices() -> dict[str, tuple[str, ...]]:
    """{dotted key: the values it takes} of every field; empty where it takes more than a few."""
    few = {option.key: option.spec.metadata["choices"] for option in options()}
    return few | {option.key: ("true", "false") for option in options() if option.type is bool}
