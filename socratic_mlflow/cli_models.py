"""The arguments of `models`, `promote` and `rollback`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

_MODELS = """examples:
  socratic-mlflow models                            the versions of socratic-gemma, and which other models there are
  socratic-mlflow models my-model --json
"""
_PROMOTE = """examples:
  socratic-mlflow promote 3                         version 3 becomes Production and @champion, if it is no worse
  socratic-mlflow promote 4 --stage Staging         version 4 becomes Staging and @challenger
  socratic-mlflow promote 2 --stage Archived
  socratic-mlflow promote 3 --force                 even if it scores worse, or nothing is known of its scores
"""
_ROLLBACK = """examples:
  socratic-mlflow rollback                          back to the champion before this one
  socratic-mlflow rollback                          and to the one before that
"""
STAGES = ("Production", "Staging", "Archived")


def add(commands: Any) -> None:
    """Add the three commands."""
    models = _command(
        commands,
        "models",
        "versions with their scores, stage, alias, date and run",
        "The versions of a registered model, the newest first, where each one stands, and the last moves.",
        _MODELS,
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="registered model [socratic-gemma]")
    models.add_argument("--json", action="store_true", help="print one JSON object with everything, ids in full")
    models.set_defaults(run=_models)
    promote = _command(
        commands,
        "promote",
        "make a version the champion (or Staging), if it is no worse",
        "Stage and alias move together (Production and @champion, Staging and @challenger); who stood there is archived.\n"
        "A version that has collapsed, or that scores worse on the same questions than the champion, is refused.",
        _PROMOTE,
    )
    promote.add_argument("version", metavar="VERSION", help="number of a version, as 'socratic-mlflow models' lists it")
    promote.add_argument("--stage", choices=STAGES, default=STAGES[0], help="where it goes [Production]")
    promote.add_argument("--force", action="store_true", help="even if it is worse, or nothing is known of its scores")
    promote.set_defaults(run=_promote)
    rollback = _command(
        commands,
        "rollback",
        "make the champion before this one the champion again",
        "Like undo: each rollback goes one further back; 'promote VERSION' goes forward. Scores are not compared.",
        _ROLLBACK,
    )
    rollback.set_defaults(run=_rollback)
    for command in (promote, rollback):
        command.add_argument("--name", metavar="NAME", help="registered model [socratic-gemma]")


def _command(commands: Any, name: str, short: str, description: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _models(args: argparse.Namespace) -> int:
    from socratic_mlflow.models_command import models

    return models(args.name, args.json)


def _promote(args: argparse.Namespace) -> int:
    from socratic_mlflow.promote_command import promote

    return promote(args.version, args.stage, args.name, args.force)


def _rollback(args: argparse.Namespace) -> int:
    from socratic_mlflow.promote_command import rollback

    return rollback(args.name)
