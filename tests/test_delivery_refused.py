"""Records that a store refuses cost no other; a run that is gone costs nothing that the journal holds."""

from __future__ import annotations

import pytest
import stores
from deliveries import DATASET, END, TRAINING, check_whole, deliver, fill, metrics, new_journal, no_refusal, picture  # noqa: F401
from mlflow import MlflowClient
from mlflow.entities import ViewType

from socratic_mlflow.delivery import Delivery
from socratic_mlflow.journal import Journal
from socratic_mlflow.store_errors import AwayError, GoneError

LONG_KEY = "k" * 300
ODD = {"kind": "metrics", "time": 1, "step": 7, "values": {"other": 1.0}}
# Records that no store takes, or that are no records of this project's.
REFUSED = {
    "a bad name": ODD | {"values": {"a#b": 1.0}},
    "a long key": {"kind": "params", "values": {LONG_KEY: "1"}},
    "a long tag": {"kind": "tags", "values": {LONG_KEY: "1"}},
    "an unknown kind": {"kind": "unknown"},
    "no kind of ours": {"kind": "__init__", "values": {}},
    "a method's name": {"kind": "find_run"},
    "another method's": {"kind": "_find_run", "values": {}},
    "a missing field": {"kind": "metrics", "step": 3, "values": {}},
    "values that are no values": {"kind": "metrics", "time": 1, "step": 1, "values": 5},
    "a list of values": {"kind": "params", "values": [1, 2]},
    "text for a number": ODD | {"values": {"other": "1.0"}},
    "a number for a text": {"kind": "params", "values": {"p": 1}},
    "nothing for a text": {"kind": "tags", "values": {"t": None}},
    "a step that is none": ODD | {"step": "7"},
    "a file that is none": {"kind": "text", "path": "a.txt", "file": "../../secret.txt", "crc": 0},
    "no file": {"kind": "image", "time": 1, "key": "k", "step": 1},
    "a plot without a step": {"kind": "plot", "time": 1, "key": "k"},
    "a plot whose key is none": {"kind": "plot", "time": 1, "key": ["k"], "step": 1},
    "a status that is none": {"kind": "end", "time": 1, "status": "GREAT"},
    "a run that is not there": {"kind": "pointer", "from": "0" * 32},
    "a run's id that is none": {"kind": "pointer", "from": "../../x"},
    "a model that is not there": ODD | {"model_id": "m-" + "0" * 32},
    "a data set of other fields": DATASET | {"dataset": {"surprise": 1}},
    "a data set of wrong types": DATASET | {"dataset": dict.fromkeys(DATASET["dataset"], 5)},
    "a number without end": ODD | {"values": {"other": 10**400}},
    "a step without end": ODD | {"step": 10**30},
    "a time without end": ODD | {"time": 10**30},
    "a negative time": ODD | {"time": -5},
}  # fmt: skip


def check_rest_has_arrived(journal, refused, run_id, count=1):
    """Exactly `count` records are refused, each once, and all others are there."""
    assert len(refused) == count, refused
    assert all("\n" not in what and "\n" not in why for what, why in refused.items())
    assert stores.steps(run_id, "train/loss") == [1, 2, 3, 4, 5]
    run = MlflowClient().get_run(run_id)
    assert (run.info.status, run.data.tags["after"], run.data.params["after"]) == ("FINISHED", "tag", "param")


@pytest.mark.parametrize("record", REFUSED.values(), ids=REFUSED)
def test_a_record_that_is_refused_is_told_of_and_costs_no_other(sqlite_store, journal, record):
    for step in (1, 2):
        journal.append(metrics(step))
    journal.append(record)
    for step in (3, 4, 5):
        journal.append(metrics(step))
    journal.append({"kind": "params", "values": {"after": "param"}})
    journal.append({"kind": "tags", "values": {"after": "tag"}})
    journal.append(END)
    check_rest_has_arrived(journal, *deliver(journal))


CONTENTS = {
    "text that is no UTF-8": ({"kind": "text", "path": "a.txt"}, b"\xff\xfe\xfd"),
    "a picture that is none": ({"kind": "image", "time": 1, "key": "k", "step": 1}, b"no picture"),
    "a path out of the folder": ({"kind": "text", "path": "../../a.txt"}, b"text"),
    "a path from the root": ({"kind": "text", "path": "/etc/a.txt"}, b"text"),
    "no path": ({"kind": "text", "path": ""}, b"text"),
    "a path with a zero": ({"kind": "text", "path": "a\x00b.txt"}, b"text"),
}


@pytest.mark.parametrize(("record", "data"), CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_is_refused_costs_no_other(store, journal, tmp_path, record, data):
    for step in range(1, 6):
        journal.append(metrics(step))
    journal.append(record, data, ".bin")
    journal.append({"kind": "params", "values": {"after": "param"}})
    journal.append({"kind": "tags", "values": {"after": "tag"}})
    journal.append(END)
    check_rest_has_arrived(journal, *deliver(journal))
    assert [path for path in tmp_path.rglob("*") if path.name in ("a.txt", "k")] == []


def test_a_picture_whose_key_is_a_path_stays_in_its_folder(store, journal):
    journal.append({"kind": "image", "time": 1, "key": "../../k", "step": 1}, picture(), ".png")
    refused, run_id = deliver(journal)
    assert all(path.startswith("images/") for path in stores.artifacts(run_id))
    assert len(stores.artifacts(run_id)) + len(refused) in (1, 2)


def test_a_damaged_line_costs_no_other(store, journal):
    fill(journal)
    lines = journal.file.read_bytes().splitlines(keepends=True)
    lines.insert(4, lines[4][:20] + b"#" + lines[4][21:])
    journal.file.write_bytes(b"".join(lines))
    refused, run_id = deliver(journal)
    assert refused == {"damaged": "its line in the journal is damaged"}
    check_whole(run_id)


def test_one_bad_name_among_a_thousand_records_costs_no_other(sqlite_store, journal):
    for step in range(1, 1000):
        journal.append(metrics(step))
    journal.append(metrics(1000, **{"no#name": 1.0, "accuracy": 0.5}))
    refused, run_id = deliver(journal)
    assert list(refused) == ["metric no#name at step 1000"]
    assert stores.steps(run_id, "train/loss") == list(range(1, 1001))
    assert stores.steps(run_id, "accuracy") == [1000]


def test_a_deleted_run_is_gone_and_the_journal_keeps_everything(store, journal):
    fill(journal)
    _, run_id = deliver(journal)
    MlflowClient().delete_run(run_id)
    journal.mark_delivered({"offset": 0, "run_id": run_id})
    before = journal.file.read_bytes()
    with pytest.raises(GoneError, match=rf"{run_id} is deleted"):
        deliver(journal)
    assert journal.file.read_bytes() == before
    MlflowClient().restore_run(run_id)
    assert deliver(journal) == ({}, run_id)
    check_whole(run_id)


def test_a_run_that_is_deleted_meanwhile_is_gone(store, journal):
    delivery = Delivery(journal, no_refusal)
    deliver(journal, delivery)
    MlflowClient().delete_run(delivery.run_id)
    with pytest.raises(GoneError, match="is deleted"):
        delivery.deliver([metrics(1)])
    assert MlflowClient().search_runs(["0"], run_view_type=ViewType.ACTIVE_ONLY) == []


@pytest.mark.parametrize("name", ["deleted", "a/b\n", "x" * 600])
def test_an_experiment_that_cannot_be_used_is_gone_rather_than_an_error_nobody_expects(store, tmp_path, name):
    if name == "deleted":
        MlflowClient().delete_experiment(MlflowClient().create_experiment(name))
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.append(TRAINING | {"experiment_name": name})
    try:
        deliver(journal)
    except (GoneError, AwayError) as error:
        assert "\n" not in str(error)
    journal.close()


@pytest.mark.parametrize("first", [b"", b"x\n", None], ids=["nothing", "damaged", "of another kind"])
def test_a_journal_that_does_not_say_what_it_is_of_is_gone(store, tmp_path, first):
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.append(END) if first is None else journal.file.write_bytes(first)
    with pytest.raises(GoneError, match="the line of the journal that says what it is of"):
        Delivery(journal, no_refusal).deliver([END])
    assert MlflowClient().search_runs(["0"]) == []
    journal.close()


@pytest.mark.parametrize("run_id", [None, 5, [], {}, "../../x", "0" * 32, ""])
def test_a_note_that_names_no_run_ruins_nothing(store, journal, run_id):
    fill(journal)
    journal.mark_delivered({"offset": 0, "run_id": run_id})
    if run_id in ("../../x", "0" * 32):
        # It might be a run of another store: better none than a second one.
        with pytest.raises((GoneError, AwayError)):
            deliver(journal)
        assert MlflowClient().search_runs(["0"]) == []
    else:
        check_whole(deliver(journal)[1])
