"""A training that was interrupted, and the same command again: one run in MLflow, every point once, the same adapter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stores
import training
from mlflow import MlflowClient
from safetensors.torch import load_file

from socratic_mlflow import publishing
from socratic_mlflow.callback import SocraticMlflowCallback

EVERY_STEP = list(range(1, training.MAX_STEPS + 1))


def interrupt(monkeypatch, step, action):
    """Let `action` happen once `step` is logged."""
    log = SocraticMlflowCallback.on_log

    def on_log(self, args, state, control, logs=None, **kwargs):
        log(self, args, state, control, logs=logs, **kwargs)
        if "loss" in logs and state.global_step == step:
            action()

    monkeypatch.setattr(SocraticMlflowCallback, "on_log", on_log)


def fail():
    raise RuntimeError("no space left on device")


def check_whole(run, output):
    """Everything is in `run` once, as if nothing had happened."""
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert stores.logged_twice(run_id) == []
    assert stores.steps(run_id, "train/loss") == EVERY_STEP
    assert stores.steps(run_id, "eval/socratic_style") == training.EVALUATED
    assert stores.steps(run_id, "summary/total_steps") == [training.MAX_STEPS]
    for step in training.EVALUATED:
        assert len(stores.table(run_id, f"samples/step_{step:06d}.json")) == 4
    assert len(stores.table(run_id, "before_and_after.json")) == 4
    assert len(stores.table(run_id, "data_not_used.json")) == 3
    names = sorted(each.dataset.name for each in run.inputs.dataset_inputs)
    assert names == ["dialogues_held_out", "dialogues_train", "questions"]
    versions = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert [version.run_id for version in versions] == [run_id]
    assert not [path.name for path in (output / "checkpoints").iterdir() if path.name == "checkpoint-8"]


def check_same_adapters(output, other):
    """Bit for bit, the last checkpoint's and the best."""
    for file in (f"checkpoints/checkpoint-{training.MAX_STEPS}", "best_adapter"):
        one, two = (load_file(folder / file / "adapter_model.safetensors") for folder in (output, other))
        assert set(one) == set(two)
        assert [name for name in one if not one[name].equal(two[name])] == []


@pytest.mark.parametrize("step", [1, 5, 7], ids=["before any checkpoint", "between two", "at the last step"])
def test_after_an_error_the_same_command_goes_on_in_the_same_run(
    sqlite_store, tmp_path, training_inputs, finished_training, monkeypatch, capsys, step
):
    given = training.arguments(training_inputs)
    with monkeypatch.context() as patch:
        interrupt(patch, step, fail)
        assert training.command(tmp_path, given)[0] == 1
    assert capsys.readouterr().err.startswith("socratic-mlflow: error: the disk is full (no space left on device). ")
    failed = stores.only_run()
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"] == "RuntimeError: no space left on device"
    assert stores.artifact_text(failed.info.run_id, "error.txt").endswith("RuntimeError: no space left on device")
    code, printed = training.command(tmp_path, given)
    assert code == 0
    assert ("going on from" in printed) is (step > training.EVAL_STEPS)
    run = stores.only_run()
    assert run.info.run_id == failed.info.run_id
    assert run.data.params == stores_params(finished_training, run)
    check_whole(run, tmp_path / "out")
    check_same_adapters(tmp_path / "out", finished_training.output)


def stores_params(finished_training, run):
    """What the uninterrupted training had as params."""
    assert not [tag for tag in run.data.tags if tag.startswith("changed.")]
    return finished_training.run.data.params


def test_after_an_error_in_the_registry_nothing_is_trained_again(
    sqlite_store, tmp_path, training_inputs, finished_training, monkeypatch, capsys
):
    given = training.arguments(training_inputs)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "publish", lambda *_: fail())
        assert training.command(tmp_path, given)[0] == 1
    assert "no space left" in capsys.readouterr().err
    assert stores.only_run().info.status == "FAILED"
    code, printed = training.command(tmp_path, given)
    assert code == 0
    assert "loading" not in printed
    check_whole(stores.only_run(), tmp_path / "out")
    check_same_adapters(tmp_path / "out", finished_training.output)


def test_sigterm_leaves_a_checkpoint_a_killed_run_and_an_exit_code_that_says_so(
    sqlite_store, tmp_path, training_inputs, finished_training, monkeypatch
):
    given = training.arguments(training_inputs)
    with monkeypatch.context() as patch:
        interrupt(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        code, _ = training.command(tmp_path, given)
    assert code == 130
    run = stores.only_run()
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "KeyboardInterrupt: SIGTERM"
    # The step that was under way is not lost.
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]
    code, printed = training.command(tmp_path, given)
    assert code == 0
    assert f"going on from {Path('out', 'checkpoints', 'checkpoint-2')}" in printed
    check_whole(stores.only_run(), tmp_path / "out")
    check_same_adapters(tmp_path / "out", finished_training.output)


KILLED_AT_STEP_5 = """
import os, signal, sys
from socratic_mlflow.callback import SocraticMlflowCallback
log = SocraticMlflowCallback.on_log
def on_log(self, args, state, control, logs=None, **kwargs):
    log(self, args, state, control, logs=logs, **kwargs)
    if state.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
SocraticMlflowCallback.on_log = on_log
from socratic_mlflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_process_is_continued_by_another_on_the_file_store(
    tmp_path, empty_database, training_inputs, finished_training
):
    given = training.arguments(training_inputs)
    with stores.used("file:./mlruns"):
        first = subprocess.run(
            [sys.executable, "-c", KILLED_AT_STEP_5, *given], cwd=tmp_path, capture_output=True, text=True
        )
        assert first.returncode == -signal.SIGKILL, first.stderr
        again = [sys.executable, "-m", "socratic_mlflow", *given]
        second = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "Traceback" not in second.stderr
    with stores.used(f"file:{tmp_path}/mlruns"):
        check_whole(stores.only_run(), tmp_path / "out")
    check_same_adapters(tmp_path / "out", finished_training.output)


def test_resume_must_needs_a_checkpoint(sqlite_store, tmp_path, training_inputs, capsys):
    with pytest.raises(SystemExit) as caught:
        training.command(tmp_path, training.arguments(training_inputs, resume="must"))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "socratic-mlflow: error: resume=must, but out holds no checkpoint\n"
    assert MlflowClient().search_runs(["0"]) == []


@pytest.mark.parametrize(
    "changes", [{"data": "missing.jsonl"}, {"base_model": "no/such-base"}, {"questions": "missing.txt"}, {"test_size": 0.0}]
)
def test_a_mistake_leaves_neither_a_run_nor_files(sqlite_store, tmp_path, training_inputs, capsys, changes):
    with pytest.raises(SystemExit) as caught:
        training.command(tmp_path, training.arguments(training_inputs, **changes))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("socratic-mlflow: error: ")
    assert error.count("\n") == 1
    assert MlflowClient().search_runs(["0"]) == []
    assert not (tmp_path / "out").exists()
