"""Encoded dialogues in a file that is memory-mapped: a training has one batch of them in memory, not all."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from socratic_mlflow.dialogues import Dialogue
from socratic_mlflow.tokens import Encoded

# Tokens that are written, and mapped, as one: some hundred dialogues, half a MiB.
_BATCH = 2**16
_ROWS = 1000


def store(rows: Iterable[tuple[Dialogue, Encoded]]) -> Any:
    """A memory-mapped `datasets.Dataset` of `rows`, which are taken one after the other.

    Its columns: input_ids and labels (lists of int32, of equal length), length (their number), place, source, and messages
    (JSON). The file lies in the folder for temporary files (TMPDIR) as long as this process lives. ValueError (one line)
    where it cannot be written.
    """
    from datasets import Dataset

    try:
        file = _folder() / "dialogues.arrow"
        try:
            _write(file, rows)
        except BaseException:
            # At once: the space may be wanted.
            file.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(
            f"{tempfile.gettempdir()}: the encoded dialogues cannot be written there ({reason}); set TMPDIR to a folder "
            "with some GB of space"
        ) from None
    return Dataset.from_file(str(file))


def _folder() -> Path:
    """A new one, which is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="socratic-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _write(file: Path, rows: Iterable[tuple[Dialogue, Encoded]]) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]

    tokens = pa.list_(pa.int32())
    columns = {"input_ids": tokens, "labels": tokens, "length": pa.int32()}
    schema = pa.schema(columns | dict.fromkeys(("place", "source", "messages"), pa.string()))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in _batches(rows):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))


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
