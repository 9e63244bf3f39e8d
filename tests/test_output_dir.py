"""What an output folder means for a new start: begin, go on, or stop with one line that says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from output_dirs import CONFIG, DIGESTS, STORE, begun_output, changed, checkpoint, contents, new_output, refusal  # noqa: F401

from socratic_mlflow.identity import identity
from socratic_mlflow.lock import hold
from socratic_mlflow.options import build_config
from socratic_mlflow.output_dir import OutputDir, locate


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
    assert begun.state() == {"run_id": "abc", "tracking_uri": STORE, "model": "models:/socratic-gemma/1", **DIGESTS}
    assert sorted(path.name for path in begun.folder.iterdir()) == ["config.yaml", "run.yaml"]
    assert build_config({}, str(begun.folder / "config.yaml")) == CONFIG


def test_a_run_id_of_digits_stays_text(output: OutputDir) -> None:
    output.record(CONFIG, run_id="0123", tracking_uri="1e5")
    assert output.state() == {"run_id": "0123", "tracking_uri": "1e5"}


def test_the_newest_checkpoint_has_the_highest_step_and_is_whole(begun: OutputDir) -> None:
    checkpoint(begun, "checkpoint-9")
    newest = checkpoint(begun, "checkpoint-100")
    half = checkpoint(begun, "checkpoint-120", complete=False)
    other = checkpoint(begun, "checkpoint-140", config=changed(lora__r=8))
    checkpoint(begun, "checkpoint-last")
    checkpoint(begun, "tmp-checkpoint-500")
    assert begun.newest_checkpoint() == str(newest)
    assert begun.resume_point(identity(CONFIG, DIGESTS)) == (
        newest,
        [(other, "of another configuration"), (half, "half-written: it has no manifest.json")],
    )


def test_the_identity_is_the_same_from_the_digests_and_from_what_run_yaml_holds(begun: OutputDir) -> None:
    begun.record(CONFIG, model="models:/socratic-gemma/1")
    assert identity(CONFIG, begun.state()) == identity(CONFIG, DIGESTS)
    assert identity(CONFIG, {"data_digest": "f" * 64}) != identity(CONFIG, DIGESTS)


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_the_same_configuration_goes_on(begun: OutputDir, resume: str) -> None:
    checkpoint(begun, "checkpoint-40")
    begun.check(changed(run__resume=resume), STORE, DIGESTS)


def test_a_training_without_a_checkpoint_goes_on_from_the_start(begun: OutputDir) -> None:
    begun.check(CONFIG, STORE, DIGESTS)


def test_resume_must_needs_a_whole_checkpoint_and_says_what_is_wrong_with_those_there(begun: OutputDir) -> None:
    must = changed(run__resume="must")
    assert refusal(begun, must) == f"resume=must, but {begun.folder} holds no checkpoint"
    checkpoint(begun, "checkpoint-40", complete=False)
    (checkpoint(begun, "checkpoint-20") / "trainer_state.json").unlink()
    assert refusal(begun, must) == (
        f"resume=must, but {begun.folder} holds no whole checkpoint (checkpoint-40 is half-written: it has no "
        "manifest.json; checkpoint-20 is damaged: trainer_state.json is missing)"
    )


def test_resume_must_refuses_a_new_folder(output: OutputDir) -> None:
    assert refusal(output, changed(run__resume="must")) == f"resume=must, but {output.folder} holds no checkpoint"
    assert not output.folder.exists()


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
def test_resume_never_refuses_a_training_or_checkpoints_and_touches_nothing(
    begun: OutputDir, recorded: bool, complete: bool
) -> None:
    checkpoint(begun, "checkpoint-40", complete=complete)
    if not recorded:
        (begun.folder / "run.yaml").unlink()
    before = contents(begun.folder)
    assert "already holds a training; choose another output_dir" in refusal(begun, changed(run__resume="never"))
    assert contents(begun.folder) == before


def test_resume_never_begins_in_a_new_folder(output: OutputDir) -> None:
    output.check(changed(run__resume="never"), STORE, DIGESTS)


def test_checkpoints_whose_record_is_gone_are_not_trained_over(begun: OutputDir) -> None:
    checkpoint(begun, "checkpoint-40")
    (begun.folder / "run.yaml").unlink()
    assert "exists and holds no training" in refusal(begun)


def test_what_a_start_killed_at_once_leaves_does_not_stop_the_next(begun: OutputDir) -> None:
    (begun.folder / "run.yaml").rename(begun.folder / ".run.yaml.new")
    (begun.folder / ".config.yaml.new").write_text("run:", encoding="utf-8")
    with hold(begun.folder):
        begun.check(CONFIG, STORE, DIGESTS)
    # Nobody's file is overwritten, even where it has the name of one of ours.
    assert "exists and holds no training" in refusal(begun, changed(training__seed=7))


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


def test_a_folder_without_permission_is_refused(output: OutputDir) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every folder")
    output.folder.mkdir(parents=True)
    output.folder.chmod(0o300)
    assert "exists and holds no training" in refusal(output)


def test_a_name_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(OutputDir(tmp_path / ("a" * 300))).endswith("File name too long")


def test_auto_finds_the_same_folder_again() -> None:
    first, again = locate(CONFIG, STORE, DIGESTS), locate(build_config({"preset": "embedded"}), STORE, DIGESTS)
    assert first == again
    assert first.folder.parent == Path("outputs")
    assert first.folder.name.startswith("embedded-")
    assert locate(changed(run__resume="must", registry__promote="never"), STORE, DIGESTS) == first


def test_auto_keeps_different_trainings_apart() -> None:
    others = [
        (changed(training__seed=7), STORE),
        (changed(training__epochs=7), STORE),
        (changed(training__eval_steps=7), STORE),
        (changed(data__path="other.json"), STORE),
        (changed(registry__registered_model_name="another"), STORE),
        (CONFIG, "sqlite:///other.db"),
    ]
    folders = {locate(config, store, DIGESTS).folder for config, store in [(CONFIG, STORE), *others]}
    assert len(folders | {locate(CONFIG, STORE, {"data_digest": "f" * 64}).folder}) == 8


def test_a_named_folder_is_taken_as_it_is() -> None:
    assert locate(changed(run__output_dir="here/out"), STORE, DIGESTS) == OutputDir(Path("here/out"))
