"""The command line as real processes: a mistake is one line on stderr, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from socratic_mlflow import __version__
from socratic_mlflow.cli import build_parser, main
from socratic_mlflow.options import Option, options
from socratic_mlflow.presets import PRESETS

EMBEDDED = ("train", "--preset", "embedded")
GOOD = {"messages": [{"role": "user", "content": "徳とは？"}, {"role": "model", "content": "君はどう思うのかね？"}]}
EMPTY = {"messages": [{"role": "user", "content": "徳とは？"}, {"role": "model", "content": ""}]}

INPUTS = {
    "good.jsonl": json.dumps(GOOD).encode(),
    "broken.jsonl": json.dumps(GOOD).encode() + b'\n{"messages": [\n',
    "broken.json": b'[\n{"messages": []},\n',
    "broken.json.gz": gzip.compress(json.dumps([GOOD]).encode())[:-9],
    "sjis.json": json.dumps([GOOD], ensure_ascii=False).encode("shift_jis"),
    "utf16.json": json.dumps([GOOD]).encode("utf-16"),
    "unusable.jsonl": json.dumps(EMPTY).encode() + b"\n{}\n[]\n",
    "empty.json": b"",
    "wrong_field.yaml": b"training:\n  epohcs: 3\n",
    "wrong_value.yaml": b"preset: embedded\nepochs: 0\n",
    "broken.yaml": b"epochs: 3\n  seed: [\n",
    "folder/inside.json": json.dumps([GOOD]).encode(),
}

MISTAKES = [
    # usage
    ((), "a command comes first, one of train, check-data, sweep, "),
    (("trian",), "unknown command 'trian'; did you mean train?"),
    (("--epochs", "3"), "a command comes first, one of train, check-data, sweep, "),
    (("train", "extra"), "unexpected argument 'extra'"),
    (("train", "-e", "3"), "unexpected argument '-e'"),
    (("train", "--epochs"), "expected one argument"),
    (("train", "--epochs", "--seed", "3"), "expected one argument"),
    (("check-data",), "the following arguments are required: FILE"),
    (("sync", "a", "b"), "unexpected argument 'b'"),
    (("score", "a", "b"), "unexpected argument 'b'; put a TEXT with spaces in quotes"),
    (("score", "-x"), "unexpected argument '-x'; a TEXT that begins with a dash goes behind --"),
    (("score", "--file"), "expected one argument"),
    # wrong names
    (("score", "--profle", "gozaru"), "unknown option '--profle'; did you mean --profile?"),
    (("score", "a", "--epochs", "3"), "unknown option '--epochs'; a TEXT like that goes behind --"),
    (("train", "--epohcs", "3"), "unknown field 'epohcs'; did you mean epochs?"),
    (("train", "--epohcs=3"), "unknown field 'epohcs'; did you mean epochs?"),
    (("train", "--learning-rate", "1e-3"), "unknown field 'learning-rate'; did you mean learning_rate?"),
    (("train", "--training.epoch", "3"), "unknown field 'training.epoch'; did you mean training.epochs?"),
    (("train", "--epoch", "3"), "unknown field 'epoch'; did you mean epochs?"),
    (("check-data", "good.jsonl", "--max_lenght", "64"), "did you mean max_length?"),
    # wrong values
    ((*EMBEDDED, "--epochs", "many"), "epochs (training.epochs) is 'many'; it takes a whole number (at least 1"),
    ((*EMBEDDED, "--epochs", "2.5"), "epochs (training.epochs) is '2.5'; it takes a whole number"),
    ((*EMBEDDED, "--epochs", "0"), "training.epochs is 0; allowed: at least 1"),
    ((*EMBEDDED, "--epochs", "-3"), "training.epochs is -3; allowed: at least 1"),
    ((*EMBEDDED, "--learning_rate", "-1e-3"), "training.learning_rate is -0.001; allowed: above 0 and at most 1"),
    ((*EMBEDDED, "--training.learning_rate", "-.5"), "training.learning_rate is -0.5; allowed: above 0 and at most 1"),
    ((*EMBEDDED, "--learning_rate=-1e-3"), "training.learning_rate is -0.001"),
    ((*EMBEDDED, "--learning_rate", "nan"), "training.learning_rate is nan; allowed: above 0 and at most 1"),
    ((*EMBEDDED, "--learning_rate", ""), "learning_rate (training.learning_rate) is ''; it takes a number"),
    ((*EMBEDDED, "--load_in_4bit", "maybe"), "it takes true or false"),
    ((*EMBEDDED, "--base_model", " "), "base_model (model.base_model) is ' '; it takes text that is not empty"),
    (("train", "--preset", "embeded"), "run.preset is 'embeded'; allowed: one of auto, gemma-2-2b-jpn-it, embedded"),
    # YAML
    ((*EMBEDDED, "--config", "nowhere.yaml"), "nowhere.yaml: cannot read the configuration file"),
    ((*EMBEDDED, "--config", "folder"), "folder: cannot read the configuration file"),
    ((*EMBEDDED, "--config", "wrong_field.yaml"), "wrong_field.yaml:2: unknown field 'training.epohcs'"),
    ((*EMBEDDED, "--config", "wrong_value.yaml"), "wrong_value.yaml:2: training.epochs is 0"),
    ((*EMBEDDED, "--config", "broken.yaml"), "broken.yaml:2: not valid YAML"),
    # data; 'default' for another field is what MLproject passes and must not be in the way
    ((*EMBEDDED, "--epochs", "default", "--data", "nowhere.json"), "nowhere.json: no such file"),
    ((*EMBEDDED, "--data", "folder"), "folder: not a regular file"),
    ((*EMBEDDED, "--data", "broken.jsonl"), "broken.jsonl:2: malformed JSON"),
    ((*EMBEDDED, "--data", "broken.json"), "broken.json:3: malformed JSON"),
    ((*EMBEDDED, "--data", "broken.json.gz"), "broken.json.gz: cannot be read"),
    ((*EMBEDDED, "--data", "sjis.json"), "sjis.json:1: not UTF-8 text"),
    ((*EMBEDDED, "--data", "utf16.json"), "utf16.json:1: not UTF-8 text"),
    ((*EMBEDDED, "--data", "empty.json"), "empty.json: no usable dialogue (the file is empty)"),
    ((*EMBEDDED, "--data", "unusable.jsonl"), "unusable.jsonl: no usable dialogue (2 no_messages, 1 empty_content)"),
    ((*EMBEDDED, "--output_dir", "good.jsonl/out"), "output_dir good.jsonl/out: good.jsonl is no folder"),
    (("check-data", "nowhere.json", "--preset", "embedded"), "nowhere.json: no such file"),
    (("check-data", "broken.jsonl", "--preset", "embedded"), "broken.jsonl:2: malformed JSON"),
    # journals
    (("sync",), "outputs: holds no journal; give the output_dir of a training"),
    (("sync", "nowhere"), "nowhere: holds no journal; give the output_dir of a training"),
    (("sync", "folder"), "folder: holds no journal"),
    (("sync", "good.jsonl"), "good.jsonl: holds no journal"),
    # registry and runs
    (
        ("models",),
        "mlflow.db; run this where you trained, or set MLFLOW_TRACKING_URI",
    ),
    (("promote",), "the following arguments are required: VERSION"),
    (("promote", "one"), "VERSION is 'one'; it takes a number"),
    (("promote", "1", "--stage", "Best"), "invalid choice: 'Best'"),
    (("rollback", "1"), "unexpected argument '1'"),
    (("compare", "--last", "0"), "it takes a whole number from 1 to 100"),
    (("compare", "--html", "good.jsonl"), "good.jsonl is there already and is not written over"),
]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m socratic_mlflow` in `folder`, with no MLflow settings but the defaults."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "socratic_mlflow", *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with nothing in it but INPUTS."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, data in INPUTS.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_check_data_lists_each_dialogue_of_a_file_of_which_none_is_usable(workplace: Path) -> None:
    done = run(workplace, "check-data", "unusable.jsonl", "--preset", "embedded")
    assert done.returncode == 2
    places = [line.split(": ")[1:3] for line in done.stdout.splitlines()]
    assert places == [["line 1", "empty_content"], ["line 2", "no_messages"], ["line 3", "no_messages"]]
    assert done.stderr == "socratic-mlflow: error: unusable.jsonl: no usable dialogue (2 no_messages, 1 empty_content)\n"


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(case[0]) or "nothing" for case in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(workplace: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(workplace, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("socratic-mlflow: error: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    # No mlflow.db, no mlruns, no outputs.
    assert files_in(workplace) == set(INPUTS)
    assert {path.name for path in workplace.iterdir()} == {name.partition("/")[0] for name in INPUTS}


@pytest.mark.parametrize("command", ["train", "check-data"])
def test_help_shows_every_flag_under_both_names(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    shown = set(done.stdout.replace(",", " ").split())
    assert {f"--{name}" for option in options() for name in (option.flag, option.key)} | {"--config"} <= shown


def test_help_says_each_fields_range_default_and_what_a_preset_makes_of_it(tmp_path: Path) -> None:
    text = " ".join(run(tmp_path, "train", "--help").stdout.split())
    assert "peak learning rate (above 0 and at most 1) [8e-05; embedded: 0.001]" in text
    for option in options():
        changed = [f"; {name}: {values[option.key]}" for name, values in PRESETS.items() if option.key in values]
        assert f"[{option.spec.default}{''.join(changed)}]" in text


def test_help_and_version_of_the_program_itself(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n  check-data  list every dialogue of a file that would not be used, and why\n" in done.stdout
    assert "\nexit codes:\n" in done.stdout
    assert "  socratic-mlflow score --file bundled " in run(tmp_path, "score", "--help").stdout
    assert run(tmp_path, "--version").stdout.strip() == __version__


def test_check_data_lists_each_unused_dialogue_with_place_and_reason(tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "徳とは？"}, {"role": "model", "content": "君はどう思うのか" * 40}]}
    rows = [GOOD, EMPTY, long, GOOD]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run(tmp_path, "check-data", "some.jsonl", "--preset", "embedded", "--max_length", "64")
    assert (done.returncode, done.stderr) == (0, "")
    *listed, last = done.stdout.splitlines()
    assert sorted(line.split(": ")[:3] for line in listed) == [
        ["some.jsonl", "line 2", "empty_content"],
        ["some.jsonl", "line 3", "too_long"],
        ["some.jsonl", "line 4", "duplicate"],
    ]
    assert last.startswith("some.jsonl: 1 dialogues usable, 3 not (")
    assert files_in(tmp_path) == {"some.jsonl"}


@pytest.mark.parametrize("option", options(), ids=lambda option: option.key)
def test_both_names_of_a_field_are_one_flag(option: Option) -> None:
    parser = build_parser()
    for name in (option.flag, option.key):
        parsed = vars(parser.parse_args(["train", f"--{name}", "x"]))
        given = {key: value for key, value in parsed.items() if value is not None and key not in ("command", "run")}
        assert given == {option.key: "x"}


def test_the_console_script_is_the_same_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--epohcs", "3"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "socratic-mlflow: error: unknown field 'epohcs'; did you mean epochs?\n"
