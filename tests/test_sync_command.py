"""`socratic-mlflow sync`: where it delivers to, and where it does not."""

from __future__ import annotations

import socket

import mlflow
import pytest
import stores
import training

from socratic_mlflow.tracking import Tracker


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """(the socket of a server that never answers, the output folder of a training that was logged to it)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with stores.used(uri):
            tracker = Tracker(tmp_path / "out" / "journal")
            tracker.set_tags({"preset": "embedded"})
            tracker.close()
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.set_tracking_uri(None)
        yield server, tmp_path / "out"
        mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"])
def test_no_secret_goes_to_a_server_that_only_the_journal_names(elsewhere, tmp_path, monkeypatch, capsys, name):
    server, folder = elsewhere
    monkeypatch.setenv(name, "planted-secret")
    with pytest.raises(SystemExit) as caught:
        training.command(tmp_path, ["sync", str(folder)])
    assert caught.value.code == 2
    assert "set MLFLOW_TRACKING_URI to it if your credentials may go there" in capsys.readouterr().err
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_stopped_training_does_not_wait_for_a_server_that_hangs(elsewhere, monkeypatch):
    server, folder = elsewhere
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with stores.used(f"http://127.0.0.1:{server.getsockname()[1]}"):
        tracker = Tracker(folder / "journal")
        tracker.start()
        # The request is under way, and nobody answers it.
        connection, _ = server.accept()
        assert not tracker.end("KILLED", patience_s=0.1)
        assert tracker.trouble == "no answer in time"
        tracker.close()
        connection.close()
