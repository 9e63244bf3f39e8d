"""Workers of a sweep that are killed, interrupted, too slow, or several at once: each trial is made once, and whole."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import stores
import training
from mlflow import MlflowClient
from test_sweep import arguments

from socratic_mlflow.lock import hold
from socratic_mlflow.sweep_study import latest, open_study, seed_next_trial, to_do

# A killed worker is taken for dead at once, not after a minute.
HASTY = "import sys, socratic_mlflow.sweep_study as s; s.HEARTBEAT_S, s.GRACE_S = 1, 3\n"
HASTY += "from socratic_mlflow.cli import main; sys.exit(main(sys.argv[1:]))"
COMMAND = (sys.executable, "-c", HASTY)
# Long enough that a worker can be struck in the middle.
STEPS, EVAL_STEPS = 120, 20


@pytest.fixture
def folder(sqlite_store: str, tmp_path: Path) -> Iterator[Path]:
    """A working directory with a space; MLflow's store is in use."""
    (tmp_path / "space.yaml").write_text("learning_rate: {low: 1e-3, high: 5e-2, log: true}\n", encoding="utf-8")
    return tmp_path


def given(folder: Path, inputs: Path, n_trials: int, **changes: Any) -> list[str]:
    return [*arguments(inputs, folder / "space.yaml", n_trials, **changes), "--lora_r=4"]


def study(folder: Path, n_trials: int = 1) -> Any:
    return open_study(f"sqlite:///{folder}/out/study.db", "out", n_trials)


def runs() -> dict[str, Any]:
    """{trial: its run}, and the sweep's own under 'sweep'; without those that `mlflow run` made and that lead to it."""
    found = MlflowClient().search_runs(["0"])
    return {run.data.tags.get("trial", "sweep"): run for run in found if "see_run" not in run.data.tags}


def is_free(output: Path) -> bool:
    try:
        with hold(output):
            return True
    except ValueError:
        return False


def check_whole(folder: Path, printed: str) -> Any:
    """One trial was interrupted, and then finished in the same run, each step once; returns the sweep's run."""
    assert "trial 0 goes on: learning_rate" in printed
    assert "going on from " in (folder / "out" / "logs" / "trial-000.log").read_text(encoding="utf-8")
    found = runs()
    assert found.keys() == {"0", "sweep"}
    assert found["0"].info.status == "FINISHED"
    assert stores.logged_twice(found["0"].info.run_id) == []
    assert stores.steps(found["0"].info.run_id, "train/loss") == list(range(1, STEPS + 1))
    assert [len(latest(study(folder))), len(study(folder).trials)] == [1, 2]
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert version.run_id == found["0"].info.run_id
    return found["sweep"]


@pytest.mark.faults
def test_kill_9_leaves_a_trial_that_the_next_start_goes_on_with(folder: Path, training_inputs: Path) -> None:
    command = given(folder, training_inputs, 1, max_steps=STEPS, eval_steps=EVAL_STEPS)
    with faults.started(folder, command, command=COMMAND) as first:
        first.says(f"trial 0, step {EVAL_STEPS}:")
        os.kill(first.popen.pid, signal.SIGKILL)
        # Its training ends by itself, with a checkpoint, though nobody is left to tell it.
        faults.wait_until(lambda: is_free(folder / "out" / "trial-000"), "the training has ended")
    assert {name: run.info.status for name, run in runs().items()} == {"0": "KILLED", "sweep": "RUNNING"}
    assert faults.steps_in_journal(folder / "out" / "trial-000")[-1] < STEPS
    assert check_whole(folder, faults.finished(folder, command, command=COMMAND)).info.status == "FINISHED"


@pytest.mark.faults
def test_ctrl_c_at_mlflow_run_leaves_a_trial_that_the_same_command_goes_on_with(
    folder: Path, training_inputs: Path, repository: Path
) -> None:
    _, *fields = given(folder, training_inputs, 1, max_steps=STEPS, eval_steps=EVAL_STEPS, output_dir=folder / "out")
    options = ["-e", "sweep", *(part for field in fields for part in ("-P", field.removeprefix("--")))]
    command = [sys.executable, "-m", "mlflow", "run", str(repository), "--env-manager", "local"]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with faults.started(folder, options, command=command, **path) as first:
        first.says(f"trial 0, step {EVAL_STEPS}:")
        os.killpg(first.popen.pid, signal.SIGINT)
        assert first.end() != 0
        assert "the same command goes on" in first.printed
    assert runs()["0"].info.status == "KILLED"
    assert faults.steps_in_journal(folder / "out" / "trial-000")[-1] < STEPS
    sweep = check_whole(folder, faults.finished(folder, options, command=command, **path))
    assert sweep.info.status == "FINISHED"


def test_a_trial_of_a_worker_that_died_before_its_first_sign_of_life_is_queued_again(folder: Path) -> None:
    (folder / "out").mkdir()
    study(folder).ask()
    assert to_do(study(folder), 1) == "try"
    assert [trial.state.name for trial in study(folder).trials] == ["FAIL", "WAITING"]


def test_each_trial_draws_other_values_and_the_same_seed_the_same_ones(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name / "out").mkdir(parents=True)
        for _ in range(3):
            # Each as a start, or a worker, of its own.
            own = study(tmp_path / name)
            seed_next_trial(own, 42, 3)
            drawn.append(own.ask().suggest_float("learning_rate", 0, 1))
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3


@pytest.mark.slow
def test_two_workers_share_one_study(folder: Path, training_inputs: Path) -> None:
    command = given(folder, training_inputs, 3, max_steps=3)
    with faults.started(folder, command) as one, faults.started(folder, command) as two:
        assert (one.end(), two.end()) == (0, 0), one.printed + one.errors + two.printed + two.errors
        printed = [one.printed, two.printed]
    made = [{line.split(":")[0] for line in text.splitlines() if line.startswith("trial ")} for text in printed]
    assert made[0] | made[1] == {f"trial {number}" for number in range(3)}
    assert made[0] and made[1] and not made[0] & made[1]
    found = runs()
    assert found.keys() == {"0", "1", "2", "sweep"}
    assert len({run.data.params.get("training.learning_rate") for run in found.values()}) == 4
    parent = found.pop("sweep")
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert len(stores.table(parent.info.run_id, "trials.json")) == 3
    assert len(MlflowClient().search_model_versions(f"name='{training.MODEL}'")) == 1


@pytest.mark.slow
def test_a_trial_below_the_others_median_is_stopped_and_says_so(folder: Path, training_inputs: Path) -> None:
    import optuna

    (folder / "out").mkdir()
    # What another trial is said to have scored at its evaluations; it came to nothing in the end, so it is not the best.
    others = optuna.create_trial(
        state=optuna.trial.TrialState.COMPLETE,
        value=-1.0,
        params={"learning_rate": 1e-2},
        distributions={"learning_rate": optuna.distributions.FloatDistribution(1e-3, 5e-2, log=True)},
        intermediate_values={EVAL_STEPS: 1.0},
    )
    study(folder).add_trial(others)
    command = given(folder, training_inputs, 2, max_steps=STEPS, eval_steps=EVAL_STEPS)
    printed = faults.finished(folder, command, code=1)
    assert "none of 2 trials came to its end; what they printed is in out/logs" in printed
    assert f"trial 1 pruned at step {EVAL_STEPS}: tone " in printed
    run = runs()["1"]
    assert run.info.status == "KILLED"
    assert run.data.tags["pruned"].startswith(f"at step {EVAL_STEPS}: tone ")
    assert run.data.tags["error"] == f"pruned {run.data.tags['pruned']}"
    assert faults.steps_in_journal(folder / "out" / "trial-001")[-1] < STEPS
    assert not (folder / "out" / "trial-001" / "checkpoints").exists()


def queue_targets(folder: Path, *names: str) -> None:
    """Let the trials search for modules to train, in this order; the base has no `no_proj`."""
    (folder / "space.yaml").write_text("target_modules: {choices: [q_proj, no_proj]}\n", encoding="utf-8")
    (folder / "out").mkdir()
    for name in names:
        study(folder).enqueue_trial({"target_modules": name})


@pytest.mark.slow
def test_a_trial_that_fails_does_not_take_the_sweep_with_it(folder: Path, training_inputs: Path) -> None:
    queue_targets(folder, "q_proj", "no_proj")
    printed = faults.finished(folder, [*given(folder, training_inputs, 2), "--learning_rate=0.01"])
    assert "warning: trial 1 failed (exit code 2): socratic-mlflow: error: lora.target_modules names no_proj" in printed
    assert "best   trial 0: socratic_tone " in printed
    assert runs()["sweep"].data.metrics["search/failed"] == 1


@pytest.mark.slow
def test_where_already_the_first_trial_cannot_begin_the_sweep_stops_with_its_line(
    folder: Path, training_inputs: Path
) -> None:
    queue_targets(folder, "no_proj", "q_proj")
    printed = faults.finished(folder, [*given(folder, training_inputs, 2), "--learning_rate=0.01"], code=2)
    assert "socratic-mlflow: error: trial 0: lora.target_modules names no_proj" in printed
    assert runs()["sweep"].info.status == "FAILED"
