"""The command line: parse, dispatch, and turn a user's mistake into one line and exit code 2. Imports lazily.

Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from socratic_mlflow import (
    __version__,
    cli_chat,
    cli_compare,
    cli_evaluate,
    cli_export,
    cli_models,
    cli_score,
    cli_serve,
    cli_sweep,
    cli_sync,
    cli_train,
)
from socratic_mlflow.options import by_name, unknown_name

_EXAMPLES = """examples:
  socratic-mlflow train                                    auto preset, bundled dialogues
  socratic-mlflow train --preset embedded --epochs 3 --output_dir out
  socratic-mlflow train --config my.yaml --learning_rate 1e-3
  socratic-mlflow check-data my_dialogues.jsonl
  socratic-mlflow sync                                     deliver what MLflow missed while it was away
  socratic-mlflow score 'では、君は正義について何を考えているのかね？'
  socratic-mlflow evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1
  socratic-mlflow serve models:/socratic-gemma@champion    OpenAI's chat completions API on 127.0.0.1:8000
  socratic-mlflow chat
  socratic-mlflow export models:/socratic-gemma@champion --to merged --output_dir my-model
  socratic-mlflow models                                   versions, scores, stages
  socratic-mlflow promote 3                                Production and @champion, if it is no worse; rollback undoes it
  socratic-mlflow compare --last 3 --html comparison.html
  socratic-mlflow sweep --preset embedded --n_trials 8
  socratic-mlflow train --num_processes 2                  two GPUs, or two halves of the cores
"""

# In the order in which help lists them.
_COMMANDS = (
    cli_train,
    cli_sweep,
    cli_score,
    cli_evaluate,
    cli_chat,
    cli_serve,
    cli_export,
    cli_models,
    cli_compare,
    cli_sync,
)


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        _fail(message)


def _fail(message: str) -> NoReturn:
    from socratic_mlflow.redaction import redact

    print(f"socratic-mlflow: error: {redact(' '.join(message.split()))}", file=sys.stderr, flush=True)
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
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for module in _COMMANDS:
        module.add(commands)
    # Named where none is given.
    commands.metavar = f"{{{','.join(commands.choices)}}}"
    return parser


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`, so that a value may begin with a dash (a negative number, say)."""
    known, rest = by_name(), list(arguments)
    result: list[str] = []
    while rest:
        token = rest.pop(0)
        if token == "--":
            return [*result, token, *rest]
        if token.startswith("--") and token[2:] in known and rest and not rest[0].startswith("--"):
            token = f"{token}={rest.pop(0)}"
        result.append(token)
    return result


def _refuse(command: str, token: str) -> NoReturn:
    """Say what is wrong with an argument that the parser did not take."""
    name = token.partition("=")[0]
    if command == "evaluate" and name[2:] in by_name():
        _fail(f"{name[2:]} is a field of trainings; an evaluation does not use it")
    if command != "score":
        _fail(unknown_name(name[2:]) if token.startswith("--") else f"unexpected argument {token!r}")
    if token.startswith("--"):
        near = difflib.get_close_matches(name, cli_score.OPTIONS, n=1, cutoff=0.5)
        _fail(f"unknown option {name!r}; {f'did you mean {near[0]}?' if near else 'a TEXT like that goes behind --'}")
    hint = "a TEXT that begins with a dash goes behind --" if token.startswith("-") else "put a TEXT with spaces in quotes"
    _fail(f"unexpected argument {token!r}; {hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (SystemExit with code 2 for wrong usage)."""
    args, unknown = build_parser().parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    if unknown:
        # A misspelt field is named before its value, which is then left over as well.
        _refuse(args.command, next((token for token in unknown if token.startswith("--")), unknown[0]))
    try:
        return int(args.run(args))
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("socratic-mlflow: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from socratic_mlflow.failures import report

        print(f"socratic-mlflow: {report(error)}", file=sys.stderr, flush=True)
        return 1
