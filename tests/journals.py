"""Journals for tests: a few records, how to open one, and what it holds."""

from __future__ import annotations

from socratic_mlflow.journal import Journal

RECORDS = [
    {"kind": "training", "id": "正義", "run_id": ""},
    {"kind": "metrics", "time": 1, "step": 1, "values": {"train/loss": 0.1}},
    {"kind": "tags", "values": {"a": "line\nbreak, \"quote\" and \\"}},
    {"kind": "end", "time": 2, "status": "FINISHED"},
]  # fmt: skip


def opened(folder):
    journal = Journal(folder)
    journal.open()
    return journal


def read(journal, offset=0):
    return [record for record, _ in journal.records(offset)]
