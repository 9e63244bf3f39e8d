"""The callback alone, in a plain `transformers.Trainer` on a tiny model: with a run open or none, on both stores."""

from __future__ import annotations

from contextlib import nullcontext

import mlflow
import pytest
import stores
import torch
from mlflow import MlflowClient
from plain_trainer import EVALUATED, EVERY_STEP, chat_format, check_artifacts, evaluator, make_trainer  # noqa: F401

from socratic_mlflow.callback import SocraticMlflowCallback
from socratic_mlflow.curves import JournalCurves
from socratic_mlflow.journal import Journal

PER_STEP = ("train/loss", "train/learning_rate", "train/grad_norm", "train/epoch", "train/tokens_per_s", "memory/rss_gib")


def history(run, metric):
    points = sorted(MlflowClient().get_metric_history(run.info.run_id, metric), key=lambda point: point.step)
    return {point.step: point.value for point in points}


@pytest.fixture(params=[True, False], ids=["run open", "no run"])
def trained(request, store, chat, tmp_path):
    """(Trainer, its run) after a training within a run that somebody else opened, or with none open."""
    callback = SocraticMlflowCallback(evaluator(chat), eval_constants={"reference_style": 0.4})
    trainer = make_trainer(chat, tmp_path / "out", callback)
    with mlflow.start_run() if request.param else nullcontext() as opened:
        trainer.train()
        active = mlflow.active_run()
        assert (active and active.info.run_id) == (opened and opened.info.run_id)
    return trainer, stores.only_run()


def test_a_training_is_in_mlflow_whole(trained):
    trainer, run = trained
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert stores.logged_twice(run_id) == []
    assert {name: stores.steps(run_id, name) for name in PER_STEP} == dict.fromkeys(PER_STEP, EVERY_STEP)
    evaluations = [name for name in run.data.metrics if name.startswith("eval/")]
    assert {name: stores.steps(run_id, name) for name in evaluations} == dict.fromkeys(evaluations, EVALUATED)
    assert {"eval/loss", "eval/socratic_style", "eval/loop_share", "eval/reference_style"} <= set(evaluations)
    assert {"eval/socratic_tone", "eval/socratic_style_low", "eval/hollow_share"} <= set(evaluations)
    assert not [name for name in run.data.metrics if "cuda" in name] or torch.cuda.is_available()
    check_values(trainer, run)
    check_artifacts(run_id)
    check_summary(trainer, run)


def check_values(trainer, run):
    logs = {entry["step"]: entry for entry in trainer.state.log_history if "loss" in entry}
    for name in ("loss", "learning_rate", "grad_norm", "epoch"):
        assert history(run, f"train/{name}") == {step: logs[step][name] for step in EVERY_STEP}
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert history(run, "eval/loss") == losses
    assert set(history(run, "eval/reference_style").values()) == {0.4}
    assert all(speed > 0 for speed in history(run, "train/tokens_per_s").values())


def check_summary(trainer, run):
    summary = {name: value for name, value in run.data.metrics.items() if name.startswith("summary/")}
    assert {name: stores.steps(run.info.run_id, name) for name in summary} == {name: [4] for name in summary}
    styles, tones = history(run, "eval/socratic_style"), history(run, "eval/socratic_tone")
    assert summary.pop("summary/duration_s") > 0
    assert 0 < summary.pop("summary/evaluation_share") < 1
    assert summary == {
        "summary/total_steps": 4,
        "summary/final_epoch": trainer.state.epoch,
        "summary/final_loss": history(run, "train/loss")[4],
        "summary/base_style": styles[0],
        "summary/best_style": max(styles[2], styles[4]),
        "summary/mean_style": (styles[2] + styles[4]) / 2,
        "summary/final_style": styles[4],
        "summary/base_tone": tones[0],
        "summary/best_tone": tones[2 if styles[2] >= styles[4] else 4],
        "summary/mean_tone": (tones[2] + tones[4]) / 2,
        "summary/final_tone": tones[4],
    }


def test_without_an_evaluator_there_are_losses_and_no_samples(sqlite_store, chat, tmp_path):
    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), eval_on_start=False).train()
    run = stores.only_run()
    assert stores.steps(run.info.run_id, "eval/loss") == [2, 4]
    assert stores.artifacts(run.info.run_id, "samples") == []
    assert {name for name in run.data.metrics if "style" in name} == set()
    assert stores.image_steps(run.info.run_id)[-1] == 4


def test_without_any_evaluation_the_picture_comes_at_the_end(sqlite_store, chat, tmp_path):
    trainer = make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), eval_strategy="no", eval_on_start=False)
    trainer.train()
    run_id = stores.only_run().info.run_id
    assert stores.image_steps(run_id) == [4]
    assert stores.steps(run_id, "train/loss") == EVERY_STEP


def test_generated_style_chooses_the_best_checkpoint(sqlite_store, chat, tmp_path):
    styles = iter([0.9, 0.1, 0.5, 0.3])

    def judge(model):
        return {"socratic_style": next(styles)}, []

    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    best_by = {"metric_for_best_model": "socratic_style", "greater_is_better": True}
    trainer = make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(judge), **options, **best_by)
    trainer.train()
    assert trainer.state.best_global_step == 4
    assert trainer.state.best_metric == 0.5
    summary = stores.only_run().data.metrics
    assert (summary["summary/base_style"], summary["summary/best_style"]) == (0.9, 0.5)
    assert summary["summary/mean_style"] == pytest.approx(0.3)


def test_a_collapse_is_noted_and_is_nobodys_best_style(sqlite_store, chat, tmp_path):
    judged = iter([(0.9, 1.0), (1.0, 0.75), (0.5, 0.5), (0.4, 0.0)])

    def judge(model):
        style, hollow = next(judged)
        return {"socratic_style": style, "hollow_share": hollow}, []

    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(judge), max_steps=6).train()
    run = stores.only_run()
    reason = "75% of the replies are empty, loops, or the same as to other questions"
    assert run.data.tags["collapsed"] == f"at steps 2; at 2: {reason}"
    assert (run.data.metrics["summary/best_style"], run.data.metrics["summary/mean_style"]) == (0.5, pytest.approx(1.9 / 3))


def test_logging_changes_nothing_in_the_training(sqlite_store, chat, tmp_path):
    weights = []
    for number in range(2):
        trainer = make_trainer(chat, tmp_path / str(number), SocraticMlflowCallback(evaluator(chat)), seed=1)
        if number:
            trainer.remove_callback(SocraticMlflowCallback)
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_each_training_of_one_callback_gets_a_run_of_its_own(sqlite_store, chat, tmp_path):
    callback = SocraticMlflowCallback()
    for number in range(2):
        make_trainer(chat, tmp_path / str(number), callback, max_steps=2).train()
    runs = MlflowClient().search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert all(stores.steps(run.info.run_id, "train/loss") == [1, 2] for run in runs)


def test_a_training_that_raised_leaves_no_run_for_the_next_one(sqlite_store, chat, tmp_path):
    callback = SocraticMlflowCallback()
    broken = make_trainer(chat, tmp_path / "0", callback)
    broken.training_step = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.train()
    make_trainer(chat, tmp_path / "1", callback, max_steps=2).train()
    assert sorted(run.info.status for run in MlflowClient().search_runs(["0"])) == ["FAILED", "FINISHED"]


def fail(*_):
    raise RuntimeError("out of memory")


def test_whatever_other_peoples_metrics_are_called_or_hold_is_no_error(sqlite_store, chat, tmp_path):
    def judge(model):
        return {"F1 (macro)": 0.5, "confusion": [[1, 2], [3, 4]]}, []

    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(judge)).train()
    metrics = stores.only_run().data.metrics
    assert metrics["eval/F1 _macro_"] == 0.5
    assert "eval/confusion" not in metrics


def test_an_evaluation_outside_of_a_training_needs_no_run(sqlite_store, chat, tmp_path):
    trainer = make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(evaluator(chat)))
    metrics = trainer.evaluate()
    assert 0 <= metrics["eval_socratic_style"] <= 1
    assert MlflowClient().search_runs(["0"]) == []


def test_logging_less_often_is_followed(sqlite_store, chat, tmp_path):
    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), logging_steps=2).train()
    run = stores.only_run()
    assert stores.steps(run.info.run_id, "train/loss") == [2, 4]
    assert stores.steps(run.info.run_id, "memory/rss_gib") == [2, 4]


def test_a_loss_that_is_no_number_any_more_is_logged_and_drawn(sqlite_store, chat, tmp_path):
    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), learning_rate=1e30, max_grad_norm=1e30).train()
    run = stores.only_run()
    assert run.info.status == "FINISHED"
    assert stores.steps(run.info.run_id, "train/loss") == EVERY_STEP
    assert 4 in stores.image_steps(run.info.run_id)


def test_the_run_that_mlflow_run_made_is_used_and_ended(sqlite_store, chat, tmp_path, monkeypatch):
    made = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), max_steps=2).train()
    assert stores.only_run().info.run_id == made
    assert stores.only_run().info.status == "FINISHED"


def test_only_evaluations_are_kept_in_memory(sqlite_store, chat, tmp_path):
    callback = SocraticMlflowCallback(evaluator(chat))
    make_trainer(chat, tmp_path / "out", callback).train()
    assert {name.partition("/")[0] for name in callback.history} == {"eval"}
    assert {len(points) for points in callback.history.values()} == {len(EVALUATED)}


def test_the_picture_of_a_training_that_goes_on_shows_all_of_it(sqlite_store, chat, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(evaluator(chat)), **saving).train()
    whole = journals(tmp_path / "out")[0]
    trainer = make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(evaluator(chat)), **saving, eval_on_start=False)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    (resumed,) = (journal for journal in journals(tmp_path / "out") if journal.folder != whole.folder)
    plot = {"key": "training_progress", "step": 4}
    expected, found = JournalCurves(whole).until(plot), JournalCurves(resumed).until(plot)
    # The Trainer's own log knows nothing of the memory.
    assert found.keys() == expected.keys()
    for name in found.keys() - {"memory/rss_gib"}:
        assert [step for step, _ in found[name]] == [step for step, _ in expected[name]]
    assert dict(found["train/loss"]) == pytest.approx(dict(expected["train/loss"]))
    assert all(stores.steps(run.info.run_id, "train/loss") in ([1, 2, 3, 4], [3, 4]) for run in runs())


def journals(folder):
    return [Journal(path) for path in folder.glob("journal-*")]


def runs():
    return MlflowClient().search_runs(["0"])
