"""One image -> an MLflow run, once: what a kill left half-written is completed, not doubled."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from socratic_mlflow.journal import Record
from socratic_mlflow.store_errors import RefusedError


def send_image(client: Any, run_id: str, record: Record, content: Callable[[], bytes], may_be_there: bool) -> None:
    """Log `content()`, a PNG file's bytes, under the record's key and step; not asked for where the run has it whole.

    RefusedError where it is no picture.
    """
    from PIL import Image

    key, step = record["key"], record["step"]
    found = client.list_artifacts(run_id, "images") if may_be_there else []
    paths = [each.path for each in found if f"{key}+step+{step}+" in each.path]
    # MLflow writes the small version last.
    if any("+compressed" in path for path in paths):
        return
    data = content()
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError) as error:
        raise RefusedError(f"its file is no picture ({type(error).__name__})") from None
    if record["kind"] == "plot":
        # The newest one as a plain file: MLflow's page of a run with many params leaves next to no room for logged images.
        client.log_image(run_id, image, f"{key}.png")
    if paths:
        _complete(client, run_id, paths[0], image)
    else:
        client.log_image(run_id, image, key=key, step=step, timestamp=record["time"])


def _complete(client: Any, run_id: str, path: str, image: Any) -> None:
    """What `log_image` had not written when the process was killed: calling it again would make a second image."""
    from mlflow.tracking.multimedia import compress_image_size

    client.log_image(run_id, image, path)
    client.log_image(run_id, compress_image_size(image), path.removesuffix(".png") + "+compressed.webp")
    client.set_tag(run_id, "mlflow.loggedImages", True)
