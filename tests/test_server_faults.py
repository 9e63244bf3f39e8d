"""MLflow's server away, hanging, broken or forgetful, while a training goes on: everything arrives, each point once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
import servers
import stores
import training
from mlflow import MlflowClient
from servers import Server
from training import Training

pytestmark = pytest.mark.faults

SECRETS = {
    "HF_TOKEN": "hf_plantedAAAABBBBCCCCDDDD1234",
    "MLFLOW_TRACKING_USERNAME": "someone",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-password",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret/key/0123456789abcdef",
}
IN_URI = "planted-uri-password"
# Requests that hang are given up soon.
BRIEF = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
LOST, BACK = "warning: MLflow at", "is back; what it has missed is being delivered"


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    """One that is not started."""
    made = Server(tmp_path / "server", empty_database)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def undelivered(tmp_path_factory: pytest.TempPathFactory, training_inputs: Path) -> tuple[Path, int, str]:
    """(folder, port, what it printed) of a training that is done, to whose server on `port` nothing ever got through."""
    folder, port = tmp_path_factory.mktemp("undelivered"), servers.free_port()
    uri = f"http://user:{IN_URI}@127.0.0.1:{port}"
    printed = faults.finished(folder, training.arguments(training_inputs), MLFLOW_TRACKING_URI=uri, **SECRETS)
    return folder, port, printed


def copied(undelivered: tuple[Path, int, str], folder: Path) -> Path:
    """A copy of what the training left, to deliver."""
    return Path(shutil.copytree(undelivered[0], folder / "copy"))


def once(printed: str) -> None:
    """One warning at the loss, one line at the recovery."""
    assert printed.count(LOST) == 1, printed
    assert printed.count(BACK) == 1, printed
    assert printed.index(LOST) < printed.index(BACK)


def test_a_server_that_is_never_there_costs_nothing_but_a_later_sync(
    undelivered: tuple[Path, int, str],
    tmp_path: Path,
    empty_database: Path,
    finished_training: Training,
    training_inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, (_, port, printed) = copied(undelivered, tmp_path), undelivered
    assert printed.count("cannot be reached") == 1
    assert (
        f"{LOST} http://127.0.0.1:{port} cannot be reached (connection refused); everything is kept in out/journal"
        in printed
    )
    assert printed.splitlines()[-1] == (
        "warning: MLflow has not received everything; all of it is in out/journal. Once MLflow can be reached, "
        "'socratic-mlflow sync out' delivers it and registers the model"
    )
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path / "server", empty_database, port=port)
    with stores.used(f"http://user:{IN_URI}@127.0.0.1:{port}"):
        code, printed = training.command(folder, ["sync", "out"])
        assert code == 1
        assert "cannot be reached" in printed
        with servers.running(server):
            code, printed = training.command(folder, ["sync", "out"])
            assert code == 0, printed
            assert f"model  {training.MODEL} version 1 is now Production and @champion" in printed
            faults.check_whole(finished_training, folder / "out")
            before = server.content()
            assert training.command(folder, ["sync", "out"])[0] == 0
            code, printed = training.command(folder, training.arguments(training_inputs))
            assert code == 0
            assert printed.startswith(f"This training has finished already: models:/{training.MODEL}/1")
            assert server.content() == before
    for secret in (IN_URI, *(value for name, value in SECRETS.items() if name != "MLFLOW_TRACKING_USERNAME")):
        assert faults.bytes_with(secret, folder, server.folder) == []


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_answers_that_get_lost_make_nothing_twice(
    undelivered: tuple[Path, int, str], tmp_path: Path, empty_database: Path, finished_training: Training, kind: str
) -> None:
    folder, port = copied(undelivered, tmp_path), undelivered[1]
    with (
        servers.running(Server(tmp_path / "server", empty_database, kind)) as server,
        servers.forgetful(port, server) as lost,
        stores.used(f"http://127.0.0.1:{port}"),
    ):
        code, starts = 1, 0
        while code:
            assert starts < 30, lost
            code, starts = training.command(folder, ["sync", "out"])[0], starts + 1
        endings = {path.rsplit("/", 1)[-1] for path in lost}
        assert endings >= {
            "create",
            "log-batch",
            "log-inputs",
            "update",
            "set-tag",
            "transition-stage",
            "mlflow-artifacts",
        }, lost
        faults.check_whole(finished_training, folder / "out")


def test_a_server_that_is_killed_and_started_again_gets_everything_once(
    server: Server, tmp_path: Path, training_inputs: Path, finished_training: Training
) -> None:
    server.start()
    given = training.arguments(training_inputs)
    with faults.started(tmp_path, given, gates=[2, 5], MLFLOW_TRACKING_URI=server.uri) as process:
        process.reach(2)
        server.kill()
        process.open(2)
        process.reach(5)
        process.says(LOST)
        server.start()
        process.says(BACK)
        process.open(5)
        assert process.end() == 0, process.errors
        once(process.printed)
    with stores.used(server.uri):
        faults.check_whole(finished_training, tmp_path / "out")


def test_a_server_that_hangs_does_not_hold_the_training_and_one_that_dies_before_the_registration_loses_nothing(
    server: Server, tmp_path: Path, training_inputs: Path, finished_training: Training
) -> None:
    server.start()
    given, out = training.arguments(training_inputs), tmp_path / "out"
    with faults.started(tmp_path, given, gates=[2, 6, "done"], MLFLOW_TRACKING_URI=server.uri, **BRIEF) as process:
        process.reach(2)
        server.pause()
        process.open(2)
        process.reach(6)
        assert faults.steps_in_journal(out) == [1, 2, 3, 4, 5, 6]
        assert faults.undelivered_bytes(out) > 0
        process.says(f"{LOST} {server.uri} cannot be reached (no answer in time)")
        server.resume()
        process.says(BACK)
        once(process.printed)
        process.open(6)
        process.reach("done")
        server.kill()
        process.open("done")
        assert process.end() == 0
        assert process.printed.splitlines()[-1].endswith("'socratic-mlflow sync out' delivers it and registers the model")
    server.start()
    with stores.used(server.uri):
        assert MlflowClient().search_model_versions() == []
        code, printed = training.command(tmp_path, given)
        assert code == 0
        assert "evaluation" not in printed
        assert f"model  {training.MODEL} version 1 is now Production and @champion" in printed
        faults.check_whole(finished_training, out)


def test_a_server_that_answers_500_from_the_first_second_and_then_comes_to_itself(
    server: Server, tmp_path: Path, training_inputs: Path, finished_training: Training
) -> None:
    given = training.arguments(training_inputs)
    with faults.started(tmp_path, given, gates=[4], MLFLOW_TRACKING_URI=server.uri) as process:
        with servers.failing(server.port) as asked:
            process.reach(4)
            process.says(f"{LOST} {server.uri} cannot be reached (it answers with error 5xx)")
        assert len(asked) > 1
        server.start()
        process.says(BACK)
        process.open(4)
        assert process.end() == 0, process.errors
        once(process.printed)
    with stores.used(server.uri):
        faults.check_whole(finished_training, tmp_path / "out")


def test_require_tracking_makes_an_absent_server_an_error(
    tmp_path: Path, training_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://127.0.0.1:{servers.free_port()}"
    with stores.used(uri), pytest.raises(SystemExit) as caught:
        training.command(tmp_path, training.arguments(training_inputs, require_tracking="true"))
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"socratic-mlflow: error: require_tracking=true, but MLflow at {uri} cannot be reached: connection refused\n"
    )
    assert list(tmp_path.iterdir()) == []
