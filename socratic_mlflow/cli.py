"""The command line: parse, dispatch, and turn a user's mistake into one line and exit code 2. Imports lazily.

Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Generator, Sequence
from typing import NoReturn

from socratic_mlflow import (
    __version__,
    cli_chat,
    cli_compare,
    cli_completion,
    cli_evaluate,
    cli_export,
    cli_models,
    cli_score,
    cli_serve,
    cli_sweep,
    cli_sync,
    cli_train,
)
from socratic_mlflow.options import by_name

_EPILOG = """examples:
  socratic-mlflow train --preset embedded --epochs 3       the bundled dialogues, on any machine
  socratic-mlflow check-data my_dialogues.jsonl            which of your dialogues would not be used, and why
  socratic-mlflow sweep --preset embedded --n_trials 8     the best hyper-parameters of eight trainings
  socratic-mlflow score 'では、君は正義とは何だと思うのかね？'
  socratic-mlflow evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1
  socratic-mlflow chat                                     talk to the champion
  socratic-mlflow serve models:/socratic-gemma@champion    OpenAI's chat completions API on 127.0.0.1:8000
  socratic-mlflow export models:/socratic-gemma@champion --to merged --output_dir my-model
  socratic-mlflow models                                   versions, their scores, who is the champion
  socratic-mlflow promote 3                                Production and @champion, if it is no worse
  socratic-mlflow rollback                                 the champion before this one again
  socratic-mlflow compare --last 3 --html comparison.html
  socratic-mlflow sync                                     deliver what MLflow missed while it was away
  socratic-mlflow completion bash                          TAB completion: 'completion --help' says how to install it

'socratic-mlflow COMMAND --help' says more. What a command works with is in MLflow's store: mlflow.db in this folder,
or what MLFLOW_TRACKING_URI names.

exit codes:
    0  done (a training whose records MLflow has yet to receive is done as well; 'sync' delivers them)
    1  failed while it ran; for sync, MLflow still cannot be reached
    2  wrong usage or input, or refused: one line says what, where and what to do
  130  interrupted (Ctrl-C or SIGTERM)
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
    cli_completion,
)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Lists the commands without a line COMMAND of their own above them, which pushes the longer names off their lines."""

    def _iter_indented_subactions(self, action: argparse.Action) -> Generator[argparse.Action, None, None]:
        if isinstance(action, argparse._SubParsersAction):
            yield from action._get_subactions()

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        return text.partition("\n")[2] if isinstance(action, argparse._SubParsersAction) else text


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        _fail(message)


def _fail(message: str) -> NoReturn:
    from socratic_mlflow.redaction import redact

    print(f"socratic-mlflow: error: {redact(' '.join(message.split()))}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser; every configuration field is a flag of `train`, `check-data` and `sweep`, under both of its names."""
    return with_commands()[0]


def with_commands() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """(the parser, {command: its own parser} in the order of help)."""
    parser = _Parser(
        prog="socratic-mlflow",
        description="Fine-tune a chat model into a speaking style, every step in MLflow; then talk to it, serve it.",
        epilog=_EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in _COMMANDS:
        module.add(commands)
    return parser, dict(commands.choices)


def _check_command(known: Sequence[str], arguments: Sequence[str]) -> None:
    """Ends with one line where `arguments` do not begin with a command, or ask for help or version."""
    first, listed = arguments[0] if arguments else "", ", ".join(known)
    if first in (*known, "-h", "--help", "--version"):
        return
    if not first or first.startswith("-"):
        _fail(f"a command comes first, one of {listed}; 'socratic-mlflow --help' explains them")
    near = difflib.get_close_matches(first, known, n=1)
    _fail(f"unknown command {first!r}; {f'did you mean {near[0]}?' if near else f'there are {listed}'}")


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


def _refuse(command: str, parser: argparse.ArgumentParser, token: str) -> NoReturn:
    """Say what is wrong with an argument that the parser of `command` did not take."""
    name = token.partition("=")[0]
    if not token.startswith("--"):
        _fail(f"unexpected argument {token!r}{_about_text(token) if command == 'score' else ''}")
    if command != "score" and name[2:] in by_name():
        _fail(f"{name[2:]} is a field of trainings; {command} does not take it")
    if near := difflib.get_close_matches(name, parser._option_string_actions, n=1, cutoff=0.5):
        field = "." in parser._option_string_actions[near[0]].dest
        kind, wrong, right = ("field", name[2:], near[0][2:]) if field else ("option", name, near[0])
        _fail(f"unknown {kind} {wrong!r}; did you mean {right}?")
    if command == "score":
        _fail(f"unknown option {name!r}; a TEXT like that goes behind --")
    _fail(f"unknown option {name!r}; 'socratic-mlflow {command} --help' lists what there is")


def _about_text(token: str) -> str:
    return f"; {'a TEXT that begins with a dash goes behind --' if token[0] == '-' else 'put a TEXT with spaces in quotes'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (SystemExit with code 2 for wrong usage)."""
    given = sys.argv[1:] if arguments is None else arguments
    parser, commands = with_commands()
    _check_command(list(commands), given)
    args, unknown = parser.parse_known_args(_joined(given))
    if unknown:
        # A misspelt field is named before its value, which is then left over as well.
        wrong = next((token for token in unknown if token.startswith("--")), unknown[0])
        _refuse(args.command, commands[args.command], wrong)
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
