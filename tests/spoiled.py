"""What the tests of folders from elsewhere share: how to spoil one, and what is expected of it then."""

from __future__ import annotations

import json
import os

import pytest

from socratic_mlflow.config import ModelConfig, QuantizationConfig
from socratic_mlflow.model import load_base, load_tokenizer

IN_FLOAT32 = QuantizationConfig(bnb_4bit_compute_dtype="float32", load_in_4bit=False)


class Trap:
    """Its pickle makes the file `marker` when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def change(file, **values):
    """Set `values` in the JSON object in `file`."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refused(act, *words):
    """The one line of the ValueError that `act` raises, which has all `words`."""
    with pytest.raises(ValueError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1500
    for word in words:
        assert word in text
    return text


def load_all(folder, **fields):
    model = ModelConfig(base_model=str(folder), **fields)
    return load_tokenizer(model), load_base(model, IN_FLOAT32)
