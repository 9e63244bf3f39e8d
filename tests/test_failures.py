"""What a person reads of a failure while running."""

from __future__ import annotations

import errno

import pytest

from socratic_mlflow.failures import report

FULL = [
    OSError(errno.ENOSPC, "No space left on device", "out/checkpoints/x"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
]


class OutOfMemoryError(RuntimeError):
    """By the name that PyTorch's has."""


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_one_line_that_says_what_to_do(error):
    text = report(raised(error))
    assert text.startswith("error: the disk is full (")
    assert text.endswith("run the same command again, it goes on from there")
    assert "\n" not in text


def test_a_full_disk_behind_another_error_is_found():
    try:
        try:
            raise FULL[0]
        except OSError:
            raise RuntimeError("while saving") from None
    except RuntimeError as hidden:
        assert report(hidden).startswith("error: the disk is full (")
    assert "the disk is full ([Errno 28]" in report(raised(RuntimeError("while saving"), FULL[0]))


@pytest.mark.parametrize(
    "error", [MemoryError(), OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")], ids=repr
)
def test_memory_that_runs_out_is_one_line_that_names_the_fields(error):
    for text in (report(raised(error)), report(raised(RuntimeError("the training failed"), error))):
        assert text.startswith("error: out of memory (")
        assert "batch_size" in text
        assert "\n" not in text


def test_a_server_that_is_away_is_one_line():
    assert report(raised(ConnectionError("MLflow cannot be\nreached"))) == "error: MLflow cannot be reached"


def test_anything_else_is_a_traceback_without_secrets(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "s3cret-value-77")
    text = report(raised(KeyError("no s3cret-value-77 at http://ada:hunter22@host/x")))
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("KeyError: 'no *** at http://***@host/x'")
    assert "hunter22" not in text


def test_causes_that_lead_to_each_other_come_to_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert "ValueError: one" in report(one)
