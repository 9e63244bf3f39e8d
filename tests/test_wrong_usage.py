"""Every command, used wrongly in several ways: exit code 2, one line that says what is wrong, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from socratic_mlflow.cli import main, with_commands

COMMANDS = tuple(with_commands()[1])
MODEL = "models:/a/1"

WRONG: dict[str, list[tuple[list[str], str]]] = {
    "train": [
        (["--epohcs", "3"], "unknown field 'epohcs'; did you mean epochs?"),
        (["--confg", "my.yaml"], "unknown option '--confg'; did you mean --config?"),
        (["--epochs"], "expected one argument"),
        (["--epochs", "0", "--preset", "embedded"], "training.epochs is 0; allowed: at least 1"),
        (["my_dialogues.jsonl"], "unexpected argument 'my_dialogues.jsonl'"),
    ],
    "check-data": [
        ([], "the following arguments are required: FILE"),
        (["a.jsonl", "b.jsonl"], "unexpected argument 'b.jsonl'"),
        (["a.jsonl", "--max_lenght", "64"], "unknown field 'max_lenght'; did you mean max_length?"),
        (["nowhere.jsonl", "--preset", "embedded"], "nowhere.jsonl: no such file"),
    ],
    "sweep": [
        (["--n_trials", "0"], "n_trials is '0'; it takes a whole number from 1"),
        (["--n_trails", "3"], "unknown option '--n_trails'; did you mean --n_trials?"),
        (["--space", "nowhere.yaml", "--preset", "embedded"], "nowhere.yaml"),
        (["my_space.yaml"], "unexpected argument 'my_space.yaml'"),
    ],
    "score": [
        (["a", "b"], "unexpected argument 'b'; put a TEXT with spaces in quotes"),
        (["-x"], "unexpected argument '-x'; a TEXT that begins with a dash goes behind --"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
        (["a", "--file", "b.txt"], "not allowed with argument"),
        (["a", "--profile", "nowhere"], "nowhere"),
        (["a", "--epochs", "3"], "unknown option '--epochs'; a TEXT like that goes behind --"),
    ],
    "evaluate": [
        ([], "the following arguments are required: MODEL"),
        (["base", "--epochs", "3"], "epochs is a field of trainings; evaluate does not take it"),
        (["base", "--agianst", MODEL], "unknown option '--agianst'; did you mean --against?"),
        (["base", "surplus"], "unexpected argument 'surplus'"),
    ],
    "chat": [
        (["--temperature", "3"], "it takes a number from 0 to 2"),
        (["--seed", "many"], "it takes a whole number from 0"),
        (["--learning_rate", "1"], "learning_rate is a field of trainings; chat does not take it"),
        (["base", "surplus"], "unexpected argument 'surplus'"),
    ],
    "serve": [
        ([], "the following arguments are required: MODEL"),
        ([MODEL, "--port", "http"], "argument --port: it is 'http'; it takes a whole number from 0 to 65535"),
        ([MODEL, "--prot", "80"], "unknown option '--prot'; did you mean --port?"),
        ([MODEL, "--seed", "1"], "seed is a field of trainings; serve does not take it"),
    ],
    "export": [
        ([], "the following arguments are required: MODEL, --output_dir"),
        ([MODEL], "the following arguments are required: --output_dir"),
        ([MODEL, "--to", "gguf", "--output_dir", "x"], "invalid choice: 'gguf'"),
        ([MODEL, "--output", "x", "--output_dir", "x"], "unknown option '--output'; did you mean --output_dir?"),
    ],
    "models": [
        (["a", "b"], "unexpected argument 'b'"),
        (["--jsn"], "unknown option '--jsn'; did you mean --json?"),
        (["--zzz"], "unknown option '--zzz'; 'socratic-mlflow models --help' lists what there is"),
    ],
    "promote": [
        ([], "the following arguments are required: VERSION"),
        (["1", "--stage", "Best"], "invalid choice: 'Best'"),
        (["1", "--froce"], "unknown option '--froce'; did you mean --force?"),
        (["one"], "VERSION is 'one'; it takes a number"),
    ],
    "rollback": [
        (["1"], "unexpected argument '1'"),
        (["--name"], "expected one argument"),
        (["--force"], "unknown option '--force'"),
    ],
    "compare": [
        (["--last", "0"], "it takes a whole number from 1 to 100"),
        (["--last", "many"], "it takes a whole number from 1 to 100"),
        (["--htlm", "a.html"], "unknown option '--htlm'; did you mean --html?"),
    ],
    "sync": [
        (["a", "b"], "unexpected argument 'b'"),
        (["nowhere"], "nowhere: holds no journal"),
        (["--newrun"], "unknown option '--newrun'; did you mean --new-run?"),
    ],
    "completion": [
        ([], "the following arguments are required: SHELL"),
        (["csh"], "invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')"),
        (["bash", "zsh"], "unexpected argument 'zsh'"),
    ],
}
WITHOUT_COMMAND = [
    ([], "a command comes first, one of train, check-data, sweep,"),
    (["--epochs", "3"], "a command comes first, one of"),
    (["-x", "train"], "a command comes first, one of"),
    (["trian"], "unknown command 'trian'; did you mean train?"),
    (["zzz"], "unknown command 'zzz'; there are train, check-data, sweep,"),
]
CASES = [([command, *given], said) for command, cases in WRONG.items() for given, said in cases] + WITHOUT_COMMAND


def test_every_command_is_here_with_several_mistakes() -> None:
    assert tuple(WRONG) == COMMANDS
    assert all(len(cases) >= 3 for cases in WRONG.values())


@pytest.mark.parametrize(("given", "said"), CASES, ids=[" ".join(given) or "nothing" for given, _ in CASES])
def test_a_mistake_is_one_line_and_exit_code_2(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as caught:
        main(given)
    printed, errors = capfd.readouterr()
    assert (caught.value.code, printed) == (2, "")
    assert errors.startswith("socratic-mlflow: error: ")
    assert said in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_so_it_is_in_a_process_of_its_own(command: str, tmp_path: Path) -> None:
    given, said = WRONG[command][0]
    program = [sys.executable, "-m", "socratic_mlflow", command, *given]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
