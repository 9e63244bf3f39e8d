"""Several processes for one training, of which one dies where the first one does not notice, or goes before it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
import stores
import training

from socratic_mlflow.journal import Journal

pytestmark = pytest.mark.faults

FIRST = """
import ctypes, os, signal, sys, time
import psutil
from socratic_mlflow import companions
from socratic_mlflow.callback import SocraticMlflowCallback
from socratic_mlflow.ordered_trainer import OrderedTrainer
companions._NOTICED_WITHIN_S = companions._STOPS_WITHIN_S = 0.5
def others():
    return [each for each in psutil.Process().children() if each.cmdline()[-1:] == ["train"]]
def at_step(step, do):
    def begin(self, args, state, control, **_):
        if state.global_step == step:
            do()
    SocraticMlflowCallback.on_step_begin = begin
%s
from socratic_mlflow.cli import main
sys.exit(main(sys.argv[1:]))
"""

# It is told to stop, and seals the checkpoint for long after the other process has gone.
SEALS = """
at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
keep = OrderedTrainer._keep
def slowly(self, limit):
    if self.state.global_step == 3:
        while psutil.Process().children():
            time.sleep(0.05)
        time.sleep(3)
    keep(self, limit)
OrderedTrainer._keep = slowly
"""

# The other process is killed, and this one computes on, alone and without end.
COMPUTES = """
def alone():
    others()[0].kill()
    while True:
        time.sleep(0.05)
at_step(3, alone)
"""

# As within NCCL, no signal reaches Python.
HANGS = """
def alone():
    others()[0].kill()
    lock = ctypes.create_string_buffer(256)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(lock)
at_step(3, alone)
"""

# Taken by every Python that finds it; it changes what the second process does.
FAILS = """
import os
if os.environ.get("RANK") == "1":
    from socratic_mlflow.agreed_stop import StopTogether
    def fail(self, args, state, control, **_):
        if state.global_step == 3:
            raise RuntimeError("no paper left")
    StopTogether.on_step_begin = fail
"""


@pytest.fixture
def temporary(sqlite_store: str, tmp_path: Path) -> Iterator[Path]:
    """TMPDIR of a training, in which nothing may be left; MLflow's store is in use."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def arguments(inputs: Path) -> list[str]:
    return training.arguments(inputs, num_processes=2)


def check_failed(process: faults.Process, how: str) -> None:
    """It has ended with one line, and its run with the same one."""
    assert process.end() == 1, process.printed + process.errors
    line = f"process 2 of 2 {how}; the same command goes on from the last checkpoint"
    assert process.errors.splitlines()[-1] == f"socratic-mlflow: error: {line}"
    assert "Traceback" not in process.errors
    run = stores.only_run()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", f"ConnectionError: {line}")


def test_the_first_process_may_take_its_time_over_the_last_checkpoint(
    training_inputs: Path, tmp_path: Path, temporary: Path
) -> None:
    command = [sys.executable, "-c", FIRST % SEALS]
    with faults.started(tmp_path, arguments(training_inputs), command=command, TMPDIR=str(temporary)) as process:
        assert process.end() == 130, process.printed + process.errors
        assert process.errors.splitlines()[-1] == "socratic-mlflow: interrupted"
    assert stores.only_run().info.status == "KILLED"
    assert "stopped at step 3, which is saved" in process.printed


@pytest.mark.parametrize("doing", [COMPUTES, HANGS], ids=["computes", "hangs"])
def test_a_process_that_dies_unnoticed_ends_the_training_and_its_run(
    training_inputs: Path, tmp_path: Path, temporary: Path, doing: str
) -> None:
    command = [sys.executable, "-c", FIRST % doing]
    with faults.started(tmp_path, arguments(training_inputs), command=command, TMPDIR=str(temporary)) as process:
        check_failed(process, "was killed (SIGKILL)")
    assert [record["kind"] for record, _ in Journal(tmp_path / "out" / "journal").records()][-1] == "end"


def test_a_process_that_fails_ends_the_training_with_what_it_said(
    training_inputs: Path, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "TMPDIR": str(temporary)}
    with faults.started(tmp_path, arguments(training_inputs), **environment) as process:
        check_failed(process, "failed (RuntimeError: no paper left)")
