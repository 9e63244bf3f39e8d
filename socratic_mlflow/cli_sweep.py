"""The arguments of `sweep`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields
from socratic_mlflow.options import NOT_GIVEN

_EXAMPLES = """examples:
  socratic-mlflow sweep --preset embedded --n_trials 8
  socratic-mlflow sweep --n_trials 20 --space my_space.yaml --data my_dialogues.jsonl
  socratic-mlflow sweep --n_trials 20 --batch_size 8 --lora_r 16       a field that is given is not searched
  mlflow run . --env-manager local -e sweep -P n_trials=8 -P preset=embedded

The same command again goes on, up to n_trials in all; in a second terminal at the same time it is one more worker.
my_space.yaml names the fields to search:
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  lora_r: {choices: [4, 8, 16, 32]}
  warmup_ratio: {low: 0, high: 0.3, step: 0.1}
"""
N_TRIALS = 20


def add(commands: Any) -> None:
    """Add the command; every configuration field is a flag of it."""
    sweep = commands.add_parser(
        "sweep",
        help="search the hyper-parameters; the best trial is registered",
        usage="socratic-mlflow sweep [--n_trials N] [--space FILE] [--storage URL] [--config FILE] [--FIELD VALUE ...]",
        description="Train n_trials times with other hyper-parameters, which Optuna chooses, each as a nested run,\n"
        "and register the best adapter of all.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sweep.add_argument(
        "--n_trials", metavar="INT", default=NOT_GIVEN, help=f"trainings in all, earlier starts' included [{N_TRIALS}]"
    )
    sweep.add_argument(
        "--space", metavar="FILE", default=NOT_GIVEN, help="YAML file of what to search [learning rate, LoRA, weight decay]"
    )
    sweep.add_argument(
        "--storage",
        metavar="URL",
        default=NOT_GIVEN,
        help="Optuna storage of the study, e.g. postgresql+psycopg2://USER@HOST/DB [sqlite, study.db in output_dir]",
    )
    sweep.add_argument(
        "--config", metavar="FILE", help="YAML file of fields, or runs:/RUN_ID/config.yaml; flags take precedence over it"
    )
    add_fields(sweep)
    sweep.set_defaults(run=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    from socratic_mlflow.sweep_command import sweep

    return sweep(_count(args.n_trials), args.space, args.storage, given_fields(args), args.config)


def _count(text: str) -> int:
    """The number of trials; ValueError (one line) for anything else."""
    if text == NOT_GIVEN:
        return N_TRIALS
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 7):
        raise ValueError(f"n_trials is {text!r}; it takes a whole number from 1 to 999999")
    return int(text)
