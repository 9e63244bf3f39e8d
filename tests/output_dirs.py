"""What the tests of output folders share: a configuration, a folder in which it has begun, and how one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from socratic_mlflow.checkpoints import seal
from socratic_mlflow.config import Config, with_values
from socratic_mlflow.identity import identity
from socratic_mlflow.options import build_config
from socratic_mlflow.output_dir import OutputDir

STORE = "sqlite:///mlflow.db"
DIGESTS = {"data_digest": "0123abcd" * 8}
CONFIG = build_config({"preset": "embedded"})


def changed(**values: object) -> Config:
    """CONFIG with fields changed; two underscores stand for the dot."""
    return with_values(CONFIG, {key.replace("__", "."): value for key, value in values.items()})


def checkpoint(output: OutputDir, name: str, *, complete: bool = True, epoch: float = 5.0, config: Config = CONFIG) -> Path:
    """checkpoints/NAME as a training of `config` leaves it; its step is the number in the name."""
    folder = output.checkpoints / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    step = int(name.rpartition("-")[2]) if name[-1].isdigit() else 0
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": epoch}), encoding="utf-8")
    if complete:
        seal(folder, identity(config, DIGESTS))
    return folder


@pytest.fixture(name="output")
def new_output(tmp_path: Path) -> OutputDir:
    """A folder that does not exist yet."""
    return OutputDir(tmp_path / "some" / "out")


@pytest.fixture(name="begun")
def begun_output(output: OutputDir) -> OutputDir:
    """A folder in which CONFIG has begun."""
    output.record(CONFIG, run_id="abc", tracking_uri=STORE, **DIGESTS)
    return output


def refusal(output: OutputDir, config: Config = CONFIG, store: str = STORE) -> str:
    with pytest.raises(ValueError) as caught:
        output.check(config, store, DIGESTS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
