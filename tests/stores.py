"""MLflow stores in tmp folders, real ones: SQLite and the file store; with ways to read back what was logged."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient


def new_database(file: Path) -> Path:
    """An SQLite store as MLflow makes it; making one takes seconds (dozens of migrations), so tests copy this one."""
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


def make(folder: Path, kind: str, empty_database: Path) -> str:
    """A new store in `folder`; returns its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        return f"file:{folder}/mlruns"
    shutil.copy(empty_database, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = ?", (f"file://{folder}/artifacts",))
    return f"sqlite:///{folder}/mlflow.db"


@contextmanager
def used(uri: str) -> Iterator[str]:
    """Let MLflow (child processes too) use the store at `uri`; everything is put back afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        try:
            yield uri
        finally:
            while mlflow.active_run():
                mlflow.end_run()
            os.environ.pop("MLFLOW_RUN_ID", None)
            mlflow.set_tracking_uri(before)


def only_run() -> Any:
    """The one run of the store; fails where there are more or none."""
    runs = MlflowClient().search_runs(["0"])
    assert len(runs) == 1, [run.info.run_id for run in runs]
    return runs[0]


def artifacts(run_id: str, folder: str = "") -> list[str]:
    """The paths of all files below the run's artifact `folder`."""
    found = []
    for entry in MlflowClient().list_artifacts(run_id, folder or None):
        found += artifacts(run_id, entry.path) if entry.is_dir else [entry.path]
    return found


def artifact_text(run_id: str, file: str) -> str:
    """The text of one artifact."""
    return Path(MlflowClient().download_artifacts(run_id, file)).read_text(encoding="utf-8")


def table(run_id: str, file: str) -> list[dict[str, Any]]:
    """The rows of a table as `log_table` stored it."""
    loaded = json.loads(artifact_text(run_id, file))
    return [dict(zip(loaded["columns"], row, strict=True)) for row in loaded["data"]]


def steps(run_id: str, metric: str) -> list[int]:
    """The steps at which `metric` was logged, one entry for every time."""
    return sorted(point.step for point in MlflowClient().get_metric_history(run_id, metric))


def logged_twice(run_id: str) -> list[tuple[str, int]]:
    """Every (metric, step) that the run holds more than once."""
    client = MlflowClient()
    names = client.get_run(run_id).data.metrics
    counts = Counter((name, point.step) for name in names for point in client.get_metric_history(run_id, name))
    return [place for place, count in counts.items() if count > 1]


def image_steps(run_id: str, key: str = "training_progress") -> list[int]:
    """The steps at which the image `key` was logged (MLflow keeps each as KEY%step%STEP%...png)."""
    names = [Path(path).name for path in artifacts(run_id, "images") if path.endswith(".png")]
    parts = [name.replace("+", "%").split("%") for name in names]
    return sorted(int(part[part.index("step") + 1]) for part in parts if part[0] == key)
