"""`--config runs:/RUN_ID/config.yaml`: a run repeated, on CPU bit for bit; and what keeps it from being repeated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import stores
import torch
import training
from mlflow import MlflowClient
from training import Training

from socratic_mlflow.config import flatten
from socratic_mlflow.options import build_config, read_yaml
from socratic_mlflow.run_config import fetch, rerun_folder


def address(trained: Training) -> str:
    return f"runs:/{trained.run.info.run_id}/config.yaml"


@pytest.fixture(autouse=True)
def nothing_fetched_before() -> None:
    """Each test asks its own store."""
    fetch.cache_clear()


def refusal(folder: Path, given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends that cannot begin."""
    with pytest.raises(SystemExit) as caught:
        training.command(folder, given)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("socratic-mlflow: error: ")
    assert error.count("\n") == 1, error
    return error


def test_a_rerun_trains_anew_and_ends_with_the_same_adapter_bit_for_bit(trained: Training, tmp_path: Path) -> None:
    given = ["train", "--config", address(trained), "--registered_model_name", "again"]
    code, printed = training.command(tmp_path, given)
    assert code == 0, printed
    (output,) = (tmp_path / "outputs").iterdir()
    assert output.name.startswith("embedded-rerun-")
    for name in (f"checkpoints/checkpoint-{training.MAX_STEPS}", "best_adapter"):
        file = f"{name}/adapter_model.safetensors"
        assert (output / file).read_bytes() == (trained.output / file).read_bytes(), name
    (version,) = MlflowClient().search_model_versions("name='again'")
    assert version.run_id != trained.run.info.run_id
    assert stores.steps(version.run_id, "train/loss") == list(range(1, training.MAX_STEPS + 1))
    # The same command once more finds what it has done; another seed is another training.
    assert "has finished already: models:/again/1" in training.command(tmp_path, given)[1]
    assert build_config({"seed": "7"}, address(trained)).run.output_dir != f"outputs/{output.name}"


def test_a_rerun_takes_over_all_that_decides_the_result_and_no_place(trained: Training) -> None:
    ran = build_config({}, str(trained.output / "config.yaml"))
    again = build_config({}, address(trained))
    differing = {key: value for key, value in flatten(again).items() if value != flatten(ran)[key]}
    assert differing == {"run.output_dir": rerun_folder(again, address(trained))}


def test_flags_take_precedence_over_a_run(trained: Training) -> None:
    config = build_config({"learning_rate": "0.5", "output_dir": "mine"}, address(trained))
    assert (config.training.learning_rate, config.run.output_dir) == (0.5, "mine")


def test_an_output_dir_that_holds_the_finished_training_is_not_trained_in_again(trained: Training) -> None:
    given = ["train", "--config", address(trained), "--output_dir", "out"]
    code, printed = training.command(trained.folder, given)
    assert code == 0
    assert "This training has finished already" in printed


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("runs:/0123456789abcdef/config.yaml", "has no run 0123456789abcdef; check the id and MLFLOW_TRACKING_URI"),
        ("runs:/RUN/other.yaml", "has no artifact other.yaml; trainings of this project have config.yaml"),
        ("runs:/RUN", "names no configuration of a run; it is runs:/RUN_ID/config.yaml"),
        ("runs:/RUN/../../secret.yaml", "names no configuration of a run"),
        ("runs:/RUN/before_and_after.json", "names no configuration of a run"),
        ("runs:/RUN/style_profile.yaml", "unknown field"),
    ],
)
def test_what_is_no_configuration_of_a_run_is_one_line(
    trained: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str], uri: str, words: str
) -> None:
    uri = uri.replace("RUN", trained.run.info.run_id)
    assert words in refusal(tmp_path, ["train", "--config", uri], capsys)


def test_a_server_that_is_away_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stores.used("http://127.0.0.1:9"):
        error = refusal(tmp_path, ["train", "--config", "runs:/0123456789abcdef/config.yaml"], capsys)
    assert "MLflow at http://127.0.0.1:9 cannot be reached: connection refused" in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  epochs: 0\n", "config.yaml:2: training.epochs is 0"),
        ("a: &a [1]\nb: *a\n", "config.yaml:1: "),
        ("epochs: !!python/object/apply:os.system ['touch pwned']\n", "config.yaml:1: "),
        ("# long\n" * 60_000, "it is larger than 256 KiB"),
        ("\x00", "config.yaml"),
    ],
)
def test_a_runs_artifact_is_data_from_elsewhere(
    sqlite_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    MlflowClient().log_text(run_id, text, "config.yaml")
    assert words in refusal(tmp_path, ["train", "--config", f"runs:/{run_id}/config.yaml"], capsys)
    assert not (tmp_path / "pwned").exists()


def test_a_run_switches_on_no_code_and_leaves_registering_to_the_person(sqlite_store: str) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    text = "preset: embedded\nresume: must\ntrust_remote_code: true\nregister: false\nseed: 3\n"
    MlflowClient().log_text(run_id, text, "config.yaml")
    assert read_yaml(f"runs:/{run_id}/config.yaml") == {"run.preset": "embedded", "training.seed": 3}


def with_changed_file(trained: Training, folder: Path, name: str, key: str) -> tuple[str, Path]:
    """The address of a run like `trained` in the store in use, and the file that it read as `key`, which has changed."""
    config = (trained.output / "config.yaml").read_text(encoding="utf-8")
    before = Path(str(flatten(build_config({}, str(trained.output / "config.yaml")))[key]))
    copy = Path(shutil.copy(before, folder / name))
    run_id = MlflowClient().create_run("0").info.run_id
    for param, value in trained.run.data.params.items():
        MlflowClient().log_param(run_id, param, value)
    MlflowClient().log_text(run_id, config.replace(str(before), str(copy)), "config.yaml")
    uri = f"runs:/{run_id}/config.yaml"
    assert flatten(build_config({}, uri))[key] == str(copy)
    lines = copy.read_text(encoding="utf-8").splitlines()
    copy.write_text("\n".join(lines[1:]), encoding="utf-8")
    return uri, copy


@pytest.mark.parametrize(
    ("name", "key", "flag"),
    [("dialogues.jsonl", "data.path", "data"), ("questions.txt", "evaluation.questions", "questions")],
)
def test_a_file_that_has_changed_since_is_named_unless_it_is_given_anew(
    sqlite_store: str, trained: Training, tmp_path: Path, name: str, key: str, flag: str
) -> None:
    uri, copy = with_changed_file(trained, tmp_path, name, key)
    with pytest.raises(ValueError, match=rf"{name} is not what that run read \(digest \w+, now \w+\)") as caught:
        build_config({}, uri)
    assert f"give --{flag} to train on what you name" in str(caught.value)
    assert flatten(build_config({flag: str(copy)}, uri))[key] == str(copy)


def test_with_another_number_of_questions_other_data_is_still_refused(
    sqlite_store: str, trained: Training, tmp_path: Path
) -> None:
    uri, _ = with_changed_file(trained, tmp_path, "dialogues.jsonl", "data.path")
    with pytest.raises(ValueError, match=r"dialogues\.jsonl is not what that run read"):
        build_config({"max_samples": "2"}, uri)
    with stores.used(trained.store):
        assert build_config({"max_samples": "2"}, address(trained)).evaluation.max_samples == 2


def test_other_versions_of_libraries_are_said(sqlite_store: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    MlflowClient().log_param(run_id, "environment.torch", "1.0")
    MlflowClient().log_text(run_id, "preset: embedded\n", "config.yaml")
    build_config({}, f"runs:/{run_id}/config.yaml")
    assert "was made with other versions, so the result may differ: torch 1.0 -> " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        ({}, {}, ""),
        ({"num_processes": "2"}, {}, "num_processes 1 -> 2"),
        ({}, {"WORLD_SIZE": "4", "RANK": "0"}, "num_processes 1 -> 4"),
    ],
)
def test_other_processes_are_said(
    trained: Training,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    environment: dict[str, str],
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    build_config(given, address(trained))
    note = f"note   {address(trained)} was made in another way, so the result may differ: {words}\n"
    assert capsys.readouterr().out == (note if words else "")


def test_another_number_of_threads_is_said(trained: Training, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 2)
        build_config({}, address(trained))
    finally:
        torch.set_num_threads(before)
    assert f"device CPU ({before} threads) -> CPU ({before + 2} threads)" in capsys.readouterr().out
