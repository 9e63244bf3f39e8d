"""Whether MLflow's store can be used now: yes, perhaps later (trouble), or never (an error of one line)."""

from __future__ import annotations

import os

import flaky
import pytest
import servers
import stores

from socratic_mlflow.run_lifecycle import be_brief, store_trouble


def test_a_store_that_works_is_no_trouble(store):
    assert store_trouble() == ""


TROUBLES = [
    (flaky.ERROR, "it answers with error 5xx"),
    (flaky.DROP, "the connection broke off"),
    (flaky.GARBAGE, "not in a valid JSON format"),
]


@pytest.mark.parametrize(("fate", "words"), TROUBLES)
def test_a_server_that_may_come_back_is_trouble_and_no_error(sqlite_store, fate, words):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        assert store_trouble() == ""
        server.becomes(fate)
        assert words in store_trouble()
        server.becomes(flaky.PASS)
        assert store_trouble() == ""


def test_a_port_that_refuses_is_trouble(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with stores.used(f"http://127.0.0.1:{servers.free_port()}"):
        assert store_trouble() == "connection refused"


@pytest.mark.parametrize("uri", ["ftp://host/x", "nonsense://x", "sqlite:///{file}/mlflow.db", "sqlite:///{file}"])
def test_an_address_that_will_never_work_is_an_error_of_one_line(tmp_path, uri):
    (tmp_path / "file").write_bytes(b"no database at all " * 100)
    with stores.used(uri.format(file=tmp_path / "file")), pytest.raises(ValueError, match="cannot be used") as caught:
        store_trouble()
    assert "\n" not in str(caught.value)


def test_the_file_store_without_its_opt_in_is_one_clear_line(tmp_path, monkeypatch):
    with stores.used(f"file:{tmp_path}/mlruns"):
        monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
        with pytest.raises(ValueError, match=r"cannot be used.*MLFLOW_ALLOW_FILE_STORE") as caught:
            store_trouble()
    assert "\n" not in str(caught.value)


def test_a_persons_own_patience_counts(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    be_brief()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert int(os.environ.pop("MLFLOW_HTTP_REQUEST_TIMEOUT")) <= 30
