"""The arguments of `sync`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLES = """examples:
  socratic-mlflow sync                       all trainings in outputs/
  socratic-mlflow sync out                   the one whose output_dir was out
  socratic-mlflow sync out --new-run         into a new run, where MLflow has lost the old one

Exit code 1 where MLflow still cannot be reached; nothing is lost, and the same command may be given again.
"""


def add(commands: Any) -> None:
    """Add the command."""
    sync = commands.add_parser(
        "sync",
        help="deliver to MLflow what it missed of a training",
        description="What a training says to MLflow stands in its output folder first. Where MLflow was away, deliver the\n"
        "rest now and register the model. Delivering twice changes nothing.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sync.add_argument("output_dir", nargs="?", metavar="OUTPUT_DIR", help="folder of a training [all in outputs/]")
    sync.add_argument("--new-run", action="store_true", help="into a new run, where the old one or its database is gone")
    sync.set_defaults(run=_sync)


def _sync(args: argparse.Namespace) -> int:
    from socratic_mlflow.sync_command import sync

    return sync(args.output_dir, args.new_run)
