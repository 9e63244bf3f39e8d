"""Import the large libraries without Python's garbage collector in the way: a quarter of a start was its work."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """While it is entered, the collector waits; what there is at the end, it never looks at again.

    Importing torch, transformers and mlflow makes a million objects, and they stay as long as the process: looking
    through them finds nothing, while they are made as well as later (transformers does it before each training).
    Without effect where torch is imported already: what such a process has done before may be garbage, which is to go.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
