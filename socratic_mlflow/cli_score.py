"""The arguments of `score`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLES = """examples:
  socratic-mlflow score 'では、君は正義について何を考えているのかね？'
  socratic-mlflow score --file reply.txt            the whole file is one reply
  socratic-mlflow score --file replies.jsonl        one row a reply, then the means
  socratic-mlflow score --file bundled              the replies in the dialogues that ship here
  my-model | socratic-mlflow score --json           one JSON object a reply
  socratic-mlflow score --profile gozaru '拙者は考えるでござる。'

JSONL has a JSON string on each line, or an object: with text under reply, text or content, or with a
dialogue's messages, whose model or assistant replies are all scored. Standard input may be either, too.
"""


def add(commands: Any) -> None:
    """Add the command."""
    score = commands.add_parser(
        "score",
        help="how Socratic a reply sounds, and why",
        description="How Socratic a reply sounds, from 0 to 1, and why. Style is the mean over its sentences; tone adds\n"
        "up what the whole reply has, with weights fitted to a judge's ratings. Loads no model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    reply = score.add_mutually_exclusive_group()
    reply.add_argument("text", nargs="?", metavar="TEXT", help="a reply; without it and --file, standard input is read")
    reply.add_argument("--file", metavar="FILE", help="plain text, which is one reply, or .jsonl; '-' is standard input")
    score.add_argument("--json", action="store_true", help="print one JSON object a reply instead of tables")
    score.add_argument(
        "--profile",
        metavar="NAME_OR_FILE",
        default="socratic",
        help="speaking style to score for: one that ships here, or a YAML file [socratic]",
    )
    score.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    from socratic_mlflow.score_command import score

    return score(args.text, args.file, args.profile, args.json)
