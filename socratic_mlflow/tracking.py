"""One MLflow run: open or continue it, and write params, metrics, images, tables and inputs to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What MLflow's stores take in one request.
_PARAMS_A_BATCH, _METRICS_A_BATCH = 100, 1000


class Tracker:
    """Writes to the MLflow run `run_id`; every method returns when the store has what it was given."""

    def __init__(self, run_id: str) -> None:
        from mlflow import MlflowClient

        self.run_id = run_id
        self._client = MlflowClient()
        self._logged: set[tuple[str, int]] = set()

    def recall(self) -> None:
        """Take up which metrics the run holds at which steps, so that going on from an older step logs none twice."""
        names = self._client.get_run(self.run_id).data.metrics
        self._logged = {
            (name, point.step) for name in names for point in self._client.get_metric_history(self.run_id, name)
        }

    def log_metrics(self, values: Mapping[str, float], step: int, model_id: str | None = None) -> None:
        """Each of `values` at `step`, with one time stamp, in one request; those that `recall` found stay.

        With `model_id` they stand on that logged model's page as well.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if (name, step) not in self._logged}
        metrics = [Metric(name, float(value), now, step, model_id=model_id) for name, value in new.items()]
        for start in range(0, len(metrics), _METRICS_A_BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_A_BATCH])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Params that the run does not have yet; a param cannot change, so a changed one goes into a tag `changed.NAME`."""
        from mlflow.entities import Param

        present = self._client.get_run(self.run_id).data.params
        new = [Param(name, str(value)) for name, value in values.items() if name not in present]
        for start in range(0, len(new), _PARAMS_A_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + _PARAMS_A_BATCH])
        changed = {name: value for name, value in values.items() if present.get(name, str(value)) != str(value)}
        self.set_tags({f"changed.{name}": value for name, value in changed.items()})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Tags, replacing those of the same name."""
        for name, value in values.items():
            self._client.set_tag(self.run_id, name, str(value))

    def log_image(self, image: Any, key: str, step: int) -> None:
        """An image (array of shape (height, width, 3), uint8), which the UI shows with a slider over the steps."""
        self._client.log_image(self.run_id, image, key=key, step=step)

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Rows with the same keys as the JSON table `file`, which the UI shows as a table; one that is there stays."""
        # MLflow would append to it: on a continued training, the same rows once more.
        folder = file.rpartition("/")[0] or None
        if rows and file not in [found.path for found in self._client.list_artifacts(self.run_id, folder)]:
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            self._client.log_table(self.run_id, columns, file)

    def read_table(self, file: str) -> list[dict[str, Any]]:
        """The rows of the JSON table `file`, as `log_table` took them."""
        import json

        table = json.loads(self.read_text(file))
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    def read_text(self, file: str) -> str:
        """The text artifact `file`."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = self._client.download_artifacts(self.run_id, file, folder)
            return Path(path).read_text(encoding="utf-8")

    def log_text(self, text: str, file: str) -> None:
        """`text` as the artifact `file`."""
        self._client.log_text(self.run_id, text, file)

    def log_dataset(self, rows: Sequence[Mapping[str, Any]], name: str, context: str, source: str) -> str:
        """Rows as a dataset input of the run; returns the digest under which MLflow lists it."""
        import mlflow.data
        import pandas as pd
        from mlflow.entities import DatasetInput, InputTag

        dataset = mlflow.data.from_pandas(pd.DataFrame(rows), source=source, name=name)
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.run_id, [DatasetInput(dataset._to_mlflow_entity(), [tag])])
        return str(dataset.digest)


def check_store(run_id: str | None = None) -> None:
    """Raise ValueError (one line, with MLflow's own reason) where the store, or the run to go on with, cannot be used."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
        stage = client.get_run(run_id).info.lifecycle_stage if run_id else "active"
    except (MlflowException, OSError) as error:
        uri = without_credentials(mlflow.get_tracking_uri())
        raise ValueError(f"MLflow's tracking store {uri} cannot be used: {error}") from None
    if stage != "active":
        raise ValueError(f"run {run_id}, which holds this training, is deleted; restore it or choose another output_dir")


@contextmanager
def open_run(run_id: str | None = None) -> Iterator[Tracker]:
    """The run `run_id`, else the one that `mlflow run` made for this process, else a new one; ended on the way out.

    It ends FINISHED, FAILED on an exception (with the error's last line in the tag `error`), KILLED on Ctrl-C and SIGTERM.
    """
    import mlflow

    made_for_us = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        point_to(run_id)
    run = mlflow.start_run(run_id=run_id or made_for_us)
    tracker = Tracker(run.info.run_id)
    if "error" in run.data.tags:
        # It tells how an earlier start ended; this one goes on from there.
        mlflow.delete_tag("error")
    if run_id:
        tracker.recall()
    try:
        yield tracker
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt | SystemExit)
        tracker.set_tags({"error": f"{type(error).__name__}: {error}"[:500]})
        mlflow.end_run("KILLED" if killed else "FAILED")
        raise
    mlflow.end_run("FINISHED")


def stop_on_sigterm() -> None:
    """From here on SIGTERM ends this process as Ctrl-C does, so that its run ends KILLED."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, stop)


def point_to(run_id: str) -> None:
    """Let the run that `mlflow run` made for this process, if any, lead to the one that holds the training."""
    made_for_us = os.environ.get("MLFLOW_RUN_ID")
    if made_for_us and made_for_us != run_id:
        Tracker(made_for_us).set_tags({"see_run": run_id})


def without_credentials(uri: str) -> str:
    """`uri` with user name and password, if it holds any, left out."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
