"""A plain `transformers.Trainer` on a tiny model, for the callback alone."""

from __future__ import annotations

import pytest
import stores
import tiny
import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from socratic_mlflow.evaluation import Sampling, StyleEvaluator
from socratic_mlflow.tokens import ChatFormat

EVERY_STEP = [1, 2, 3, 4]
EVALUATED = [0, 2, 4]


@pytest.fixture(scope="module", name="chat")
def chat_format():
    return ChatFormat(tiny.tokenizer())


def make_trainer(chat, folder, callback, seed=0, **changes):
    torch.manual_seed(0)
    encoded = [chat.encode(tiny.dialogue(number)) for number in range(8)]
    rows = [{"input_ids": row.input_ids, "labels": row.labels} for row in encoded]
    arguments = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
        "save_strategy": "no",
        "warmup_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return Trainer(
        model=tiny.model(vocab_size=len(chat.tokenizer), seed=seed),
        args=TrainingArguments(str(folder), **arguments | changes),
        train_dataset=rows,
        eval_dataset=rows[:3],
        data_collator=DataCollatorForSeq2Seq(chat.tokenizer),
        callbacks=[callback],
    )


def evaluator(chat):
    return StyleEvaluator(chat, tiny.QUESTIONS[:3], Sampling(max_new_tokens=6), batch_size=2)


def check_artifacts(run_id):
    samples = [f"samples/step_{step:06d}.json" for step in EVALUATED]
    assert stores.artifacts(run_id, "samples") == samples
    for file in samples:
        rows = stores.table(run_id, file)
        assert [row["question"] for row in rows] == tiny.QUESTIONS[:3]
        assert all(isinstance(row["reply"], str) and 0 <= row["socratic_style"] <= 1 for row in rows)
    assert set(stores.image_steps(run_id)) == set(EVALUATED)
