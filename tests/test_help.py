"""`--help`: every command has examples that its parser takes, the program's own has one of each; docs list the same."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from command_lines import PROGRAM, SWEEPS_OWN, words

from socratic_mlflow.cli import _joined, build_parser, with_commands
from socratic_mlflow.cli_fields import given_fields
from socratic_mlflow.options import build_config, by_name

COMMANDS = tuple(with_commands()[1])


def help_of(command: str, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    parser, commands = with_commands()
    return (commands[command] if command else parser).format_help()


def columns(line: str) -> int:
    """How wide a terminal shows it."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def examples(command: str) -> list[str]:
    """The lines of its examples, without the remarks behind them."""
    parser, commands = with_commands()
    epilog = (commands[command] if command else parser).epilog or ""
    lines = epilog.removeprefix("examples:\n").partition("\n\n")[0].replace("\\\n", "").splitlines()
    return [re.split(r"\s{2,}", line.strip())[0] for line in lines]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_a_line_that_the_parser_takes(command: str) -> None:
    own = [line for line in examples(command) if PROGRAM in line]
    assert own, f"{command} --help has no examples"
    for line in own:
        args, unknown = build_parser().parse_known_args(_joined(words(line)))
        assert (args.command, unknown) == (command, []), line
        build_config(given_fields(args) | {"preset": "embedded"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_of_mlflow_run_gives_parameters_that_exist(command: str) -> None:
    for line in examples(command):
        if line.startswith("mlflow run"):
            given = dict(word.split("=", 1) for word in re.findall(r"-P (\S+)", line))
            assert given.keys() <= by_name().keys() | SWEEPS_OWN, line


def test_the_programs_help_has_one_example_of_each_command_in_order() -> None:
    shown = examples("")
    assert [words(line)[0] for line in shown] == list(COMMANDS)
    for line in shown:
        assert build_parser().parse_known_args(_joined(words(line)))[1] == [], line


def test_the_remarks_behind_its_examples_stand_in_one_column() -> None:
    lines = (build_parser().epilog or "").partition("\n\n")[0].splitlines()[1:]
    remarks = [found.end() for line in lines if (found := re.search(r"\S {2,}(?=\S)", line))]
    assert len(remarks) > 5
    assert len(set(remarks)) == 1


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_its_terminal(command: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(command, width, monkeypatch)
    parser, commands = with_commands()
    asked = commands[command] if command else parser
    verbatim = f"{asked.epilog}\n{asked.description}\nusage: {asked.usage}".splitlines()
    assert [line for line in verbatim if columns(line) > 120] == []
    # A field's two names stand in one line, whatever its width.
    names = re.compile(r"  -\S+( [\w.]+)?, --\S+ \w+")
    wrapped = [line for line in text.splitlines() if line not in verbatim and not names.fullmatch(line)]
    assert [line for line in wrapped if columns(line) > width] == []


def test_each_command_has_a_line_in_the_programs_help_and_the_same_in_the_docs(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of("", 80, monkeypatch).partition("commands:\n")[2].partition("\n\n")[0]
    listed = dict(re.findall(r"^  (\S+) +(\S.*)$", text, flags=re.MULTILINE))
    assert list(listed) == list(COMMANDS)
    docs = (repository / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[?`([a-z-]+)`\S* \| ([^|]+) \|", docs, flags=re.MULTILINE)
    assert dict(rows) == listed
    assert [name for name, _ in rows] == list(COMMANDS)


def test_exit_codes_are_told_in_help_and_docs(repository: Path) -> None:
    help_text = (build_parser().epilog or "").partition("exit codes:")[2]
    docs = (repository / "docs" / "commands.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    for code in (0, 1, 2, 130):
        assert re.search(rf"^ +{code}  \S", help_text, flags=re.MULTILINE), code
        assert re.search(rf"^\| {code} \|", docs, flags=re.MULTILINE), code
