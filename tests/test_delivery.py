"""From the journal into real stores: everything arrives, each point once, however often and however badly it is tried."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import stores
from deliveries import END, TRAINING, check_whole, deliver, fill, held, metrics, new_journal  # noqa: F401
from mlflow import MlflowClient


def test_every_kind_of_record_arrives(store, journal):
    fill(journal)
    refused, run_id = deliver(journal)
    assert refused == {}
    check_whole(run_id)
    assert stores.only_run().info.start_time == TRAINING["time"]


@pytest.mark.parametrize("forgotten", [False, True], ids=["the run known", "all forgotten"])
def test_everything_once_more_changes_nothing(store, journal, forgotten):
    fill(journal)
    _, run_id = deliver(journal)
    before = held(run_id)
    if not forgotten:
        journal.mark_delivered({"offset": 0, "run_id": run_id})
    for _ in range(2):
        assert deliver(journal) == ({}, run_id)
    assert held(run_id) == before
    assert stores.only_run().info.run_id == run_id


@pytest.mark.parametrize("step", [3, 5], ids=["plot", "image"])
def test_an_image_that_was_half_written_is_completed_and_no_second_one_made(store, journal, step):
    fill(journal)
    _, run_id = deliver(journal)
    folder = Path(MlflowClient().get_run(run_id).info.artifact_uri.removeprefix("file://")) / "images"
    (small,) = folder.glob(f"*+step+{step}+*+compressed.webp")
    whole = small.read_bytes()
    (large,) = folder.glob(f"*+step+{step}+*.png")
    small.unlink()
    large.write_bytes(b"torn")
    deliver(journal)
    assert [path.name for path in folder.glob(f"*+step+{step}+*.webp")] == [small.name]
    assert [path.name for path in folder.glob(f"*+step+{step}+*.png")] == [large.name]
    assert len(list(folder.iterdir())) == 4
    assert small.read_bytes() == whole
    assert large.read_bytes().startswith(b"\x89PNG")


def test_beginning_anywhere_changes_nothing(store, journal):
    fill(journal)
    _, run_id = deliver(journal)
    before = held(run_id)
    journal.mark_delivered({"offset": 0, "run_id": run_id})
    for _, offset in list(journal.records()):
        assert deliver(journal, offset=offset) == ({}, run_id)
    assert held(run_id) == before


def test_long_params_and_odd_values_once_more_change_nothing(store, journal):
    journal.append({"kind": "params", "values": {"long": "x" * 6100, "empty": "", "odd": "正\n義"}})
    journal.append(metrics(1, nan=math.nan, up=math.inf, down=-math.inf, small=5e-324))
    _, run_id = deliver(journal)
    tags = MlflowClient().get_run(run_id).data.tags
    assert deliver(journal) == ({}, run_id)
    assert MlflowClient().get_run(run_id).data.tags == tags
    assert stores.logged_twice(run_id) == []
    assert {"nan", "up", "down", "small"} <= set(MlflowClient().get_run(run_id).data.metrics)


def test_a_changed_param_becomes_a_tag(store, journal):
    journal.append({"kind": "params", "values": {"training.epochs": "30", "lora.r": "16"}})
    journal.append({"kind": "params", "values": {"training.epochs": "3", "lora.r": "16"}})
    _, run_id = deliver(journal)
    data = MlflowClient().get_run(run_id).data
    assert data.params == {"training.epochs": "30", "lora.r": "16"}
    changed = {name: value for name, value in data.tags.items() if name.startswith("changed.")}
    assert changed == {"changed.training.epochs": "30 -> 3"}


def test_more_tables_than_fit_into_mlflows_own_tag_all_arrive(store, journal):
    for step in range(150):
        record = {"kind": "table", "path": f"samples/step_{step:06d}_of_a_long_training.json"}
        journal.append(record, json.dumps({"columns": ["a"], "data": [[step]]}).encode(), ".json")
    journal.append(END)
    _, run_id = deliver(journal)
    assert len(stores.artifacts(run_id, "samples")) == 150
    assert stores.only_run().info.status == "FINISHED"


def test_tables_that_others_have_logged_stay_listed(store, journal):
    run_id = MlflowClient().create_run("0").info.run_id
    MlflowClient().log_table(run_id, {"a": [1]}, "theirs.json")
    journal.mark_delivered({"offset": 0, "run_id": run_id})
    fill(journal)
    deliver(journal)
    listed = json.loads(MlflowClient().get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert [each["path"] for each in listed] == ["theirs.json", "samples/step_000005.json"]


def test_a_new_start_leaves_no_old_error_behind(store, journal):
    journal.append({"kind": "tags", "values": {"error": "power cut"}})
    journal.append({"kind": "end", "time": 1_700_000_010_000, "status": "FAILED"})
    deliver(journal)
    assert stores.only_run().info.status == "FAILED"
    journal.append({"kind": "start", "time": 1_700_000_011_000, "pid": 1, "host": "here"})
    deliver(journal)
    assert stores.only_run().info.status == "RUNNING"
    assert "error" not in stores.only_run().data.tags


def test_more_metrics_than_one_request_takes_all_arrive(sqlite_store, journal):
    journal.append(metrics(1, **{f"m{number}": 1.0 for number in range(1500)}))
    for step in range(2, 10):
        journal.append(metrics(step, **{f"m{number}": float(step) for number in range(150)}))
    _, run_id = deliver(journal)
    assert len(MlflowClient().get_run(run_id).data.metrics) == 1501
    assert stores.steps(run_id, "m149") == list(range(1, 10))
