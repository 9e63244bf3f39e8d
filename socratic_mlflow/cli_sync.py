"""The arguments of `sync`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command."""
    sync = commands.add_parser(
        "sync",
        help="deliver to MLflow what it missed of a training, and register its model",
        description="Delivering twice changes nothing. Exit code 1 where MLflow still cannot be reached.",
        allow_abbrev=False,
    )
    sync.add_argument("output_dir", nargs="?", metavar="OUTPUT_DIR", help="folder of a training [all in outputs/]")
    sync.add_argument("--new-run", action="store_true", help="into a new run, where the old one or its database is gone")
    sync.set_defaults(run=_sync)


def _sync(args: argparse.Namespace) -> int:
    from socratic_mlflow.sync_command import sync

    return sync(args.output_dir, args.new_run)
