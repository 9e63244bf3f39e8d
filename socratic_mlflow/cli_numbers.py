"""Numbers on the command line. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A `type` for argparse: an int or a float as a person would write it, from `low` to `high`."""

    def parse(text: str) -> Any:
        try:
            # Python reads 1_000 and full-width digits as well, which a person hardly means.
            value = kind(text) if text.isascii() and "_" not in text else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"it is {text!r}; it takes {noun} from {low} to {high}")
        return value

    return parse
