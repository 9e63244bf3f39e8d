"""How a batch is cut up and laid out changes no step: packed or padded, 1 x 8 or 8 x 1, through the real Trainer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import get_peft_model_state_dict
from test_shortcuts import granite
from transformers import TrainerCallback

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.trainer import assemble, prepare

STEPS = 6


class Steps(TrainerCallback):
    """What the Trainer reports of each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.seen.append({name: logs[name] for name in ("loss", "grad_norm")})


def configuration(folder: Path, **values: Any) -> Config:
    """Four batches of 8 an epoch, the last of them smaller."""
    base = folder / "base"
    if not base.exists():
        tiny.save_base(base)
    tiny.write_dialogues(folder / "dialogues.jsonl", 36)
    (folder / "questions.txt").write_text(tiny.QUESTIONS[0], encoding="utf-8")
    always = {
        "data.path": str(folder / "dialogues.jsonl"),
        "evaluation.questions": str(folder / "questions.txt"),
        "evaluation.max_new_tokens": 2,
        "training.max_steps": STEPS,
        "training.eval_steps": STEPS,
        "training.learning_rate": 1e-2,
        "training.dataloader_num_workers": 0,
    }
    return with_values(tiny.config(base), always | {name.replace("__", "."): value for name, value in values.items()})


def trained(folder: Path, **values: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """(loss and gradient norm of each step, the adapter at the end)."""
    folder.mkdir(exist_ok=True)
    steps = Steps()
    prepared = prepare(configuration(folder, **values), OutputDir(folder / "out"))
    assemble(prepared, [steps], fresh=False, training_id="equal", flush=lambda: None).train()
    return steps.seen, get_peft_model_state_dict(prepared.model)


@cache
def reference(folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Eight padded dialogues at once."""
    return trained(folder, training__batch_size=8, training__gradient_accumulation_steps=1, training__packing=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.mark.parametrize(("at_once", "times"), [(8, 1), (1, 8), (2, 4), (3, 3)])
@pytest.mark.parametrize("packing", [True, False])
def test_every_step_is_that_of_eight_padded_dialogues_at_once(
    folder: Path, tmp_path: Path, at_once: int, times: int, packing: bool
) -> None:
    steps, adapter = trained(
        tmp_path,
        training__batch_size=at_once,
        training__gradient_accumulation_steps=times,
        training__packing=packing,
    )
    wanted, wanted_adapter = reference(folder)
    same = at_once * times == 8
    assert len(steps) == STEPS
    assert (steps == [pytest.approx(step, rel=1e-3) for step in wanted]) is same
    # AdamW's step hardly depends on a gradient's size, so rounding shows where a gradient is nearly zero.
    assert all(torch.allclose(adapter[name], weight, atol=2e-3) for name, weight in wanted_adapter.items()) is same


def test_a_base_with_a_head_of_its_own_is_trained_with_all_its_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    tiny.save_base(base)
    model = granite()
    model.resize_token_embeddings(len(tiny.tokenizer()))
    model.save_pretrained(base)
    steps, _ = trained(tmp_path, training__batch_size=8)
    assert "this base's head is not known here" in capsys.readouterr().out
    assert steps[-1]["loss"] < steps[0]["loss"]
