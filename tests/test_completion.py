"""TAB in real shells: the script that `completion` prints, read by bash, zsh and fish, gives the words that fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from socratic_mlflow import completion_command
from socratic_mlflow.cli import main, with_commands
from socratic_mlflow.cli_completion import SHELLS
from socratic_mlflow.config import Config, flatten

COMMANDS = set(with_commands()[1])

# Prints what would be offered for the last word of the line.
BASH = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
compopt() { :; }
read -ra registered < <(complete -p socratic-mlflow)
"${registered[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'source $argv[1]; complete --do-complete (string join -- " " $argv[2..])'
# zsh completes in its line editor alone: one in a terminal of its own reads these lines, is given the line and a TAB,
# prints what is offered, and ends.
ZSH_INSIDE = """
fpath=($SCRIPT:h $fpath)
autoload -U compinit && compinit -u -d $SCRIPT:h/dump
bindkey '^I' complete-word
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits
    builtin compadd -A hits "$@"
    print -rl -- OFFERED:$^hits
    builtin compadd "$@"
}
comppostfuncs=(exit)
print READY
"""
ZSH = """
zmodload zsh/zpty
export SCRIPT=$1
zpty inside zsh -f -i
zpty -w inside "source $2"
zpty -r inside started '*READY*'
zpty -n -w inside "$3"$'\\t'
while zpty -r inside line; do
    [[ $line == *OFFERED:* ]] && print -r -- ${${line##*OFFERED:}%%[[:cntrl:]]*}
done
true
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{shell: its script}, as the command prints it."""
    folder, made = tmp_path_factory.mktemp("completion"), {}
    for shell in SHELLS:
        # Where zsh is told to look, the name matters.
        made[shell] = folder / ("_socratic-mlflow" if shell == "zsh" else shell)
        with pytest.MonkeyPatch.context() as patch, made[shell].open("w", encoding="utf-8") as out:
            patch.setattr(sys, "stdout", out)
            assert main(["completion", shell]) == 0
    return made


def offered(shell: str, script: Path, line: str, folder: Path) -> set[str]:
    """The words that TAB at the end of `line` offers in `folder`; skips the test where there is no such shell."""
    if not (program := shutil.which(shell)):
        pytest.skip(f"{shell} is not installed")
    words = line.split(" ")
    given = {"bash": ["-c", BASH, "-", script, *words], "fish": ["--no-config", "-c", FISH, script, *words]}
    inside = script.with_suffix(".inside")
    inside.write_text(ZSH_INSIDE, encoding="utf-8")
    given["zsh"] = ["-f", "-c", ZSH, "-", script, inside, line]
    done = subprocess.run([program, *given[shell]], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "", done.stderr
    return {word.split("\t")[0].rstrip("/") for word in done.stdout.splitlines() if word}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", COMMANDS),
        ("ro", {"rollback"}),
        ("s", {"sweep", "score", "serve", "sync"}),
        ("train --preset ", {"auto", "gemma-2-2b-jpn-it", "embedded"}),
        ("train --preset emb", {"embedded"}),
        ("train --epochs 3 --packing ", {"true", "false"}),
        ("train --learning_r", {"--learning_rate"}),
        ("train --regis", {"--registered_model_name", "--register"}),
        ("sweep --n_tr", {"--n_trials"}),
        ("promote 3 --stage P", {"Production"}),
        ("export models:/a/1 --to ", {"adapter", "merged"}),
        ("completion ", set(SHELLS)),
        ("train --data my", {"my_dialogues.jsonl", "my_folder"}),
        ("train --output_dir my", {"my_folder"}),
        ("train --config my_d", {"my_dialogues.jsonl"}),
        ("check-data my_d", {"my_dialogues.jsonl"}),
        ("sync my", {"my_folder"}),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_offers_what_fits(shell: str, line: str, words: set[str], scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "my_dialogues.jsonl").touch()
    (tmp_path / "my_folder").mkdir()
    assert offered(shell, scripts[shell], f"socratic-mlflow {line}", tmp_path) == words


def test_the_scripts_start_no_python(scripts: dict[str, Path]) -> None:
    for script in scripts.values():
        assert "python" not in script.read_text(encoding="utf-8").replace("zsh-users", "")


def test_every_path_is_a_field_or_an_argument_that_exists() -> None:
    arguments = {action.dest for command in with_commands()[1].values() for action in command._actions}
    assert {*completion_command.FILES, *completion_command.FOLDERS} <= arguments | flatten(Config()).keys()
