"""Several things go wrong one after the other, as they do: what a person finds in the morning."""

from __future__ import annotations

import sqlite3

import pytest
import stores
import training
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from socratic_mlflow import publishing
from socratic_mlflow.callback import SocraticMlflowCallback
from socratic_mlflow.journal import Journal
from socratic_mlflow.lock import hold


def fail(*_):
    raise RuntimeError("the machine is on fire")


def fail_at(patch, step):
    """Let the training fail once `step` is logged."""
    log = SocraticMlflowCallback.on_log

    def on_log(self, args, state, control, logs=None, **kwargs):
        log(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == step:
            fail()

    patch.setattr(SocraticMlflowCallback, "on_log", on_log)


@pytest.fixture
def unregistered(sqlite_store, tmp_path, training_inputs, monkeypatch):
    """The command of a training that was done, and failed before its model was registered."""
    given = training.arguments(training_inputs, max_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "publish", fail)
        assert training.command(tmp_path, given)[0] == 1
    return given


def test_a_training_made_longer_before_it_was_registered_is_trained_to_its_new_end(unregistered, tmp_path, monkeypatch):
    longer = [*unregistered, "--max_steps=6"]
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        assert training.command(tmp_path, longer)[0] == 1
    code, printed = training.command(tmp_path, ["sync", "out"])
    assert code == 0
    assert "version" not in printed
    code, printed = training.command(tmp_path, longer)
    assert code == 0
    assert "going on from" in printed
    run = stores.only_run()
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2, 3, 4, 5, 6]
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    step = int(version.tags["step"])
    manifest = (tmp_path / "out" / "best_adapter" / "manifest.json").read_text()
    assert f"checkpoint-{step}" in manifest


def test_an_adapter_that_the_disk_has_damaged_is_taken_from_its_checkpoint_again(unregistered, tmp_path):
    weights = tmp_path / "out" / "best_adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert training.command(tmp_path, unregistered)[0] == 0
    assert weights.read_bytes() == whole


def test_an_adapter_that_is_lost_altogether_is_not_registered(unregistered, tmp_path, capsys):
    for weights in (tmp_path / "out").rglob("adapter_model.safetensors"):
        weights.write_bytes(b"")
    assert training.command(tmp_path, unregistered)[0] == 1
    assert "is lost" in capsys.readouterr().err
    assert MlflowClient().search_registered_models() == []


def test_a_damaged_table_costs_itself_and_not_the_end_of_the_training(unregistered, tmp_path):
    journal = Journal(tmp_path / "out" / "journal")
    (table,) = (record for record, _ in journal.records() if record.get("path") == "samples/step_000000.json")
    (journal.folder / "files" / table["file"]).write_bytes(b"{}")
    code, printed = training.command(tmp_path, unregistered)
    assert code == 0
    assert "warning: no before_and_after.json: " in printed
    run = stores.only_run()
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert training.command(tmp_path, unregistered)[1].startswith("This training has finished already")


def test_an_answer_that_is_lost_decides_nothing_about_the_champion(unregistered, tmp_path, monkeypatch):
    assert training.command(tmp_path, unregistered)[0] == 0
    get, calls = MlflowClient.get_model_version_by_alias, []

    def get_or_not(self, name, alias):
        calls.append(alias)
        if len(calls) == 1:
            raise MlflowException("API request failed: Connection refused")
        return get(self, name, alias)

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", get_or_not)
    assert training.command(tmp_path, [*unregistered, "--output_dir=other"])[0] == 0
    version = training.version(training.MODEL, 2)
    assert "on the same questions" in version.tags["promotion"]
    assert calls[0] == calls[1] == "champion"


@pytest.mark.parametrize("away", ["the run is deleted", "the database has lost it"])
def test_a_run_that_is_gone_is_said_and_everything_can_go_into_a_new_one(sqlite_store, unregistered, tmp_path, away):
    old = stores.only_run().info.run_id
    if away == "the run is deleted":
        MlflowClient().delete_run(old)
    else:
        with sqlite3.connect(sqlite_store.removeprefix("sqlite:///")) as database:
            for table in ("runs", "tags", "params", "metrics", "latest_metrics", "inputs"):
                database.execute(f"DELETE FROM {table}")
    code, printed = training.command(tmp_path, ["sync", "out"])
    assert code == 1
    assert "MLflow no longer has this run" in printed
    assert "'socratic-mlflow sync out --new-run' put it into a new one" in printed
    code, printed = training.command(tmp_path, ["sync", "out", "--new-run"])
    assert code == 0, printed
    run = stores.only_run()
    assert run.info.run_id != old
    assert run.info.status == "FINISHED"
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]
    assert training.version(training.MODEL, 1).run_id == run.info.run_id
    assert training.command(tmp_path, unregistered)[1].startswith("This training has finished already")


def test_a_deleted_run_is_said_before_anything_is_trained(unregistered, tmp_path, capsys):
    MlflowClient().delete_run(stores.only_run().info.run_id)
    with pytest.raises(SystemExit):
        training.command(tmp_path, unregistered)
    assert "which holds this training, is deleted" in capsys.readouterr().err


def test_a_run_that_mlflow_has_never_heard_of_is_said_before_anything_is_trained(
    sqlite_store, tmp_path, training_inputs, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(SystemExit) as caught:
        training.command(tmp_path, training.arguments(training_inputs))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"MLflow has no run {'0' * 32}; correct or unset MLFLOW_RUN_ID" in line
    assert not (tmp_path / "out").exists()


def test_sync_of_all_passes_by_what_is_in_use_and_finds_each_ones_store(
    sqlite_store, tmp_path, training_inputs, empty_database, monkeypatch
):
    uris = []
    for name in ("a", "b"):
        uris.append(stores.make(tmp_path / f"store-{name}", "sqlite", empty_database))
        with stores.used(uris[-1]), monkeypatch.context() as patch:
            patch.setattr(publishing, "publish", fail)
            given = training.arguments(training_inputs, f"outputs/{name}", max_steps=2)
            assert training.command(tmp_path, given)[0] == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with hold(tmp_path / "outputs" / "a"):
        code, printed = training.command(tmp_path, ["sync"])
    assert code == 2
    assert "warning: outputs/a: not delivered: " in printed
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert training.command(tmp_path, ["sync"])[0] == 0
    for uri in uris:
        with stores.used(uri):
            assert stores.only_run().info.status == "FINISHED"
            assert training.version(training.MODEL, 1).current_stage == "Production"
