"""A command of this process with some standard input, as behind a pipe."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from socratic_mlflow import cli


def piped(arguments: Sequence[object], text: str | bytes) -> tuple[Any, list[str], str]:
    """(exit code, lines of standard output, standard error)."""
    data = text if isinstance(text, bytes) else text.encode()
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        try:
            code: Any = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
    return code, out.getvalue().split("\n")[:-1], error.getvalue()
