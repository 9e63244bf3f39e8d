"""README.md and docs/*.md: each command that they show is one that the program takes, or shows the refusal that it gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_lines import PROGRAM, SWEEPS_OWN, mentioned, shown, words

from socratic_mlflow import cli
from socratic_mlflow.cli_fields import given_fields
from socratic_mlflow.options import build_config, by_name

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_COMMANDS = {"README", "commands", "compare", "models", "processes", "search", "serving", "talk", "tour"}
# TAB is pressed there.
UNFINISHED = "⇥"


def own(document: Path) -> list[tuple[list[str], str]]:
    """(what the program is given, the line below) of each command line in a block."""
    lines = [line for line in shown(document) if re.search(rf"(^|[|] *){PROGRAM} ", line.command)]
    return [(words(line.command), line.output) for line in lines if UNFINISHED not in line.command]


def is_taken(given: list[str]) -> bool:
    try:
        args, unknown = cli.build_parser().parse_known_args(cli._joined(given))
        build_config(given_fields(args) | {"preset": "embedded"})
    except (SystemExit, ValueError):
        return False
    return not unknown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_is_taken_or_refused_with_the_line_below_it(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = own(document)
    assert lines or document.stem not in WITH_COMMANDS
    for given, output in lines:
        if not is_taken(given):
            capsys.readouterr()
            # It ends before it does anything.
            with pytest.raises(SystemExit):
                cli.main(given)
            assert capsys.readouterr().err.strip() == output, given


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_that_a_sentence_names_exists(document: Path) -> None:
    commands = cli.with_commands()[1]
    for text in mentioned(document):
        if text.startswith(f"{PROGRAM} ") and not text.startswith((f"{PROGRAM} COMMAND", f"{PROGRAM} --")):
            name, *options = words(text)
            # A sentence may name a command or an option alone, without what they take.
            alone = len(options) == 1 and options[0] in commands[name]._option_string_actions
            assert not options or alone or is_taken([name, *options]), text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_parameter_of_mlflow_run_exists(document: Path) -> None:
    for line in [*mentioned(document), *(line.command for line in shown(document))]:
        if "mlflow run " in line:
            given = set(re.findall(r"-P (\w[\w.]*)=", line))
            assert given <= by_name().keys() | (SWEEPS_OWN if "-e sweep" in line else set()), line


DOCUMENT = """
```console
$ socratic-mlflow promote 1 --froce     # a remark
socratic-mlflow: error: refused
$ printf 'a\\n' | socratic-mlflow chat --sed 1
socratic-mlflow promote of the output
```

```bash
export A=b
socratic-mlflow train --epohcs 3 \\
  --preset embedded > out
```

    socratic-mlflow export x --two merged

- `mlflow run . -P
  lora_rank=1` and `socratic-mlflow models --jsn`
"""


def test_commands_are_found_in_all_the_places_where_documents_show_them(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    assert own(document) == [
        (["promote", "1", "--froce"], "socratic-mlflow: error: refused"),
        (["chat", "--sed", "1"], "socratic-mlflow promote of the output"),
        (["train", "--epohcs", "3", "--preset", "embedded"], ""),
        (["export", "x", "--two", "merged"], ""),
    ]
    assert not any(is_taken(given) for given, _ in own(document))
    assert mentioned(document) == ["mlflow run . -P lora_rank=1", "socratic-mlflow models --jsn"]
    for test in (test_every_command_that_a_sentence_names_exists, test_every_parameter_of_mlflow_run_exists):
        with pytest.raises(AssertionError):
            test(document)
