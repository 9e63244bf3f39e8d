"""The arguments of `train` and `check-data`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields


def add(commands: Any) -> None:
    """Add the commands; every configuration field is a flag of both."""
    train = commands.add_parser(
        "train",
        help="fine-tune, log to MLflow, register the best adapter",
        usage="socratic-mlflow train [--config FILE] [--FIELD VALUE ...]",
        description="Every field takes a value; what it is without one stands in [brackets], presets' own values too.",
        allow_abbrev=False,
    )
    check = commands.add_parser(
        "check-data",
        help="list every dialogue of a file that would not be used, and why",
        usage="socratic-mlflow check-data FILE [--config FILE] [--FIELD VALUE ...]",
        description="max_length and base_model, whose tokenizer measures the length, matter here; other fields do not.",
        allow_abbrev=False,
    )
    check.add_argument("file", help="JSON list or JSONL of dialogues, .gz too; 'bundled' for those that ship here")
    for command in (train, check):
        command.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file of fields, or runs:/RUN_ID/config.yaml, which repeats that run; flags take precedence over it",
        )
        add_fields(command)
    train.set_defaults(run=_train)
    check.set_defaults(run=_check_data)


def _train(args: argparse.Namespace) -> int:
    from socratic_mlflow.commands import train

    return train(given_fields(args), args.config)


def _check_data(args: argparse.Namespace) -> int:
    from socratic_mlflow.commands import check_data

    return check_data(args.file, given_fields(args), args.config)
