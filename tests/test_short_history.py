"""The Trainer's own log stays as short as there are evaluations, and nothing that is read from it is lost."""

from __future__ import annotations

import json

import stores
from plain_trainer import chat_format, evaluator, make_trainer  # noqa: F401
from transformers import TrainerCallback, TrainerControl, TrainerState

from socratic_mlflow.callback import SocraticMlflowCallback
from socratic_mlflow.selection import best_step, evaluations
from socratic_mlflow.short_history import ShortHistory


def train(chat, folder, *callbacks, resume=None, **changes):
    trainer = make_trainer(chat, folder, SocraticMlflowCallback(evaluator(chat)), max_steps=12, eval_steps=4, **changes)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.state


def steps(history):
    return [entry["step"] for entry in history if "loss" in entry]


def test_of_the_steps_the_last_one_before_each_evaluation_stays(sqlite_store, chat, tmp_path):
    state = train(chat, tmp_path / "short", ShortHistory())
    whole = train(chat, tmp_path / "whole")
    assert steps(whole.log_history) == list(range(1, 13))
    assert steps(state.log_history) == [4, 8, 12]
    judged, expected = evaluations(state.log_history), evaluations(whole.log_history)
    assert list(judged) == list(expected) == [0, 4, 8, 12]
    assert [each["eval_socratic_style"] for each in judged.values()] == [
        each["eval_socratic_style"] for each in expected.values()
    ]
    assert best_step(state.log_history, "socratic_style") == best_step(whole.log_history, "socratic_style")


def test_what_mlflow_gets_is_the_same(sqlite_store, chat, tmp_path):
    train(chat, tmp_path / "short", ShortHistory())
    run = stores.only_run()
    assert stores.steps(run.info.run_id, "train/loss") == list(range(1, 13))
    points = run.data.metrics
    assert points["summary/final_loss"] == points["train/loss"]


def test_a_checkpoint_holds_the_short_log_and_a_training_goes_on_from_it(sqlite_store, chat, tmp_path):
    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = True

    saving = {"save_strategy": "steps", "save_steps": 6}
    train(chat, tmp_path / "out", ShortHistory(), Stop(), **saving)
    checkpoint = tmp_path / "out" / "checkpoint-6"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())
    assert steps(saved["log_history"]) == [4, 6]
    state = train(chat, tmp_path / "out", ShortHistory(), resume=str(checkpoint), eval_on_start=False, **saving)
    assert steps(state.log_history) == [4, 8, 12]
    assert list(evaluations(state.log_history)) == [0, 4, 8, 12]


def test_the_long_log_of_an_earlier_version_is_shortened():
    losses = [{"loss": 1.0, "step": step} for step in range(1, 9)]
    judged = [{"eval_loss": 1.0, "step": 4}, {"eval_socratic_style": 0.5, "step": 4}]
    state = TrainerState(log_history=[{"eval_loss": 2.0, "step": 0}, *losses[:4], *judged, *losses[4:]])
    kept = state.log_history
    ShortHistory().on_train_begin(None, state, TrainerControl())
    assert state.log_history is kept
    assert [entry["step"] for entry in kept] == [0, 4, 4, 4, 8]
    ShortHistory().on_train_begin(None, state, TrainerControl())
    assert len(kept) == 5


def test_an_empty_log_is_left_alone():
    state = TrainerState()
    ShortHistory().on_train_begin(None, state, TrainerControl())
    ShortHistory().on_log(None, state, TrainerControl())
    assert state.log_history == []
