"""From a training that is done to its registered version: now, later, and however often it has to be tried."""

from __future__ import annotations

import flaky
import pytest
import stores
import training
from mlflow import MlflowClient

from socratic_mlflow import publishing
from socratic_mlflow.config import Config
from socratic_mlflow.journal import Journal
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.publishing import describe_run, pending

REGISTER = {
    "kind": "register",
    "training_id": "0" * 64,
    "candidate": {"step": 4},
    "questions": [],
    "profile": "",
    "description": "",
}
LONGER = {"kind": "longer"}
NEW_RUN = {"kind": "training"}
REGISTERED = {"kind": "registered", "model": "models:/m/1"}
START = {"kind": "start", "time": 1, "pid": 1, "host": "here"}
LATER = REGISTER | {"candidate": {"step": 8}}


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([], None),
        ([START], None),
        ([REGISTER], REGISTER),
        ([REGISTER, START], REGISTER),
        ([REGISTER, REGISTERED], None),
        ([REGISTER, REGISTERED, START, LATER], LATER),
        ([REGISTER, LATER], LATER),
        # Made longer, what was announced before no longer counts; in a new run it counts again.
        ([REGISTER, LONGER], None),
        ([REGISTER, LONGER, START, LATER], LATER),
        ([REGISTER, REGISTERED, NEW_RUN], REGISTER),
        ([REGISTER, LONGER, NEW_RUN], None),
        ([{"kind": "register"}], None),
        ([REGISTER | {"questions": "正義とは？"}], None),
    ],
)
def test_what_was_announced_last_and_not_registered_is_pending(tmp_path, records, found):
    output = OutputDir(tmp_path)
    journal = Journal(output.journal)
    journal.open()
    for record in records:
        journal.append(record)
    journal.close()
    assert pending(output) == found


def test_the_description_says_what_was_trained_on_what_and_how_to_load_it():
    text = describe_run(Config(), 11, 3, "models:/m/7")
    for part in (Config().model.base_model, Config().data.path, "11 dialogues, 3 held out", "load_model('models:/m/7')"):
        assert part in text


@pytest.fixture
def server(sqlite_store):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        yield server


@pytest.fixture
def unregistered(server, tmp_path, training_inputs, monkeypatch):
    """The command of a small training whose MLflow went away when it was done, and what it printed."""
    announce = publishing.announce

    def announce_and_lose(*given):
        announce(*given)
        server.becomes(flaky.DROP)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "announce", announce_and_lose)
        given = training.arguments(training_inputs, max_steps=2)
        code, printed = training.command(tmp_path, given)
    assert code == 0
    return given, printed


def sync(tmp_path):
    return training.command(tmp_path, ["sync", "out"])


def check_registered(run):
    client = MlflowClient()
    (version,) = client.search_model_versions(f"name='{training.MODEL}'")
    version = client.get_model_version(training.MODEL, version.version)
    assert (version.run_id, version.current_stage, version.aliases) == (run.info.run_id, "Production", ["champion"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["registered_model"] == f"models:/{training.MODEL}/{version.version}"
    assert f"load_model('models:/{training.MODEL}/{version.version}')" in run.data.tags["mlflow.note.content"]
    assert stores.logged_twice(run.info.run_id) == []
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]
    assert len(stores.table(run.info.run_id, "before_and_after.json")) == 4


def content():
    """All that a person sees in MLflow of runs and versions."""
    client, run = MlflowClient(), stores.only_run()
    versions = client.search_model_versions(f"name='{training.MODEL}'")
    metrics = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    points = {name: [(point.step, point.timestamp, point.value) for point in found] for name, found in metrics.items()}
    return run.info.status, run.info.end_time, run.data.tags, points, stores.artifacts(run.info.run_id), [
        (each.version, each.current_stage, each.tags, each.last_updated_timestamp) for each in versions
    ]  # fmt: skip


def test_what_could_not_be_registered_is_registered_by_sync_and_only_once(unregistered, server, tmp_path, capsys):
    given, printed = unregistered
    assert printed.splitlines()[-1].endswith("'socratic-mlflow sync out' delivers it and registers the model")
    assert "model" not in OutputDir(tmp_path / "out").state()
    assert sync(tmp_path)[0] == 1
    server.becomes(flaky.PASS)
    assert MlflowClient().search_model_versions(f"name='{training.MODEL}'") == []
    code, printed = sync(tmp_path)
    assert code == 0
    assert f"model  {training.MODEL} version 1 is now Production and @champion" in printed
    check_registered(stores.only_run())
    before = content()
    for _ in range(2):
        code, printed = sync(tmp_path)
        assert code == 0
        assert "MLflow has everything of out" in printed
    assert content() == before
    code, printed = training.command(tmp_path, given)
    assert code == 0
    assert f"finished already: models:/{training.MODEL}/1" in printed
    assert content() == before


def test_the_same_command_registers_as_well_and_trains_nothing(unregistered, server, tmp_path):
    server.becomes(flaky.PASS)
    code, printed = training.command(tmp_path, unregistered[0])
    assert code == 0
    assert "loading" not in printed
    check_registered(stores.only_run())


LOST = [
    "registered-models/create", "logged-models", "model-versions/create", "model-versions/transition-stage",
    "registered-models/alias", "runs/log-batch", "runs/update",
]  # fmt: skip


def test_whichever_answer_is_lost_there_is_one_version_in_the_end(unregistered, server, tmp_path, capsys):
    for call in LOST:
        server.becomes(flaky.LOSE, call, times=1)
        assert sync(tmp_path)[0] in (0, 1)
    # Each of them was really asked for, and so lost once.
    assert [call for call in LOST if not any(call in made for made in server.calls)] == []
    server.becomes(flaky.PASS)
    assert sync(tmp_path)[0] == 0
    check_registered(stores.only_run())
