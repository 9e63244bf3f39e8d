"""What a journal's records look like: their kinds, and the fields and types of each. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from socratic_mlflow.journal import Journal, Record

# Each of a record's fields with its type. `time` is in milliseconds since 1970, as MLflow counts.
_FIELDS: dict[str, dict[str, type]] = {
    # The journal's first record: which training this is, and where its run is or is to be made. A later one of its kind
    # takes its place: all is to go into a new run.
    "training": {
        "id": str,
        "time": int,
        "tracking_uri": str,
        "run_id": str,
        "experiment_id": str,
        "experiment_name": str,
        "tags": dict,
    },
    # A process begins to write here, and ends: with neither an end nor a living process it was killed.
    "start": {"time": int, "pid": int, "host": str},
    "end": {"time": int, "status": str},
    # Another run, made for this process by `mlflow run`, is to lead to this training's own.
    "pointer": {"from": str},
    "metrics": {"time": int, "step": int, "values": dict},
    "params": {"values": dict},
    "tags": {"values": dict},
    "text": {"path": str},
    "table": {"path": str},
    "image": {"time": int, "key": str, "step": int},
    # An image that is drawn when it is delivered, from the metrics before it. What the Trainer had logged before this
    # journal began is drawn with them, and not sent.
    "plot": {"time": int, "key": str, "step": int},
    "earlier": {"step": int, "values": dict},
    "dataset": {"dataset": dict, "context": str},
    # The training goes on beyond its former end; it is done, and this is its best adapter; that has become this version.
    "longer": {},
    "register": {"training_id": str, "candidate": dict, "questions": list, "profile": str, "description": str},
    "registered": {"model": str},
}
# What MLflow's databases hold of a number.
_LARGEST = 2**63 - 1
_STATUSES = ("FINISHED", "FAILED", "KILLED")
_VALUES: dict[str, tuple[type, ...]] = {
    "metrics": (int, float),
    "earlier": (int, float),
    "params": (str,),
    "tags": (str,),
}


def is_well_formed(record: Mapping[str, Any]) -> bool:
    """Whether `record` is of a known kind, with all fields of that kind and of the right types."""
    fields = _FIELDS.get(record["kind"])
    if fields is None or not all(isinstance(record.get(name), kind) for name, kind in fields.items()):
        return False
    if not all(0 <= record[name] <= _LARGEST for name, kind in fields.items() if kind is int):
        return False
    if record.get("status", _STATUSES[0]) not in _STATUSES or not _is_inside(str(record.get("path", "a"))):
        return False
    allowed = _VALUES.get(record["kind"])
    return allowed is None or all(isinstance(value, allowed) for value in record["values"].values())


def _is_inside(path: str) -> bool:
    """Whether `path` names a file below the folder that it is put into."""
    parts = path.split("/")
    return "\0" not in path and not {"", ".", ".."} & set(parts)


def training_of(journal: Journal) -> Record:
    """The `training` record that counts, the last one; {} where there is none."""
    found: Record = {}
    for record, _ in journal.records(kinds=("training",)):
        if is_well_formed(record):
            found = record
    return found
