"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from training import Training

    from socratic_mlflow.tracking import Tracker

# Before anything imports these libraries: no network, and nothing of this machine's MLflow. One thread: the models are
# tiny, and the processes of a test would only be in each other's way.
os.environ |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests that need it are skipped where it is missing."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: the real dialogues are no part of this repository")
    return folder


# The helper modules below import torch and MLflow: only where a test asks for them, so that the others start at once.


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an SQLite store without runs, to copy."""
    import stores

    return stores.new_database(tmp_path_factory.mktemp("database") / "mlflow.db")


@pytest.fixture(params=["sqlite", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """The URI of a new store, which MLflow uses; the test runs once on SQLite and once on the file store."""
    import stores

    with stores.used(stores.make(tmp_path / "store", request.param, empty_database)) as uri:
        yield uri


@pytest.fixture
def sqlite_store(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """The URI of a new SQLite store, which MLflow uses."""
    import stores

    with stores.used(stores.make(tmp_path / "store", "sqlite", empty_database)) as uri:
        yield uri


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run `socratic-mlflow` in an empty folder; returns what it printed."""
    import versions

    return lambda *given: versions.command(tmp_path, *map(str, given))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `socratic-mlflow`, which must refuse; returns its one line."""
    import versions

    return lambda *given: versions.refusal(capsys, *given)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{family: folder of a tiny base model}."""
    import tiny

    return tiny.save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def untrained_adapter(training_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter without effect on the base of the small training."""
    import tiny

    from socratic_mlflow.model import attach_adapter, load_base

    config = tiny.config(training_inputs / "base")
    folder = tmp_path_factory.mktemp("adapters") / "best_adapter"
    attach_adapter(load_base(config.model, config.quantization), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def training_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with base, dialogues and questions of the small training."""
    import training

    return training.write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def finished_training(tmp_path_factory: pytest.TempPathFactory, training_inputs: Path, empty_database: Path) -> Training:
    """The small training, finished and registered in a store of its own."""
    import training

    return training.finish(tmp_path_factory.mktemp("trained"), training_inputs, empty_database)


@pytest.fixture(scope="module")
def trained(finished_training: Training) -> Iterator[Training]:
    """The small training, with its store in use for as long as the test file runs."""
    import stores

    with stores.used(finished_training.store):
        yield finished_training


@pytest.fixture
def make_tracker(tmp_path: Path) -> Iterator[Callable[..., Tracker]]:
    """Make a tracker of the journal in the test's `folder`; closed at the end."""
    from socratic_mlflow.tracking import Tracker

    made: list[Tracker] = []

    def make(folder: str = "journal", **given: Any) -> Tracker:
        made.append(Tracker(tmp_path / folder, lambda line: None, **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def tracker(store: str, make_tracker: Callable[..., Tracker]) -> Tracker:
    """A tracker whose run is running, in a store of each kind."""
    made = make_tracker()
    made.start()
    return made
