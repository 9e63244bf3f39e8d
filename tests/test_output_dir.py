"""What an output folder means for a new start: begin, go on, or stop with one line that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.options import build_config
from socratic_mlflow.output_dir import OutputDir, locate

STORE = "sqlite:///mlflow.db"
DIGESTS = {"data_digest": "0123abcd" * 8}
CONFIG = build_config({"preset": "embedded"})


def changed(**values: object) -> Config:
    """CONFIG with fields changed; two underscores stand for the dot."""
    return with_values(CONFIG, {key.replace("__", "."): value for key, value in values.items()})


def checkpoint(output: OutputDir, name: str, *, complete: bool = True) -> Path:
    folder = output.checkpoints / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").touch()
    if complete:
        (folder / "trainer_state.json").touch()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> OutputDir:
    """A folder that does not exist yet."""
    return OutputDir(tmp_path / "some" / "out")


@pytest.fixture
def begun(output: OutputDir) -> OutputDir:
    """A folder in which CONFIG has begun."""
    output.record(CONFIG, run_id="abc", tracking_uri=STORE)
    return output


def refusal(output: OutputDir, config: Config = CONFIG, store: str = STORE) -> str:
    with pytest.raises(ValueError) as caught:
        output.check(config, store, DIGESTS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_folder_holds_nothing_and_may_begin(output: OutputDir) -> None:
    output.check(CONFIG, STORE, DIGESTS)
    assert output.state() == {}
    assert output.newest_checkpoint() is None
    assert not output.folder.exists()


def test_an_empty_folder_may_begin(output: OutputDir) -> None:
    output.folder.mkdir(parents=True)
    output.check(CONFIG, STORE, DIGESTS)


def test_record_adds_to_what_is_there_and_leaves_no_other_file(begun: OutputDir) -> None:
    begun.record(CONFIG, model="models:/socratic-gemma/1")
    assert begun.state() == {"run_id": "abc", "tracking_uri": STORE, "model": "models:/socratic-gemma/1"}
    assert sorted(path.name for path in begun.folder.iterdir()) == ["config.yaml", "run.yaml"]
    assert build_config({}, str(begun.folder / "config.yaml")) == CONFIG


def test_a_run_id_of_digits_stays_text(output: OutputDir) -> None:
    output.record(CONFIG, run_id="0123", tracking_uri="1e5")
    assert output.state() == {"run_id": "0123", "tracking_uri": "1e5"}


def test_the_newest_checkpoint_has_the_highest_step_and_is_complete(output: OutputDir) -> None:
    checkpoint(output, "checkpoint-9")
    newest = checkpoint(output, "checkpoint-100")
    checkpoint(output, "checkpoint-120", complete=False)
    checkpoint(output, "checkpoint-last")
    checkpoint(output, "tmp-checkpoint-500")
    assert output.newest_checkpoint() == str(newest)


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_the_same_configuration_goes_on(begun: OutputDir, resume: str) -> None:
    checkpoint(begun, "checkpoint-40")
    begun.check(changed(run__resume=resume), STORE, DIGESTS)


def test_a_training_without_a_checkpoint_goes_on_from_the_start(begun: OutputDir) -> None:
    begun.check(CONFIG, STORE, DIGESTS)


@pytest.mark.parametrize(
    "config",
    [
        changed(run__output_dir="elsewhere"),
        changed(registry__promote="always"),
    ],
)
def test_what_does_not_change_the_training_may_change(begun: OutputDir, config: Config) -> None:
    begun.check(config, STORE, DIGESTS)


def test_resume_must_needs_a_complete_checkpoint(begun: OutputDir) -> None:
    checkpoint(begun, "checkpoint-40", complete=False)
    assert refusal(begun, changed(run__resume="must")) == f"resume=must, but {begun.folder} holds no checkpoint"


def test_resume_must_refuses_a_new_folder(output: OutputDir) -> None:
    assert refusal(output, changed(run__resume="must")) == f"resume=must, but {output.folder} holds no checkpoint"


def test_resume_never_refuses_a_training(begun: OutputDir) -> None:
    assert "already holds a training; choose another output_dir" in refusal(begun, changed(run__resume="never"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(training__learning_rate=0.5), "training.learning_rate 0.001, not 0.5"),
        (changed(training__seed=7), "training.seed 42, not 7"),
        (changed(data__path="other.json"), "data.path bundled, not other.json"),
        (changed(lora__r=8), "lora.r 16, not 8"),
    ],
)
def test_another_training_is_refused_with_the_field_that_differs(begun: OutputDir, config: Config, words: str) -> None:
    assert refusal(begun, config) == f"{begun.folder} holds a training with {words}; choose another output_dir"


def test_another_store_is_refused_with_both_names(begun: OutputDir) -> None:
    message = refusal(begun, store="http://localhost:5000")
    assert STORE in message
    assert "http://localhost:5000" in message
    assert "MLFLOW_TRACKING_URI" in message


def test_a_folder_of_something_else_is_not_touched(output: OutputDir) -> None:
    output.folder.mkdir(parents=True)
    (output.folder / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "exists and holds no training; choose an empty or a new folder" in refusal(output)


@pytest.mark.parametrize("inside", [".", "out", "out/deeper"])
def test_a_place_that_can_be_no_folder_is_refused(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is no folder that can be written to" in refusal(OutputDir(file / inside))


def test_a_file_that_was_edited_is_other_data(begun: OutputDir) -> None:
    begun.record(CONFIG, **DIGESTS)
    begun.check(CONFIG, STORE, DIGESTS)
    with pytest.raises(
        ValueError, match=r"^\S+ holds a training on other data \(data_digest 0123abcd0123, not ffffffffffff\)"
    ):
        begun.check(CONFIG, STORE, {"data_digest": "f" * 64})


def test_a_name_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(OutputDir(tmp_path / ("a" * 300))).endswith("File name too long")


@pytest.mark.parametrize("data", [b"run_id: [", b"\xff\xfe", b"run_id: 2026-13-45"])
def test_a_damaged_record_is_refused_with_its_name(begun: OutputDir, data: bytes) -> None:
    file = begun.folder / "run.yaml"
    file.write_bytes(data)
    assert refusal(begun) == f"{file}: cannot be read; choose another output_dir"


def test_auto_finds_the_same_folder_again() -> None:
    first, again = locate(CONFIG, STORE, DIGESTS), locate(build_config({"preset": "embedded"}), STORE, DIGESTS)
    assert first == again
    assert first.folder.parent == Path("outputs")
    assert first.folder.name.startswith("embedded-")
    assert locate(changed(run__resume="must", registry__promote="never"), STORE, DIGESTS) == first


def test_auto_keeps_different_trainings_apart() -> None:
    others = [
        (changed(training__seed=7), STORE),
        (changed(data__path="other.json"), STORE),
        (changed(registry__registered_model_name="another"), STORE),
        (CONFIG, "sqlite:///other.db"),
    ]
    folders = {locate(config, store, DIGESTS).folder for config, store in [(CONFIG, STORE), *others]}
    assert len(folders | {locate(CONFIG, STORE, {"data_digest": "f" * 64}).folder}) == 6


def test_a_named_folder_is_taken_as_it_is() -> None:
    assert locate(changed(run__output_dir="here/out"), STORE, DIGESTS) == OutputDir(Path("here/out"))
