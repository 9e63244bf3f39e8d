"""The arguments of `evaluate`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields
from socratic_mlflow.model_names import HELP

_EXAMPLES = """examples:
  socratic-mlflow evaluate models:/socratic-gemma@champion
  socratic-mlflow evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1    is 2 better than 1?
  socratic-mlflow evaluate outputs/embedded-1234abcd/best_adapter --data my_questions.txt
  socratic-mlflow evaluate base --preset embedded                                         before any training

Exit code 0 says that it was done, not which one is better.
"""


def add(commands: Any) -> None:
    """Add the command, with the fields that matter for it."""
    evaluate = commands.add_parser(
        "evaluate",
        help="ask any model the evaluation's questions, log it, compare two",
        usage="socratic-mlflow evaluate MODEL [--against MODEL] [--data FILE] [--FIELD VALUE ...]",
        description="Replies are generated and scored as in a training, logged to MLflow as a run of its own and, where\n"
        "MODEL is a registered version, shown on its page.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    evaluate.add_argument("model", metavar="MODEL", help=HELP)
    evaluate.add_argument("--against", metavar="MODEL", help="a second one: is it better or worse on the same questions?")
    questions = "other questions: one a line, or dialogues (.json, .jsonl), whose first messages are asked"
    evaluate.add_argument("--data", dest="evaluation.questions", metavar="FILE", help=questions)
    add_fields(evaluate, ("run.preset", "model.", "quantization.", "evaluation."))
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from socratic_mlflow.evaluate_command import evaluate

    return evaluate(args.model, args.against, given_fields(args))
