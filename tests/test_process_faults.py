"""A training that is killed, interrupted or refused at any moment: the same command goes on, and nothing tells of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
import stores
import training
from mlflow import MlflowClient
from training import Training

pytestmark = pytest.mark.faults

TOKEN = "hf_plantedAAAABBBBCCCCDDDD1234"


@pytest.fixture
def given(training_inputs: Path) -> list[str]:
    """The small training's command line."""
    return training.arguments(training_inputs)


@pytest.fixture
def out(sqlite_store: str, tmp_path: Path) -> Iterator[Path]:
    """Its output folder, not made yet; MLflow's store is in use."""
    return tmp_path / "out"


def status() -> tuple[str, str | None]:
    """The only run's status and error."""
    run = stores.only_run()
    return run.info.status, run.data.tags.get("error")


def checkpoints(out: Path) -> list[str]:
    """The names of all checkpoints, whole or not."""
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def refused(folder: Path, given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a start in `folder` says that ends with exit code 2: one line."""
    with pytest.raises(SystemExit) as caught:
        training.command(folder, given)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def damage(checkpoints: Path) -> None:
    """Of checkpoints at 2, 4 and 6: the newest is cut, and a half-written and another training's come on top."""
    optimizer = checkpoints / "checkpoint-6" / "optimizer.pt"
    os.truncate(optimizer, optimizer.stat().st_size // 2)
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-5")
    (checkpoints / "checkpoint-5" / "manifest.json").unlink()
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-9")
    manifest = checkpoints / "checkpoint-9" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"identity": "0" * 64}))


def test_kill_9_again_and_again_with_damage_in_between(
    given: list[str], out: Path, tmp_path: Path, finished_training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    with faults.started(tmp_path, given, gates=[3]) as first:
        first.reach(3)
        holder = f"process {first.popen.pid} on {socket.gethostname()}"
        assert f"out is in use by {holder} (since " in refused(tmp_path, given, capsys)
        assert faults.steps_in_journal(out) == [1, 2, 3]
        first.kill()
    # A start that is refused closes the run at least.
    error = refused(tmp_path, [*given, "--lora_r=8", "--lora_alpha=5"], capsys)
    assert re.search(r"cannot go on with lora\.r 4 -> 8, lora\.alpha \d+ -> 5; choose another output_dir", error), error
    assert status() == ("KILLED", f"{holder} was killed: it ended without a word")
    with faults.started(tmp_path, given, gates=[6]) as second:
        second.reach(6)
        assert "going on from out/checkpoints/checkpoint-2" in second.printed
        second.wait_for(lambda: status() == ("RUNNING", None), "the run is running again")
        second.kill()
    assert checkpoints(out) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    damage(out / "checkpoints")
    printed = faults.finished(tmp_path, given)
    kept = "it is kept as passed-over-checkpoint"
    assert f"checkpoint-9 is passed over: of another configuration; {kept}-9\n" in printed
    assert re.search(rf"checkpoint-6 is passed over: damaged: optimizer\.pt has \d+ bytes, not \d+; {kept}-6\n", printed)
    assert f"checkpoint-5 is passed over: half-written: it has no manifest.json; {kept}-5\n" in printed
    assert "going on from out/checkpoints/checkpoint-4" in printed
    assert checkpoints(out)[4:] == [f"passed-over-checkpoint-{step}" for step in (5, 6, 9)]
    faults.check_whole(finished_training, out)


def test_a_finished_training_that_is_made_longer_goes_on_and_says_so(given: list[str], out: Path, tmp_path: Path) -> None:
    assert training.command(tmp_path, [*given, "--max_steps=2"])[0] == 0
    first = stores.only_run()
    code, printed = training.command(tmp_path, [*given, "--max_steps=5"])
    assert code == 0
    assert "going on from out/checkpoints/checkpoint-2" in printed
    run = stores.only_run()
    assert run.info.run_id == first.info.run_id
    assert run.data.params == first.data.params
    assert run.data.tags["changed.training.max_steps"] == "2 -> 5"
    assert run.info.status == "FINISHED"
    assert stores.logged_twice(run.info.run_id) == []
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2, 3, 4, 5]
    versions = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert sorted((each.version, each.run_id) for each in versions) == [(n, first.info.run_id) for n in (1, 2)]
    code, printed = training.command(tmp_path, [*given, "--max_steps=5"])
    assert printed.startswith(f"This training has finished already: models:/{training.MODEL}/2")


def test_an_exception_sigterm_and_ctrl_c_each_end_the_run_and_the_same_command_goes_on(
    given: list[str], out: Path, tmp_path: Path, finished_training: Training
) -> None:
    with faults.started(tmp_path, given, gates=["fail-1"], HF_TOKEN=TOKEN) as process:
        assert process.end() == 1
        assert "Traceback" in process.errors
    state, error = status()
    assert (state, error) == ("FAILED", "RuntimeError: no access to http://***@host/?token=***")
    text = stores.artifact_text(stores.only_run().info.run_id, "error.txt")
    assert text.splitlines()[-1] == error
    assert faults.bytes_with(TOKEN, tmp_path) == []
    with faults.started(tmp_path, given, gates=[2]) as process:
        stop(process, 2, signal.SIGTERM)
    assert checkpoints(out) == ["checkpoint-2", "checkpoint-3"]
    assert status() == ("KILLED", "KeyboardInterrupt: SIGTERM")
    with faults.started(tmp_path, given, gates=[4]) as process:
        stop(process, 4, signal.SIGINT)
        assert "going on from out/checkpoints/checkpoint-3" in process.printed
    assert checkpoints(out)[-1] == "checkpoint-5"
    assert status() == ("KILLED", "KeyboardInterrupt: SIGINT")
    with faults.started(tmp_path, given, gates=[6]) as process:
        process.reach(6)
        os.killpg(process.popen.pid, signal.SIGINT)
        process.says("Ctrl-C again stops at once")
        os.killpg(process.popen.pid, signal.SIGINT)
        # The gate stays shut.
        assert process.end() == 130
    assert status() == ("KILLED", "KeyboardInterrupt: SIGINT")
    assert faults.steps_in_journal(out)[-1] == 6
    faults.finished(tmp_path, given)
    for step in (3, 5):
        shutil.rmtree(out / "checkpoints" / f"checkpoint-{step}")
    faults.check_whole(finished_training, out)


def stop(process: faults.Process, step: int, number: int) -> None:
    """Signal the process and its group at `step`; it ends by itself, one step later, with the line for it."""
    process.reach(step)
    os.killpg(process.popen.pid, number)
    process.says("a checkpoint written first")
    process.open(step)
    assert process.end() == 130
    assert process.errors.splitlines()[-1] == "socratic-mlflow: interrupted"
    assert "Traceback" not in process.errors


def test_ctrl_c_at_mlflow_run_writes_a_checkpoint_and_ends_the_run(
    out: Path, tmp_path: Path, training_inputs: Path, repository: Path
) -> None:
    fields = training.arguments(training_inputs, str(out), max_steps=1000, eval_steps=500)[1:]
    command = [sys.executable, "-m", "mlflow", "run", str(repository), "--env-manager", "local"]
    options = [part for field in fields for part in ("-P", field.removeprefix("--"))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with faults.started(tmp_path, options, command=command, PATH=path) as process:
        process.wait_for(lambda: len(faults.steps_in_journal(out)) >= 3, "three steps are done")
        os.killpg(process.popen.pid, signal.SIGINT)
        assert process.end() != 0
        assert process.errors.count("a checkpoint written first") == 1
    state, error = status()
    # It was KILLED, but MLflow 3.17's `mlflow run` writes FAILED over that, whatever the status is when the command ends.
    assert state in ("KILLED", "FAILED")
    assert error == "KeyboardInterrupt: SIGINT"
    assert checkpoints(out) == [f"checkpoint-{faults.steps_in_journal(out)[-1]}"]
