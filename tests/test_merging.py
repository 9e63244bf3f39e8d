"""The check that a merged model has to pass: it lets rounding through and nothing else."""

from __future__ import annotations

import pytest
import tiny
import torch
from adapters import changed
from transformers import AutoTokenizer

from socratic_mlflow import merging
from socratic_mlflow.merging import unquantized
from socratic_mlflow.model import load_adapter, load_base
from socratic_mlflow.tokens import ChatFormat


def test_the_check_tells_another_adapter_from_the_right_one(bases, tmp_path):
    chat = ChatFormat(AutoTokenizer.from_pretrained(bases["gemma"]))
    config = tiny.config(bases["gemma"], quantization__load_in_4bit=False)
    logits = []
    for seed in (0, 0, 1):
        adapter = changed(tmp_path / str(seed), bases["gemma"], seed=seed)
        model = load_adapter(load_base(config.model, config.quantization), str(adapter))
        logits.append(merging.logits_of(model, chat, [tiny.dialogue(0)[:2], tiny.dialogue(1)[:1]]))
    assert merging.compare(logits[1], logits[0]) == (0.0, 1.0)
    difference, same = merging.compare(logits[2], logits[0])
    assert difference > merging.TOLERANCE["bfloat16"]
    assert same < 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_base_is_merged_in_its_own_dtype(tmp_path, dtype):
    tiny.model().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    chosen = unquantized(tiny.config(tmp_path)).quantization
    assert (chosen.load_in_4bit, chosen.bnb_4bit_compute_dtype) == (False, dtype)
