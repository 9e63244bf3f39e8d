"""The arguments of `train` and `check-data`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields

_TRAIN = """examples:
  socratic-mlflow train                                    the bundled dialogues; the preset fits this machine
  socratic-mlflow train --preset embedded --epochs 3 --output_dir out
  socratic-mlflow train --data my_dialogues.jsonl --learning_rate 1e-3 --lora_r 8
  socratic-mlflow train --config my.yaml                   fields from a file; see docs/commands.md
  socratic-mlflow train --config runs:/3f2a91bc3f2a91bc3f2a91bc3f2a91bc/config.yaml    that run again
  mlflow run . --env-manager local -P epochs=3             the same through MLflow, in a clone of the project

The same command again goes on where it was stopped. Ctrl-C writes a checkpoint first; a second one stops at once.
"""
_CHECK_DATA = """examples:
  socratic-mlflow check-data my_dialogues.jsonl
  socratic-mlflow check-data my_dialogues.json.gz --max_length 256
  socratic-mlflow check-data bundled --preset embedded     the dialogues that ship here
"""


def add(commands: Any) -> None:
    """Add the commands; every configuration field is a flag of both."""
    train = commands.add_parser(
        "train",
        help="fine-tune, log to MLflow, register the best adapter",
        usage="socratic-mlflow train [--config FILE] [--FIELD VALUE ...]",
        description="Fine-tune, log every step to MLflow, register the best adapter. Every option takes a value; what\n"
        "it is without one stands in [brackets], with the presets' own values.",
        epilog=_TRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    check = commands.add_parser(
        "check-data",
        help="list every dialogue of a file that would not be used, and why",
        usage="socratic-mlflow check-data FILE [--config FILE] [--FIELD VALUE ...]",
        description="List every dialogue of FILE that a training would not use, with its place and the reason. Of the\n"
        "options only preset, base_model (its tokenizer measures the length), revision and max_length matter.",
        epilog=_CHECK_DATA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    check.add_argument(
        "file", metavar="FILE", help="JSON list or JSONL of dialogues, .gz too; 'bundled' for those that ship here"
    )
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
