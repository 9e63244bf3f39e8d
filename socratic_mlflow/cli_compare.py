"""The arguments of `compare`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_numbers import number

_EXAMPLES = """examples:
  socratic-mlflow compare                                 the last 5 finished trainings, the best first
  socratic-mlflow compare --last 3 --html comparison.html
  socratic-mlflow compare 3f2a 91bc --figure curves.png   runs by the beginning of their ids
  socratic-mlflow compare bold-bee-12 quiet-fox-7 --log   by name; table, figure and page into a run of their own
"""
LAST = 5


def add(commands: Any) -> None:
    """Add the command."""
    compare = commands.add_parser(
        "compare",
        help="what differed between trainings, and what came out",
        usage="socratic-mlflow compare [RUN ...] [--last N] [--experiment NAME] [--html FILE] [--figure FILE.png] [--log]",
        description="A table of the parameters that differ and of what came out, the best style first; runs that are\n"
        "still running or have failed are marked. No file that is there already is written over.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    compare.add_argument("runs", nargs="*", metavar="RUN", help="run id, its first 4 hex digits or more, or run name")
    compare.add_argument("--last", type=number(int, 1, 100), metavar="N", help=f"the last N finished trainings [{LAST}]")
    compare.add_argument(
        "--experiment", metavar="NAME", help="experiment to look in [MLFLOW_EXPERIMENT_NAME, else Default]"
    )
    compare.add_argument("--html", metavar="FILE", help="write one page with table and figure, which needs no other file")
    compare.add_argument("--figure", metavar="FILE.png", help="write the curves of style and loss over the steps")
    compare.add_argument("--log", action="store_true", help="log table, figure and page into an MLflow run 'comparison'")
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from socratic_mlflow.compare_command import compare

    return compare(args.runs, args.last, args.experiment, args.html, args.figure, args.log)
