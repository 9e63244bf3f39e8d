"""The arguments of `chat`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields
from socratic_mlflow.cli_numbers import number
from socratic_mlflow.model_names import CHAMPION, HELP

_EXAMPLES = """examples:
  socratic-mlflow chat
  socratic-mlflow chat models:/socratic-gemma/2 --temperature 0.7 --seed 1
  socratic-mlflow chat outputs/embedded-1234abcd/best_adapter
  socratic-mlflow chat base --preset embedded
  socratic-mlflow chat < questions.txt > replies.txt      a question a line, a reply a line

While you talk: /reset, /style, /compare, /save [FILE], /help, /quit.
Ctrl-C stops a reply (twice: at once), Ctrl-D leaves.
Exit codes: 0 left; 1 a question or command that was piped in failed; 2 wrong usage or input;
130 Ctrl-C while loading, or behind a pipe.
"""


def add(commands: Any) -> None:
    """Add the command, with the fields that matter for it."""
    chat = commands.add_parser(
        "chat",
        help="talk to any model in the terminal, or through a pipe",
        usage="socratic-mlflow chat [MODEL] [--temperature T] [--seed N] [--FIELD VALUE ...]",
        description="A conversation; replies appear as they are made. Where it is piped, each line of standard input is\n"
        "a question (or, to the letter, a command), and each line of standard output the reply to one.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    chat.add_argument("model", nargs="?", default=CHAMPION, metavar="MODEL", help=f"{HELP} [{CHAMPION}]")
    for name, kind, low, high, default, what in (
        ("temperature", float, 0, 2, 0, "how freely words are drawn; 0: always the likeliest"),
        ("top_p", float, 0.01, 1, 1, "draw from the likeliest words that together have this probability"),
        ("seed", int, 0, 2**32 - 1, None, "the same seed draws the same replies"),
    ):
        shown = "" if default is None else f" [{default}]"
        text = f"{what} (from {low} to {high}){shown}"
        parse = number(kind, low, high)
        chat.add_argument(f"--{name}", type=parse, default=default, metavar=kind.__name__.upper(), help=text)
    fields = ("evaluation.max_new_tokens", "evaluation.style_profile", "run.preset", "model.", "quantization.")
    add_fields(chat, fields)
    chat.set_defaults(run=_chat)


def _chat(args: argparse.Namespace) -> int:
    from socratic_mlflow.chat_command import chat

    return chat(args.model, given_fields(args), args.temperature, args.top_p, args.seed)
