"""docs/server/compose.yaml without containers: the server that it describes, on a real PostgreSQL that goes away twice."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faults
import mlflow
import postgres
import pytest
import servers
import stores
import training
from mlflow import MlflowClient
from postgres import ComposedServer, Postgres
from training import Training

pytestmark = pytest.mark.faults

LOST, BACK = "warning: MLflow at", "is back; what it has missed is being delivered"


@dataclass(frozen=True)
class Remote:
    """A server on PostgreSQL, and a training that was sent to it: its folder and what it and `sync` printed."""

    database: Postgres
    server: ComposedServer
    folder: Path
    trained: str
    synced: str


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A new PostgreSQL server."""
    pytest.importorskip("psycopg2")
    # Not below pytest's own folder, which only the user of the tests may enter: PostgreSQL runs as another one under root.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, postgres.running(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def remote(database: Postgres, tmp_path_factory: pytest.TempPathFactory, training_inputs: Path) -> Iterator[Remote]:
    """The small training while PostgreSQL is stopped in its middle, and crashes before its model is registered."""
    folder, given = tmp_path_factory.mktemp("remote"), training.arguments(training_inputs)
    server = ComposedServer(tmp_path_factory.mktemp("server"), database)
    with servers.running(server), stores.used(server.uri):
        with faults.started(folder, given, gates=[2, 5, "done"], MLFLOW_TRACKING_URI=server.uri) as process:
            process.reach(2)
            database.stop()
            process.open(2)
            process.reach(5)
            process.says(LOST)
            database.start()
            process.says(BACK)
            process.open(5)
            process.reach("done")
            database.stop(signal.SIGQUIT)
            process.open("done")
            assert process.end() == 0, process.errors
            trained = process.printed
        database.start()
        code, synced = training.command(folder, ["sync", "out"])
        assert code == 0, synced
        yield Remote(database, server, folder, trained, synced)


def test_a_database_that_goes_away_twice_loses_nothing_and_gets_nothing_twice(
    remote: Remote, finished_training: Training
) -> None:
    last = remote.trained.splitlines()[-1]
    assert last.endswith("'socratic-mlflow sync out' delivers it and registers the model")
    assert f"{LOST} {remote.server.uri} cannot be reached (it answers with error 5xx)" in remote.trained
    assert f"model  {training.MODEL} version 1 is now Production and @champion" in remote.synced
    faults.check_whole(finished_training, remote.folder / "out")


def test_the_rows_in_postgresql_itself_are_there_once(remote: Remote) -> None:
    rows = remote.database.query
    assert rows("SELECT status FROM runs") == [("FINISHED",)]
    losses = rows("SELECT step, count(*) FROM metrics WHERE key = 'train/loss' GROUP BY step ORDER BY step")
    assert losses == [(step, 1) for step in range(1, training.MAX_STEPS + 1)]
    assert rows("SELECT key, step FROM metrics GROUP BY key, step HAVING count(*) > 1") == []
    assert rows("SELECT name, version, current_stage FROM model_versions") == [(training.MODEL, 1, "Production")]


def test_the_model_loads_through_the_server_and_answers(remote: Remote) -> None:
    run = stores.only_run()
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    version = MlflowClient().get_model_version_by_alias(training.MODEL, "champion")
    assert version.run_id == run.info.run_id
    assert list(remote.server.artifacts.rglob("adapter_model.safetensors"))
    (reply,) = mlflow.pyfunc.load_model(f"models:/{training.MODEL}@champion").predict(["正義とは何でしょうか？"])
    assert isinstance(reply, str)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["models", training.MODEL], "Production"),
        (["compare", "--last", "1"], "style"),
        (["promote", "1", "--name", training.MODEL], "version 1"),
        (["sync", "out"], ""),
    ],
)
def test_commands_read_it_over_http(remote: Remote, given: list[str], words: str) -> None:
    code, printed = training.command(remote.folder, given)
    assert code == 0, printed
    assert words in printed


def test_no_password_reaches_the_client_or_the_list_of_processes(remote: Remote) -> None:
    assert faults.bytes_with(remote.database.password, remote.folder, remote.server.artifacts) == []
    assert remote.database.password not in " ".join(remote.server.command)
    assert remote.server.healthy()
