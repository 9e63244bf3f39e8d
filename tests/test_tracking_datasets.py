"""Dialogues and questions as a run's dataset inputs."""

from __future__ import annotations

import json

import pytest
from trackers import run_of


def test_a_dataset_is_an_input_with_a_digest_of_its_rows(tracker):
    digest = tracker.log_dataset([{"question": "正義とは？"}], "questions", "evaluation", "bundled")
    other = tracker.log_dataset([{"question": "勇気とは？"}], "more_questions", "training", "bundled")
    again = tracker.log_dataset([{"question": "正義とは？"}], "questions", "evaluation", "bundled")
    found = run_of(tracker).inputs.dataset_inputs
    inputs = {each.dataset.name: each for each in found}
    assert len(found) == 2
    assert inputs["questions"].dataset.digest == digest == again != other == inputs["more_questions"].dataset.digest
    assert [(tag.key, tag.value) for tag in inputs["questions"].tags] == [("mlflow.data.context", "evaluation")]


@pytest.mark.parametrize("count", [3, 10_001])
def test_a_memory_mapped_dataset_is_listed_as_the_same_rows_in_memory_are(sqlite_store, make_tracker, count):
    from socratic_mlflow.dialogues import Dialogue
    from socratic_mlflow.token_store import store
    from socratic_mlflow.tokens import Encoded

    def mapped(last):
        talks = ({"role": "user", "content": f"{number}つ目"} for number in range(count - 1))
        pairs = [(Dialogue((each,), "", f"line {number}"), Encoded([1], [1])) for number, each in enumerate(talks)]
        pairs.append((Dialogue(({"role": "user", "content": last},), "", "last"), Encoded([1], [1])))
        return store(pairs).select(range(count - 1, -1, -1)).select_columns(["place", "messages"])

    tracker = make_tracker()
    rows = mapped("正義とは？")
    digest = tracker.log_dataset(rows, "mapped", "training", "bundled")
    assert digest == tracker.log_dataset(mapped("正義とは？"), "mapped again", "training", "bundled")
    assert digest != tracker.log_dataset(mapped("勇気とは？"), "another", "training", "bundled")
    plain = tracker.log_dataset(list(rows), "plain", "training", "bundled")
    inputs = {each.dataset.name: each.dataset for each in run_of(tracker).inputs.dataset_inputs}
    assert json.loads(inputs["mapped"].profile)["num_rows"] == json.loads(inputs["plain"].profile)["num_rows"] == count
    assert inputs["mapped"].schema == inputs["plain"].schema
    assert (inputs["mapped"].source_type, inputs["mapped"].source) == (inputs["plain"].source_type, inputs["plain"].source)
    # MLflow's own digest knows nothing of what lies behind the first 10,000 rows but how many they are.
    assert (digest == plain) == (count == 3)


def test_the_source_of_a_memory_mapped_dataset_holds_no_secret(sqlite_store, make_tracker, monkeypatch):
    from datasets import Dataset

    monkeypatch.setenv("MY_API_KEY", "s3cret-value-77")
    tracker = make_tracker()
    tracker.log_dataset(Dataset.from_dict({"place": ["line 1"]}), "mapped", "training", "/data/s3cret-value-77.jsonl")
    (found,) = run_of(tracker).inputs.dataset_inputs
    assert "s3cret-value-77" not in found.dataset.source
    assert "***" in found.dataset.source
