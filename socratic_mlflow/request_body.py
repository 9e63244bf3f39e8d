"""The bytes of a request -> a JSON object, within bounds. Standard library only."""

from __future__ import annotations

import json
from typing import Any

from socratic_mlflow.conversations import BadRequestError

MOST_BYTES = 4 * 1024**2


def read_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in `body`; BadRequestError (one line) where it is too large, no JSON, or no object."""
    if len(body) > MOST_BYTES:
        raise BadRequestError(too_large())
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        # Also for numbers of thousands of digits, brackets without end, and bytes that are no UTF-8.
        raise BadRequestError("the request's body is not valid JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise BadRequestError(f"the request's body is a JSON object; got a {type(found).__name__}")
    return found


def too_large() -> str:
    """Why a longer body is not read."""
    return f"the request is larger than {MOST_BYTES // 1024**2} MiB"
