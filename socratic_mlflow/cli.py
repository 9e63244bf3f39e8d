"""The command line: parse, dispatch, and turn a user's mistake into one line and exit code 2. Imports lazily.

Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from socratic_mlflow import __version__
from socratic_mlflow.config import allowed
from socratic_mlflow.options import by_name, options, unknown_name
from socratic_mlflow.presets import PRESETS

_EXAMPLES = """examples:
  socratic-mlflow train                                    auto preset, bundled dialogues
  socratic-mlflow train --preset embedded --epochs 3 --output_dir out
  socratic-mlflow train --config my.yaml --learning_rate 1e-3
  socratic-mlflow check-data my_dialogues.jsonl
"""


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        _fail(message)


def _fail(message: str) -> NoReturn:
    print(f"socratic-mlflow: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser; every configuration field is a flag of `train` and `check-data`, under both of its names."""
    formatter: Any = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="socratic-mlflow",
        description="Fine-tune a chat model into a speaking style, every step in MLflow.",
        epilog=_EXAMPLES,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{train,check-data}", parser_class=_Parser)
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
        command.add_argument("--config", metavar="FILE", help="YAML file of fields; flags take precedence over it")
        _add_fields(command)
    return parser


def _add_fields(command: argparse.ArgumentParser) -> None:
    groups: dict[str, Any] = {}
    for option in options():
        section = option.key.partition(".")[0]
        group = groups.setdefault(section, None) or command.add_argument_group(section)
        groups[section] = group
        limits = f" ({allowed(option.spec)})" if allowed(option.spec) else ""
        other = {name: changes[option.key] for name, changes in PRESETS.items() if option.key in changes}
        default = "; ".join([str(option.spec.default), *(f"{name}: {value}" for name, value in other.items())])
        text = f"{option.spec.metadata['help']}{limits} [{default}]".replace("%", "%%")
        names = dict.fromkeys((f"--{option.flag}", f"--{option.key}"))
        group.add_argument(*names, dest=option.key, metavar=option.type.__name__.upper(), help=text)


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`, so that a value may begin with a dash (a negative number, say)."""
    known, result, rest = by_name(), [], list(arguments)
    while rest:
        token = rest.pop(0)
        if token.startswith("--") and token[2:] in known and rest and not rest[0].startswith("--"):
            token = f"{token}={rest.pop(0)}"
        result.append(token)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (SystemExit with code 2 for wrong usage)."""
    args, unknown = build_parser().parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    for token in unknown:
        if token.startswith("--"):
            _fail(unknown_name(token[2:].partition("=")[0]))
    if unknown:
        _fail(f"unexpected argument {unknown[0]!r}")
    given = {option.key: value for option in options() if (value := getattr(args, option.key)) is not None}
    try:
        if args.command == "train":
            from socratic_mlflow.commands import train

            return train(given, args.config)
        from socratic_mlflow.commands import check_data

        return check_data(args.file, given, args.config)
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("socratic-mlflow: interrupted", file=sys.stderr)
        return 130
