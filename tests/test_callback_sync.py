"""A plain Trainer with the callback whose process or server fails: `sync` brings the rest, and leaves the living alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import flaky
import mlflow
import pytest
import stores
from mlflow import MlflowClient
from plain_trainer import EVERY_STEP, chat_format, check_artifacts, evaluator, make_trainer  # noqa: F401
from transformers import TrainerCallback

from socratic_mlflow import cli
from socratic_mlflow.callback import SocraticMlflowCallback


@pytest.mark.parametrize("open_run", [True, False], ids=["run open", "no run"])
def test_what_mlflow_missed_is_delivered_by_sync(sqlite_store, chat, tmp_path, capsys, open_run):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        with mlflow.start_run() if open_run else nullcontext():
            server.becomes(flaky.DROP)
            make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(evaluator(chat))).train()
            server.becomes(flaky.PASS)
        assert f"'socratic-mlflow sync {tmp_path / 'out'}' delivers it" in capsys.readouterr().out
        assert MlflowClient().search_runs(["0"], "metrics.`train/loss` > 0") == []
        for _ in range(2):
            assert cli.main(["sync", str(tmp_path / "out")]) == 0
            assert "MLflow has everything of" in capsys.readouterr().out
            run = stores.only_run()
            assert (run.info.status, stores.logged_twice(run.info.run_id)) == ("FINISHED", [])
            assert stores.steps(run.info.run_id, "train/loss") == EVERY_STEP
            check_artifacts(run.info.run_id)


def test_sync_without_mlflow_says_so_and_keeps_everything(sqlite_store, chat, tmp_path, capsys):
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(flaky.DROP)
        make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), max_steps=2).train()
        (journal,) = (tmp_path / "out").glob("journal-*")
        before = (journal / "records.jsonl").read_bytes()
        assert cli.main(["sync", str(tmp_path / "out")]) == 1
        assert (journal / "records.jsonl").read_bytes() == before
        server.becomes(flaky.PASS)
        assert MlflowClient().search_runs(["0"]) == []


IN_ANYBODYS_TRAINER = """
import sys
sys.path.insert(0, sys.argv[2])
import plain_trainer
import tiny
from socratic_mlflow.callback import SocraticMlflowCallback
chat = plain_trainer.ChatFormat(tiny.tokenizer())
trainer = plain_trainer.make_trainer(chat, sys.argv[1], SocraticMlflowCallback(), max_steps=3)
step = trainer.training_step
def training_step(*given):
    if trainer.state.global_step == 2:
        {at_step_2}
    return step(*given)
trainer.training_step = training_step
trainer.train()
"""


def start(tmp_path, at_step_2):
    program = IN_ANYBODYS_TRAINER.replace("{at_step_2}", at_step_2)
    given = [sys.executable, "-c", program, str(tmp_path / "out"), str(Path(__file__).parent)]
    return subprocess.run(given, capture_output=True, text=True)


def test_a_trainer_that_raises_leaves_a_failed_run_when_its_process_ends(store, tmp_path):
    done = start(tmp_path, "raise RuntimeError('out of memory')")
    assert done.returncode == 1
    assert "RuntimeError: out of memory" in done.stderr
    run = stores.only_run()
    assert run.info.status == "FAILED"
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]


def test_a_process_that_is_killed_is_found_by_sync(store, tmp_path, capsys):
    done = start(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert cli.main(["sync", str(tmp_path / "out")]) == 0
    run = stores.only_run()
    assert run.info.status == "KILLED"
    assert "was killed" in run.data.tags["error"]
    assert stores.steps(run.info.run_id, "train/loss") == [1, 2]
    assert stores.image_steps(run.info.run_id) == [0, 2]


def test_sync_leaves_a_training_alone_that_is_still_under_way(sqlite_store, chat, tmp_path):
    class Sync(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            given = [sys.executable, "-m", "socratic_mlflow", "sync", str(tmp_path / "out")]
            codes.append(subprocess.run(given, capture_output=True).returncode)

    codes = []
    trainer = make_trainer(chat, tmp_path / "out", SocraticMlflowCallback(), max_steps=1, eval_on_start=False)
    trainer.add_callback(Sync())
    trainer.train()
    run = stores.only_run()
    assert codes == [2]
    assert (run.info.status, run.data.tags.get("error")) == ("FINISHED", None)
