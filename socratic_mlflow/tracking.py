"""What can be said to an MLflow run. Everything said becomes a record in a journal, which is shipped in the background."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from socratic_mlflow.journal import Journal, Record
from socratic_mlflow.plots import History
from socratic_mlflow.records import is_well_formed, training_of
from socratic_mlflow.redaction import redact, without_credentials
from socratic_mlflow.shipper import Shipper, now_ms

# What an MLflow store takes in a tag.
_LONGEST_TAG = 5000


class Tracker:
    """Writes to one MLflow run by way of the journal in `folder`; no method waits for MLflow.

    A journal that is there already is continued: its metrics are not logged again at a step up to which they stand there.
    With `new_run` all that it holds goes into a new run. `say` gets the lines that a person sees when MLflow is lost and
    found. ValueError (one line) where the journal belongs to a run in another store.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print, run_id: str = "", new_run: bool = False) -> None:
        import mlflow

        self._journal = Journal(folder)
        self._journal.open()
        self._reached, self._pictures = _standing(self._journal)
        store = absolute(without_credentials(mlflow.get_tracking_uri()))
        if new_run or not self._journal.end:
            self._journal.append(_training(run_id, store, folder.absolute().parent.name))
            self._journal.mark_delivered({})
        elif (other := store_of(folder)) != store:
            self._journal.close()
            raise ValueError(
                f"{folder} is the journal of a run in {other}, not in {store}; set MLFLOW_TRACKING_URI to the former"
            )
        self._shipper = Shipper(self._journal, store, say)

    @property
    def folder(self) -> Path:
        """The journal's folder."""
        return self._journal.folder

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty as long as MLflow was away and none could be created."""
        return self._shipper.run_id

    @property
    def is_gone(self) -> bool:
        """Whether MLflow can be reached, and no longer has the run."""
        return self._shipper.is_gone

    @property
    def trouble(self) -> str:
        """Why MLflow cannot be reached now; empty where it can."""
        return self._shipper.trouble

    def start(self, made_for_us: str = "") -> None:
        """The run is running from here on; the run `made_for_us` by `mlflow run`, where it is another, leads to it."""
        self.write({"kind": "start", "time": now_ms(), "pid": os.getpid(), "host": socket.gethostname()})
        if made_for_us:
            self.write({"kind": "pointer", "from": made_for_us})
        self._shipper.start()

    def ship(self) -> None:
        """Begin to deliver, of a run that somebody else starts and ends."""
        self._shipper.start()

    def end(
        self, status: str, tags: Mapping[str, str] | None = None, text: str = "", patience_s: float | None = None
    ) -> bool:
        """The run has ended FINISHED, FAILED or KILLED; `tags` say why, and so does `text` as the artifact error.txt.

        Returns whether MLflow has all of it; `patience_s` as `drain` takes it.
        """
        end = {"kind": "end", "time": now_ms(), "status": status}
        try:
            self.set_tags(tags or {})
            if text:
                self.log_text(text, "error.txt")
            self.write(end)
        except OSError:
            # A full disk, most likely: the run is to end all the same.
            return self._shipper.drain(patience_s) and self._shipper.deliver([_tags(tags or {}), end])
        return self.drain(patience_s)

    def end_orphan(self, who: str) -> None:
        """The run was left running by `who`, which is no more."""
        self.set_tags({"error": f"{who} was killed: it ended without a word"})
        self.write({"kind": "end", "time": now_ms(), "status": "KILLED"})

    def drain(self, patience_s: float | None = None) -> bool:
        """Deliver everything now, and wait for it; False where MLflow is away. With `patience_s` a request that hangs is
        waited for no longer, and where MLflow was away just now it is not asked once more."""
        # Where the disk is full or broken, what can still be delivered is to be.
        with contextlib.suppress(OSError):
            self._journal.flush()
        return self._shipper.drain(patience_s)

    def check(self) -> bool:
        """Whether MLflow can be reached and has the run."""
        return self._shipper.check()

    def close(self) -> None:
        """Deliver no more; the journal keeps what is left."""
        self._shipper.stop(0)
        self._journal.close()

    def flush(self) -> None:
        """Return when everything said so far is on the disk, safe from a crash of the machine."""
        self._journal.flush()

    def log_metrics(self, values: Mapping[str, float], step: int, model_id: str | None = None) -> None:
        """Each of `values` at `step`, with one time stamp; those that an earlier start logged up to that step stay.

        With `model_id` they stand on that logged model's page as well.
        """
        new = {name: float(value) for name, value in values.items() if step > self._reached.get(name, -1)}
        if new:
            extra = {"model_id": model_id} if model_id else {}
            self.write({"kind": "metrics", "time": now_ms(), "step": step, "values": new} | extra)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Params; one that the run has with another value goes into a tag `changed.NAME`, for a param cannot change."""
        self.write({"kind": "params", "values": {name: _text(value) for name, value in values.items()}})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Tags, replacing those of the same name."""
        if values:
            self.write(_tags(values))

    def log_image(self, png: bytes, key: str, step: int) -> None:
        """An image (a PNG file's bytes), which the UI shows with a slider over the steps; the first of a step stays."""
        if (key, step) not in self._pictures:
            self._pictures.add((key, step))
            self.write({"kind": "image", "time": now_ms(), "key": key, "step": step}, png, ".png")

    def log_plot(self, key: str, step: int) -> None:
        """An image of the metrics logged so far (`plots.py`), drawn when it is delivered; the first of a step stays."""
        if (key, step) not in self._pictures:
            self._pictures.add((key, step))
            self.write({"kind": "plot", "time": now_ms(), "key": key, "step": step})

    def log_earlier(self, history: History) -> None:
        """Metrics from before this journal, which its plots are to show and MLflow is not to get."""
        steps: dict[int, dict[str, float]] = {}
        for name, points in history.items():
            for step, value in points:
                steps.setdefault(step, {})[name] = value
        for step, values in sorted(steps.items()):
            self.write({"kind": "earlier", "step": step, "values": values})

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Rows with the same keys as the JSON table `file`, which the UI shows as a table."""
        if rows:
            cells = [[redact(cell) if isinstance(cell, str) else cell for cell in row.values()] for row in rows]
            text = json.dumps({"columns": list(rows[0]), "data": cells}, ensure_ascii=False)
            self.write({"kind": "table", "path": file}, text.encode("utf-8", "replace"), ".json")

    def log_text(self, text: str, file: str) -> None:
        """`text` as the artifact `file`."""
        self.write({"kind": "text", "path": file}, redact(text).encode("utf-8", "replace"), ".txt")

    def log_dataset(self, rows: Any, name: str, context: str, source: str) -> str:
        """Rows as a dataset input of the run; returns the digest under which MLflow lists it.

        `rows` are mappings with the same keys, or a `datasets.Dataset` of texts, of which a part at a time is in memory.
        """
        import mlflow.data
        import pandas as pd

        if isinstance(rows, Sequence):
            dataset = mlflow.data.from_pandas(pd.DataFrame(rows), source=redact(source), name=name)
        else:
            digest = _digest_of_texts(rows)
            dataset = mlflow.data.from_huggingface(rows, source=redact(source), name=name, digest=digest)
        entity = dataset._to_mlflow_entity()
        self.write({"kind": "dataset", "dataset": entity.to_dictionary(), "context": context})
        return str(entity.digest)

    def read_table(self, file: str) -> list[dict[str, Any]]:
        """The rows of the JSON table `file`, as `log_table` took them; ValueError where the journal has no such table."""
        found = [record for record, _ in self._journal.records() if record.get("path") == file]
        content = self._journal.content(found[-1]) if found else None
        if content is None:
            raise ValueError(f"{self._journal.file}: holds no whole table {file}")
        table = json.loads(content)
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    def write(self, record: Record, data: bytes | None = None, suffix: str = ".bin") -> None:
        """Append a record (`records.py`) as it is."""
        self._journal.append(record, data, suffix)


def _tags(values: Mapping[str, Any]) -> Record:
    return {"kind": "tags", "values": {name: _text(value)[:_LONGEST_TAG] for name, value in values.items()}}


def _digest_of_texts(rows: Any) -> str:
    """MLflow's own digest of a table of texts; it would leave out all rows behind the first 10,000, and their number."""
    import numpy as np
    import pandas as pd
    from mlflow.data.digest_utils import MAX_ROWS, get_normalized_md5_digest

    parts = rows.to_pandas(batch_size=MAX_ROWS, batched=True)
    hashes = [pd.util.hash_pandas_object(part).to_numpy() for part in parts]
    names = [name.encode() for name in rows.column_names]
    return str(get_normalized_md5_digest([*hashes, np.int64(len(rows)), *names]))


def _text(value: object) -> str:
    # A NUL is what PostgreSQL can never store, and MLflow would call its refusal an outage, again and again.
    return redact(str(value)).replace("\0", "\\x00")


def _standing(journal: Journal) -> tuple[dict[str, int], set[tuple[str, int]]]:
    """({metric: the last step at which the journal has it}, {(key, step) of each of its images and plots})."""
    reached: dict[str, int] = {}
    pictures: set[tuple[str, int]] = set()
    for record, _ in journal.records(kinds=("metrics", "image", "plot")):
        if not is_well_formed(record):
            continue
        if record["kind"] != "metrics":
            pictures.add((record["key"], record["step"]))
            continue
        for name in record["values"]:
            reached[name] = max(record["step"], reached.get(name, -1))
    return reached, pictures


def store_of(folder: Path) -> str:
    """The tracking URI, without credentials, of the run whose journal lies in `folder`; '' where it does not say."""
    return str(training_of(Journal(folder)).get("tracking_uri", ""))


def _training(run_id: str, store: str, name: str) -> Record:
    """The first record of a journal: where its run is, or where and how it is to be created."""
    from mlflow.tracking import fluent
    from mlflow.tracking.context.registry import resolve_tags

    return {
        "kind": "training",
        "id": uuid.uuid4().hex,
        "time": now_ms(),
        "tracking_uri": store,
        "run_id": run_id,
        # What a person has chosen with `mlflow.set_experiment` in this process, or else in the environment.
        "experiment_id": str(getattr(fluent, "_active_experiment_id", None) or os.environ.get("MLFLOW_EXPERIMENT_ID", "")),
        "experiment_name": os.environ.get("MLFLOW_EXPERIMENT_NAME", ""),
        # The names that MLflow makes up come from the generator that every training seeds: all would have the same.
        "tags": _tags({"mlflow.runName": name} | resolve_tags())["values"],
    }


def absolute(uri: str) -> str:
    """`uri` with a relative path in it made absolute, so that it means the same from any folder."""
    for scheme in ("sqlite:///", "file:", ""):
        if uri.startswith(scheme):
            path = uri.removeprefix(scheme)
            return uri if "://" in path or path.startswith("/") else f"{scheme}{Path(path).absolute()}"
    return uri
