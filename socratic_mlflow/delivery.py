"""Journal records -> one MLflow run. A record may come twice: what the run already holds is not sent again.

Databases know a metric's row again, MLflow's file store would keep it twice, and which of the two stands behind a server
cannot be seen from here. So whenever it is uncertain what has arrived, the run is read before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from socratic_mlflow.arrived import Arrived
from socratic_mlflow.curves import JournalCurves
from socratic_mlflow.images import send_image
from socratic_mlflow.journal import Journal, Record
from socratic_mlflow.plots import draw
from socratic_mlflow.records import is_well_formed, training_of
from socratic_mlflow.store_errors import GoneError, RefusedError, one_line, store_errors

# What MLflow's stores take in one request.
_PARAMS_A_BATCH, _METRICS_A_BATCH = 100, 1000
# What they take of a param's value and of a tag's, in characters; they cut longer ones.
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000
_TABLES_TAG = "mlflow.loggedArtifacts"
# What the journal holds for this project's own use.
_NOT_SENT = ("training", "earlier", "longer", "register", "registered")
# The tag by which a run is found again whose creation was never acknowledged.
TRAINING_ID = "training_id"


class Delivery:
    """Writes records to the run that the journal's last `training` record describes, creating it where need be.

    `refused(what, why)` hears of each record that MLflow does not take; the ones after it are delivered all the same.
    """

    def __init__(self, journal: Journal, refused: Callable[[str, str], None]) -> None:
        self._journal = journal
        self._refused = refused
        run_id = journal.delivered().get("run_id")
        self.run_id = run_id if isinstance(run_id, str) else ""
        # What the run holds, where it had to be read.
        self._arrived: Arrived | None = None
        self._uncertain = True
        self._curves = JournalCurves(journal)
        # Curves -> PNG.
        self.draw = draw
        self._handlers: dict[str, Callable[[Sequence[Record]], None]] = {
            "start": self._start,
            "end": self._end,
            "pointer": self._pointer,
            "metrics": self._metrics,
            "params": self._params,
            "tags": self._tags,
            "text": self._text,
            "table": self._table,
            "image": self._image,
            "plot": self._plot,
            "dataset": self._dataset,
        }

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient()

    def deliver(self, records: Sequence[Record], inherited: bool = False) -> None:
        """Write `records` in their order; AwayError where MLflow cannot be reached, GoneError where the run is deleted.

        An earlier process may have sent `inherited` ones, and not have lived or had the space to note it.
        """
        self._uncertain = self._uncertain or inherited
        try:
            try:
                with store_errors():
                    self._find_run()
            except RefusedError as error:
                raise GoneError(str(error)) from None
            for group in _groups(records):
                self._deliver_group(group)
            self._uncertain = False
        except BaseException:
            # Part of it may have arrived.
            self._uncertain = True
            raise
        finally:
            self._arrived = None

    def _deliver_group(self, group: Sequence[Record]) -> None:
        kind = group[0]["kind"]
        if kind in _NOT_SENT:
            return
        try:
            if not all(is_well_formed(record) for record in group):
                raise RefusedError("its line in the journal is damaged")
            with store_errors():
                self._handlers[kind](group)
        except (RefusedError, GoneError) as error:
            # What is gone may be another thing than the run: a model, or the run that is to lead here.
            self.check_alive()
            if len(group) == 1:
                self._refused(_name(group[0]), str(error))
            else:
                # One of them spoils the batch.
                for record in group:
                    self._deliver_group([record])

    def check_alive(self) -> None:
        """AwayError where MLflow cannot be reached, GoneError where the run is deleted."""
        with store_errors():
            if self._client.get_run(self.run_id).info.lifecycle_stage != "active":
                raise GoneError(f"run {self.run_id} is deleted")

    def _find_run(self) -> None:
        if not self._uncertain:
            return
        training = training_of(self._journal)
        if not training:
            raise GoneError("the line of the journal that says what it is of is damaged")
        self.run_id = self.run_id or training["run_id"] or self._find_or_create(training)
        self.check_alive()

    def _find_or_create(self, training: Record) -> str:
        experiment = training["experiment_id"] or self._experiment(training["experiment_name"])
        found = self._client.search_runs([experiment], f"tags.{TRAINING_ID} = '{training['id']}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = training["tags"] | {TRAINING_ID: training["id"]}
        return str(self._client.create_run(experiment, training["time"], tags).info.run_id)

    def _experiment(self, name: str) -> str:
        if not name:
            return "0"
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _start(self, group: Sequence[Record]) -> None:
        self._forget_error()
        self._client.update_run(self.run_id, status="RUNNING")

    def _forget_error(self) -> None:
        """The tag tells how an earlier start ended, and this run has gone on from there."""
        if "error" in self._client.get_run(self.run_id).data.tags:
            self._client.delete_tag(self.run_id, "error")

    def _end(self, group: Sequence[Record]) -> None:
        if group[0]["status"] == "FINISHED":
            self._forget_error()
        self._client.set_terminated(self.run_id, group[0]["status"], group[0]["time"])

    def _pointer(self, group: Sequence[Record]) -> None:
        if group[0]["from"] != self.run_id:
            self._client.set_tag(group[0]["from"], "see_run", self.run_id)

    def _metrics(self, group: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        rows = [
            Metric(name, float(value), record["time"], record["step"], model_id=record.get("model_id"))
            for record in group
            for name, value in record["values"].items()
            if not self._is_present(name, record["step"])
        ]
        if len(group) == 1 and len(rows) > 1:
            self._rows_of_one(rows)
        else:
            self._client.log_batch(self.run_id, metrics=rows)

    def _rows_of_one(self, rows: list[Any]) -> None:
        """One record's metrics: together, and where that is refused each alone, so that one bad name costs no other."""
        for start in range(0, len(rows), _METRICS_A_BATCH):
            batch = rows[start : start + _METRICS_A_BATCH]
            try:
                with store_errors():
                    self._client.log_batch(self.run_id, metrics=batch)
            except RefusedError:
                self.check_alive()
                for row in batch:
                    self._alone(row)

    def _alone(self, row: Any) -> None:
        try:
            with store_errors():
                self._client.log_batch(self.run_id, metrics=[row])
        except RefusedError as error:
            self._refused(f"metric {row.key} at step {row.step}", str(error))

    def _is_present(self, name: str, step: int) -> bool:
        if not self._uncertain:
            return False
        self._arrived = self._arrived or Arrived(self._client, self.run_id)
        return self._arrived.has(name, step)

    def _params(self, group: Sequence[Record]) -> None:
        """Params that the run does not have yet; a param cannot change, so a changed one becomes a tag `changed.NAME`."""
        from mlflow.entities import Param

        values = {name: value[:_LONGEST_PARAM] for record in group for name, value in record["values"].items()}
        present = self._client.get_run(self.run_id).data.params
        new = [Param(name, value) for name, value in values.items() if name not in present]
        for start in range(0, len(new), _PARAMS_A_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + _PARAMS_A_BATCH])
        changed = {name: value for name, value in values.items() if present.get(name, value) != value}
        self._set_tags({f"changed.{name}": f"{present[name]} -> {value}" for name, value in changed.items()})

    def _tags(self, group: Sequence[Record]) -> None:
        self._set_tags({name: value for record in group for name, value in record["values"].items()})

    def _set_tags(self, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for name, value in values.items()]
        for start in range(0, len(tags), _PARAMS_A_BATCH):
            self._client.log_batch(self.run_id, tags=tags[start : start + _PARAMS_A_BATCH])

    def _text(self, group: Sequence[Record]) -> None:
        self._client.log_text(self.run_id, self._content(group[0]).decode("utf-8"), group[0]["path"])

    def _table(self, group: Sequence[Record]) -> None:
        """The table as MLflow's `log_table` stores it, which would append to one that is there: the same rows once more."""
        self._text(group)
        text = self._client.get_run(self.run_id).data.tags.get(_TABLES_TAG, "[]")
        table = {"path": group[0]["path"], "type": "table"}
        listed = json.dumps([*json.loads(text), table])
        # A list that is cut would list nothing: of very many tables the later ones are found by their folder only.
        if json.dumps(table) not in text and len(listed) <= _LONGEST_TAG:
            self._client.set_tag(self.run_id, _TABLES_TAG, listed)

    def _image(self, group: Sequence[Record]) -> None:
        self._send_image(group[0], lambda: self._content(group[0]))

    def _plot(self, group: Sequence[Record]) -> None:
        self._send_image(group[0], lambda: self._drawn(group[0]))

    def _send_image(self, record: Record, content: Callable[[], bytes]) -> None:
        send_image(self._client, self.run_id, record, content, may_be_there=self._uncertain)

    def _drawn(self, record: Record) -> bytes:
        curves = self._curves.until(record)
        try:
            return self.draw(curves)
        except Exception as error:
            # A matplotlib that is missing or broken is no reason to keep the rest back.
            raise RefusedError(f"it cannot be drawn: {type(error).__name__}: {one_line(error)}") from None

    def _dataset(self, group: Sequence[Record]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tag = InputTag("mlflow.data.context", group[0]["context"])
        self._client.log_inputs(self.run_id, [DatasetInput(Dataset(**group[0]["dataset"]), [tag])])

    def _content(self, record: Record) -> bytes:
        data = self._journal.content(record)
        if data is None:
            raise RefusedError("its file in the journal is missing or damaged")
        return data


def _groups(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records that go into one request, as lists; all others alone."""
    group: list[Record] = []
    for record in records:
        together = group and record["kind"] == group[0]["kind"] == "metrics" and is_well_formed(record)
        together = together and is_well_formed(group[0])
        size = sum(len(each["values"]) for each in group) + len(record["values"]) if together else 0
        if group and (not together or size > _METRICS_A_BATCH):
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _name(record: Record) -> str:
    values = record.get("values")
    names = ", ".join(map(str, values)) if isinstance(values, dict) else ""
    detail = record.get("path") or record.get("key") or names
    return f"{record['kind']} {detail}".strip()[:100]
