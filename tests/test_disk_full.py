"""The disk is full while a checkpoint is written: a clear line, whole older checkpoints, and the same command goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import disks
import faults
import pytest
import stores
import training
from training import Training

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("left", [0, 40 * 1024], ids=["for the journal too", "for the checkpoint"])
def test_a_full_disk_costs_no_checkpoint_and_with_space_the_same_command_goes_on(
    sqlite_store: str, tmp_path: Path, training_inputs: Path, finished_training: Training, left: int
) -> None:
    with disks.tiny(tmp_path / "disk") as disk:
        resize(disk, "4m")
        out = disk / "out"
        given = training.arguments(training_inputs, str(out))
        with faults.started(tmp_path, given, gates=[4]) as process:
            process.reach(4)
            filler = disks.fill(disk)
            with filler.open("r+b") as file:
                file.truncate(filler.stat().st_size - left)
            process.open(4)
            assert process.end() == 1
            assert "Traceback" not in process.errors
            line = process.errors.splitlines()[-1]
        assert line.startswith("socratic-mlflow: error: the disk is full (")
        assert line.endswith("free some space and run the same command again, it goes on from there")
        run = stores.only_run()
        assert run.info.status == "FAILED"
        assert run.data.tags["error"]
        resize(disk, "16m")
        printed = faults.finished(tmp_path, given)
        assert f"going on from {out}/checkpoints/checkpoint-4" in printed
        faults.check_whole(finished_training, out)


def resize(disk: Path, size: str) -> None:
    """Give the small file system another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
