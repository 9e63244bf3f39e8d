"""Memory as numbers with units."""

from __future__ import annotations

import multiprocessing

import numpy as np
import psutil
import pytest
import torch

from socratic_mlflow.memory import memory_metrics


def test_resident_memory_is_this_process_in_gib():
    expected = psutil.Process().memory_info().rss / 2**30
    assert memory_metrics()["rss_gib"] == pytest.approx(expected, rel=0.02)


def test_resident_memory_grows_with_what_is_held():
    before = memory_metrics()["rss_gib"]
    held = torch.ones(2**28, dtype=torch.uint8)
    assert memory_metrics()["rss_gib"] - before == pytest.approx(held.numel() / 2**30, abs=0.03)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_without_a_gpu_its_numbers_are_absent():
    assert set(memory_metrics()) == {"rss_gib"}


def test_resident_memory_is_that_of_the_process_that_asks():
    memory_metrics()
    held = np.ones(2**28, dtype=np.uint8)
    with multiprocessing.get_context("fork").Pool(1) as forked:
        own = forked.apply(memory_metrics)["rss_gib"]
    assert own == pytest.approx(memory_metrics()["rss_gib"], rel=0.9)
    assert held.all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_with_a_gpu_its_numbers_follow_what_is_allocated():
    before = memory_metrics()
    held = torch.ones(2**28, dtype=torch.uint8, device="cuda")
    values = memory_metrics()
    assert set(values) == {"rss_gib", "cuda_allocated_gib", "cuda_reserved_gib", "cuda_peak_gib"}
    grown = values["cuda_allocated_gib"] - before["cuda_allocated_gib"]
    assert grown == pytest.approx(held.numel() / 2**30, abs=0.01)
    assert values["cuda_peak_gib"] >= values["cuda_allocated_gib"]
    assert values["cuda_reserved_gib"] >= values["cuda_allocated_gib"]


def test_gpu_numbers_are_in_gib_under_names_that_say_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    allocated, reserved = {"current": 2**30, "peak": 3 * 2**30}, {"current": 2 * 2**30, "peak": 4 * 2**30}
    found = {"allocated_bytes": {"all": allocated}, "reserved_bytes": {"all": reserved}}
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda: found)
    values = memory_metrics()
    assert values.pop("rss_gib") > 0
    assert values == {"cuda_allocated_gib": 1.0, "cuda_reserved_gib": 2.0, "cuda_peak_gib": 3.0}
