"""Encoded dialogues in a file that is memory-mapped: a training has one batch of them in memory, not all."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from socratic_mlflow.dialogues import Dialogue
from socratic_mlflow.tokens import Encoded

# Tokens that are written, and mapped, as one: some hundred dialogues, half a MiB.
_BATCH = 2**16
_ROWS = 1000


def store(rows: Iterable[tuple[Dialogue, Encoded]]) -> Any:
    """A memory-mapped `datasets.Dataset` of `rows`, which are taken one after the other.

    Its columns: input_ids and labels (lists of int32, of equal length), length (their number), place, source, and messages
    (JSON). The file lies in the folder for temporary files (TMPDIR) without a name, so that the system takes its space back
    however this process ends, by kill -9 too. Processes that are forked share it; to one that is spawned, pickling carries
    all rows. ValueError (one line) where it cannot be written.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        with tempfile.TemporaryFile() as file:
            _write(file, rows)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(
            f"{tempfile.gettempdir()}: the encoded dialogues cannot be written there ({reason}); set TMPDIR to a folder "
            "with some GB of space"
        ) from None
    # 'In memory' means only that there is no path to it: nothing is copied. Without a fingerprint, datasets would make one
    # by pickling all of it.
    table = InMemoryTable(pa.ipc.open_stream(pa.py_buffer(mapped)).read_all())
    return Dataset(table, fingerprint=uuid.uuid4().hex)


def _write(file: IO[bytes], rows: Iterable[tuple[Dialogue, Encoded]]) -> None:
    import pyarrow as pa

    tokens = pa.list_(pa.int32())
    columns = {"input_ids": tokens, "labels": tokens, "length": pa.int32()}
    schema = pa.schema(columns | dict.fromkeys(("place", "source", "messages"), pa.string()))
    with pa.ipc.new_stream(file, schema) as writer:
        for batch in _batches(rows):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    file.flush()


def _batches(rows: Iterable[tuple[Dialogue, Encoded]]) -> Iterator[list[dict[str, Any]]]:
    batch, tokens = list[dict[str, Any]](), 0
    for dialogue, encoded in rows:
        batch.append(_row(dialogue, encoded))
        tokens += len(encoded.input_ids)
        if tokens >= _BATCH:
            yield batch
            batch, tokens = [], 0
    yield batch


def _row(dialogue: Dialogue, encoded: Encoded) -> dict[str, Any]:
    return {
        "input_ids": encoded.input_ids,
        "labels": encoded.labels,
        "length": len(encoded.input_ids),
        "place": dialogue.place,
        "source": dialogue.source,
        "messages": json.dumps(dialogue.messages, ensure_ascii=False),
    }


def unstored(row: Mapping[str, Any]) -> tuple[Dialogue, Encoded]:
    """What a row of `store` was made of."""
    return Dialogue(tuple(json.loads(row["messages"])), row["source"], row["place"]), Encoded(
        row["input_ids"], row["labels"]
    )


def lengths(rows: Any) -> list[int]:
    """The number of tokens of each of a Dataset's `rows`, which `store` made; no token is read for it."""
    # In batches: with all of a selection's rows at once, datasets takes a hundred bytes for each.
    return [length for batch in rows.select_columns(["length"]).iter(_ROWS) for length in batch["length"]]
