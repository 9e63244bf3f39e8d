"""What the tests of delivery share: the records of a training, and what a store then holds of them."""

from __future__ import annotations

import io
import json

import pytest
import stores
from mlflow import MlflowClient
from PIL import Image

from socratic_mlflow.delivery import Delivery
from socratic_mlflow.journal import Journal

TRAINING = {
    "kind": "training",
    "id": "0123456789abcdef",
    "time": 1_700_000_000_000,
    "tracking_uri": "",
    "run_id": "",
    "experiment_id": "",
    "experiment_name": "",
    "tags": {"mlflow.source.name": "train.py"},
}
END = {"kind": "end", "time": 1_700_000_099_000, "status": "FINISHED"}
DATASET = {
    "kind": "dataset",
    "context": "evaluation",
    "dataset": {
        "name": "questions",
        "digest": "abc",
        "source_type": "local",
        "source": '{"uri": "bundled"}',
        "schema": None,
        "profile": None,
    },
}


def picture():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def metrics(step, **values):
    values = {"train/loss": 1.0 / step} | values
    return {"kind": "metrics", "time": 1_700_000_000_000 + step, "step": step, "values": values}


@pytest.fixture(name="journal")
def new_journal(tmp_path):
    made = Journal(tmp_path / "journal")
    made.open()
    made.append(TRAINING)
    yield made
    made.close()


def fill(journal, steps=5):
    """Records of every kind that is sent, as a training writes them."""
    journal.append({"kind": "start", "time": 1_700_000_000_001, "pid": 1, "host": "here"})
    journal.append({"kind": "params", "values": {f"p.{number}": str(number) for number in range(130)}})
    journal.append({"kind": "tags", "values": {"preset": "embedded"}})
    journal.append({"kind": "text", "path": "config.yaml"}, "正義: 1\n".encode(), ".txt")
    journal.append(DATASET)
    for step in range(1, steps + 1):
        journal.append(metrics(step))
    journal.append({"kind": "plot", "time": 1_700_000_040_000, "key": "training_progress", "step": 3})
    table = {"columns": ["reply"], "data": [["では"], ["それは"]]}
    journal.append({"kind": "table", "path": "samples/step_000005.json"}, json.dumps(table).encode(), ".json")
    journal.append({"kind": "image", "time": 1_700_000_050_000, "key": "training_progress", "step": 5}, picture(), ".png")
    journal.append({"kind": "register", "candidate": {}, "questions": [], "profile": "", "description": ""})
    journal.append({"kind": "registered", "model": "models:/m/1"})
    journal.append(END)


def deliver(journal, delivery=None, offset=0):
    """Deliver all from `offset` on; returns ({what: why} of what was refused, the run's id)."""
    refused = {}
    delivery = delivery or Delivery(journal, refused.__setitem__)
    delivery.deliver([record for record, _ in journal.records(offset)])
    return refused, delivery.run_id


def held(run_id):
    """All that the store has of a run, in a form that can be compared."""
    client, run = MlflowClient(), MlflowClient().get_run(run_id)
    points = {
        name: sorted((point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, name))
        for name in run.data.metrics
    }
    inputs = [
        (each.dataset.name, each.dataset.digest, [tag.value for tag in each.tags]) for each in run.inputs.dataset_inputs
    ]
    return run.info.status, run.info.end_time, points, run.data.params, run.data.tags, inputs, stores.artifacts(run_id)


def check_whole(run_id, steps=5):
    status, end_time, points, params, tags, inputs, artifacts = held(run_id)
    assert (status, end_time) == ("FINISHED", END["time"])
    assert points == {"train/loss": [(step, 1_700_000_000_000 + step, 1.0 / step) for step in range(1, steps + 1)]}
    assert params == {f"p.{number}": str(number) for number in range(130)}
    assert (tags["preset"], tags["mlflow.source.name"]) == ("embedded", "train.py")
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "samples/step_000005.json", "type": "table"}]
    assert inputs == [("questions", "abc", ["evaluation"])]
    assert stores.artifact_text(run_id, "config.yaml") == "正義: 1\n"
    assert stores.table(run_id, "samples/step_000005.json") == [{"reply": "では"}, {"reply": "それは"}]
    # The plot and the picture, each with its small version.
    assert stores.image_steps(run_id) == [3, 5]
    assert len([path for path in artifacts if path.startswith("images/")]) == 4


def no_refusal(what, why):
    raise AssertionError(f"{what}: {why}")
