"""The command line: parse, dispatch, and turn a user's mistake into one line and exit code 2. Imports lazily.

Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import difflib
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
  socratic-mlflow sync                                     deliver what MLflow missed while it was away
  socratic-mlflow score 'では、君は正義について何を考えているのかね？'
  socratic-mlflow evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1
"""

_SCORE_EXAMPLES = """examples:
  socratic-mlflow score 'では、君は正義について何を考えているのかね？'
  socratic-mlflow score --file reply.txt            the whole file is one reply
  socratic-mlflow score --file replies.jsonl        one row a reply, then the means
  socratic-mlflow score --file bundled              the replies in the dialogues that ship here
  my-model | socratic-mlflow score --json           one JSON object a reply
  socratic-mlflow score --profile gozaru '拙者は考えるでござる。'

JSONL has a JSON string on each line, or an object: with text under reply, text or content, or with a
dialogue's messages, whose model or assistant replies are all scored. Standard input may be either, too.
"""

_EVALUATE_EXAMPLES = """examples:
  socratic-mlflow evaluate models:/socratic-gemma@champion
  socratic-mlflow evaluate models:/socratic-gemma/2 --against models:/socratic-gemma/1
  socratic-mlflow evaluate outputs/embedded-1234abcd/best_adapter --data my_questions.txt
  socratic-mlflow evaluate base --preset embedded
"""

_SCORE_OPTIONS = ("--file", "--json", "--profile", "--help")


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
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{train,check-data,score,evaluate,sync}", parser_class=_Parser
    )
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
    _add_evaluate(commands)
    _add_score(commands)
    sync = commands.add_parser(
        "sync",
        help="deliver to MLflow what it missed of a training, and register its model",
        description="Delivering twice changes nothing. Exit code 1 where MLflow still cannot be reached.",
        allow_abbrev=False,
    )
    sync.add_argument("output_dir", nargs="?", metavar="OUTPUT_DIR", help="folder of a training [all in outputs/]")
    sync.add_argument("--new-run", action="store_true", help="into a new run, where the old one or its database is gone")
    return parser


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="ask any model the evaluation's questions, log it, compare two",
        usage="socratic-mlflow evaluate MODEL [--against MODEL] [--data FILE] [--FIELD VALUE ...]",
        description="Replies are generated and scored as in a training, logged to MLflow as a run of its own and, where\n"
        "MODEL is a registered version, shown on its page.",
        epilog=_EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    model = "models:/NAME/VERSION (or /STAGE, @ALIAS), runs:/RUN_ID/adapter, an adapter folder, or base"
    evaluate.add_argument("model", metavar="MODEL", help=model)
    evaluate.add_argument("--against", metavar="MODEL", help="a second one: is it better or worse on the same questions?")
    questions = "other questions: one a line, or dialogues (.json, .jsonl), whose first messages are asked"
    evaluate.add_argument("--data", dest="evaluation.questions", metavar="FILE", help=questions)
    _add_fields(evaluate, ("run.preset", "model.", "quantization.", "evaluation."))


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="how Socratic a reply sounds, and why",
        description="How Socratic a reply sounds, from 0 to 1, and why. Style is the mean over its sentences; tone adds\n"
        "up what the whole reply has, with weights fitted to a judge's ratings. Loads no model.",
        epilog=_SCORE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    reply = score.add_mutually_exclusive_group()
    reply.add_argument("text", nargs="?", metavar="TEXT", help="a reply; without it and --file, standard input is read")
    reply.add_argument("--file", metavar="FILE", help="plain text, which is one reply, or .jsonl; '-' is standard input")
    score.add_argument("--json", action="store_true", help="print one JSON object a reply instead of tables")
    score.add_argument(
        "--profile",
        metavar="NAME_OR_FILE",
        default="socratic",
        help="speaking style to score for: one that ships here, or a YAML file [socratic]",
    )


def _add_fields(command: argparse.ArgumentParser, only: tuple[str, ...] = ("",)) -> None:
    groups: dict[str, Any] = {}
    for option in options():
        if not option.key.startswith(only):
            continue
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
        near = difflib.get_close_matches(name, _SCORE_OPTIONS, n=1, cutoff=0.5)
        _fail(f"unknown option {name!r}; {f'did you mean {near[0]}?' if near else 'a TEXT like that goes behind --'}")
    hint = "a TEXT that begins with a dash goes behind --" if token.startswith("-") else "put a TEXT with spaces in quotes"
    _fail(f"unexpected argument {token!r}; {hint}")


def _run(args: argparse.Namespace) -> int:
    if args.command == "score":
        from socratic_mlflow.score_command import score

        return score(args.text, args.file, args.profile, args.json)
    given = {option.key: value for option in options() if (value := getattr(args, option.key, None)) is not None}
    if args.command == "evaluate":
        from socratic_mlflow.evaluate_command import evaluate

        return evaluate(args.model, args.against, given)
    if args.command == "sync":
        from socratic_mlflow.sync_command import sync

        return sync(args.output_dir, args.new_run)
    if args.command == "train":
        from socratic_mlflow.commands import train

        return train(given, args.config)
    from socratic_mlflow.commands import check_data

    return check_data(args.file, given, args.config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (SystemExit with code 2 for wrong usage)."""
    args, unknown = build_parser().parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    if unknown:
        # A misspelt field is named before its value, which is then left over as well.
        _refuse(args.command, next((token for token in unknown if token.startswith("--")), unknown[0]))
    try:
        return _run(args)
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("socratic-mlflow: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from socratic_mlflow.failures import report

        print(f"socratic-mlflow: {report(error)}", file=sys.stderr, flush=True)
        return 1
