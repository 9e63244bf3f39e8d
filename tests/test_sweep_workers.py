"""Workers of a sweep that are killed, interrupted, too slow, or several at once: each trial is made once, and whole."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any

import faults
import postgres
import pytest
import stores
import tiny
import training
from mlflow import MlflowClient
from optuna.trial import Trial
from test_sweep import arguments

from socratic_mlflow import sweep_command, sweep_study, sweep_worker
from socratic_mlflow.journal import Journal
from socratic_mlflow.lock import hold
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.sweep_folder import tie
from socratic_mlflow.sweep_study import give_back, latest, open_study, seed_next_trial, sign_of_life, to_do
from socratic_mlflow.sweep_worker import Plan, TrialFailedError, alone

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


def study(folder: Path, n_trials: int = 1, url: str = "") -> Any:
    return open_study(url or f"sqlite:///{folder}/out/study.db", "out", n_trials)


def states(found: Any) -> list[str]:
    return [trial.state.name for trial in found.get_trials()]


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


def check_whole(folder: Path, printed: str, url: str = "") -> Any:
    """One trial was interrupted, and then finished in the same run, each step once; returns the sweep's run."""
    assert "trial 0 goes on: learning_rate" in printed
    assert "going on from " in (folder / "out" / "logs" / "trial-000.log").read_text(encoding="utf-8")
    found = runs()
    assert found.keys() == {"0", "sweep"}
    assert found["0"].info.status == "FINISHED"
    assert stores.logged_twice(found["0"].info.run_id) == []
    assert stores.steps(found["0"].info.run_id, "train/loss") == list(range(1, STEPS + 1))
    assert [len(latest(study(folder, url=url))), len(study(folder, url=url).trials)] == [1, 2]
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert version.run_id == found["0"].info.run_id
    return found["sweep"]


@pytest.fixture(params=["its own", "PostgreSQL"])
def storage(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the study's storage; '' for the one in the sweep's folder. The password is not in it."""
    if request.param == "its own":
        yield ""
        return
    pytest.importorskip("psycopg2")
    # Not below pytest's own folder, which only the user of the tests may enter: PostgreSQL runs as another one under root.
    with (
        tempfile.TemporaryDirectory(prefix="postgres-") as place,
        postgres.running(Path(place)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PGPASSWORD", server.password)
        yield f"postgresql+psycopg2://{server.user}@127.0.0.1:{server.port}/{server.database}"


@pytest.mark.faults
def test_kill_9_leaves_a_trial_that_the_next_start_goes_on_with(folder: Path, training_inputs: Path, storage: str) -> None:
    command = given(folder, training_inputs, 1, max_steps=STEPS, eval_steps=EVAL_STEPS)
    command += [f"--storage={storage}"] if storage else []
    with faults.started(folder, command, command=COMMAND) as first:
        first.says(f"trial 0, step {EVAL_STEPS}:")
        os.kill(first.popen.pid, signal.SIGKILL)
        # Its training ends by itself, with a checkpoint, though nobody is left to tell it.
        faults.wait_until(lambda: is_free(folder / "out" / "trial-000"), "the training has ended")
    assert {name: run.info.status for name, run in runs().items()} == {"0": "KILLED", "sweep": "RUNNING"}
    assert faults.steps_in_journal(folder / "out" / "trial-000")[-1] < STEPS
    assert check_whole(folder, faults.finished(folder, command, command=COMMAND), storage).info.status == "FINISHED"
    assert (folder / "out" / "study.db").exists() == (not storage)


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


def interrupt(found: Any) -> None:
    """The next trial is begun, and given back."""
    trial = found.ask()
    with sign_of_life(found, trial):
        give_back(found, trial)


def die(found: Any, database: Path) -> None:
    """The next trial is begun by a worker that then gives no sign of life for years."""
    with sign_of_life(found, found.ask()):
        pass
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00'")


def test_however_often_a_trial_is_interrupted_it_is_given_up_only_where_its_workers_die(folder: Path) -> None:
    (folder / "out").mkdir()
    found = study(folder)
    for _ in range(9):
        assert to_do(found, 1) == "try"
        interrupt(found)
    for _ in range(6):
        assert to_do(found, 1) == "try"
        die(found, folder / "out" / "study.db")
    assert to_do(found, 1) == "done"
    assert states(found) == ["FAIL"] * 15
    assert [trial.number for trial in latest(found)] == [14]


def test_a_worker_that_lives_is_not_taken_for_dead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_study, "HEARTBEAT_S", 1)
    (folder / "out").mkdir()
    found = study(folder)
    die(found, folder / "out" / "study.db")
    trial = found.get_trials()[0]
    with sign_of_life(found, Trial(found, trial._trial_id)):
        assert to_do(study(folder), 1) == "wait"
    assert states(found) == ["RUNNING"]


def test_an_interrupted_trial_is_at_no_moment_failed_and_not_queued(
    folder: Path, training_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out").mkdir()
    found, seen, other = study(folder), [], ExitStack()

    def look() -> None:
        with other:
            seen.append(to_do(study(folder), 1))

    def interrupted(*_: Any) -> float:
        # Another worker looks what there is to do just when this one is stopped.
        other.enter_context(hold(folder / "out"))
        Timer(0.5, look).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_worker, "run_trial", interrupted)
    plan = Plan(folder / "out", tiny.config(training_inputs / "base"), (), 1, "")
    with pytest.raises(KeyboardInterrupt):
        sweep_command._try(plan, found, "", None, ExitStack())
    assert seen == ["wait"]
    assert states(found) == ["FAIL", "WAITING"]


def test_a_worker_waits_for_the_sweeps_folder_however_long_another_one_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_worker, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(sweep_worker, "_SILENT_S", 0.0)
    with ExitStack() as other:
        other.enter_context(hold(tmp_path))
        Timer(0.5, other.close).start()
        with alone(tmp_path):
            pass
    assert capsys.readouterr().out.startswith(f"waiting: {tmp_path} is in use by process {os.getpid()} on ")


@pytest.mark.parametrize("ended", [False, True])
def test_a_training_that_left_no_result_is_a_failed_trial_and_named(tmp_path: Path, ended: bool) -> None:
    output = OutputDir(tmp_path)
    journal = Journal(output.journal)
    journal.open()
    journal.append({"kind": "tags", "values": {"job": "train"}})
    if ended:
        # As a disk that was damaged leaves it.
        journal.append({"kind": "register", "candidate": None})
    journal.close()
    with pytest.raises(TrialFailedError, match=f"{output.journal} does not say what the training came to"):
        sweep_worker._candidate(output)


def test_folder_and_study_are_tied_once_and_for_all(tmp_path: Path) -> None:
    url, mine, theirs = f"sqlite:///{tmp_path}/studies.db", tmp_path / "a" / "out", tmp_path / "b" / "out"
    for each in (mine, theirs):
        each.mkdir(parents=True)
    # The second time as after a kill between the two halves.
    for _ in range(2):
        tie(mine, study(tmp_path, url=url), url)
        study(tmp_path, url=url).set_user_attr("folder_id", "")
    tie(mine, study(tmp_path, url=url), url)
    with pytest.raises(ValueError, match=r"belongs to another folder of that name, or to .*b/out before it was deleted"):
        tie(theirs, study(tmp_path, url=url), url)
    (mine / "trial-000").mkdir()
    tie(mine, study(tmp_path, url=url), url)
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    with pytest.raises(
        ValueError, match=r"a/out holds a sweep whose study is not in .*elsewhere\.db as out; give the --st"
    ):
        tie(mine, study(tmp_path, url=elsewhere), elsewhere)
    (mine / "study.id").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a/out/study\.id is not UTF-8 text; restore it or choose another output_dir"):
        tie(mine, study(tmp_path, url=url), url)


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
    command = [*given(folder, training_inputs, 3, max_steps=3), f"--storage=sqlite:///{folder}/studies.db"]
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
    assert len(study(folder, url=f"sqlite:///{folder}/studies.db").trials) == 3
    assert not (folder / "out" / "study.db").exists()


@pytest.mark.slow
def test_each_trial_can_train_in_several_processes(folder: Path, training_inputs: Path) -> None:
    printed = faults.finished(folder, given(folder, training_inputs, 1, max_steps=3, num_processes=2))
    assert "best   trial 0: socratic_tone " in printed
    found = runs()
    assert found.keys() == {"0", "sweep"}
    assert found["0"].data.params["run.num_processes"] == "2"
    assert stores.steps(found["0"].info.run_id, "train/loss") == [1, 2, 3]
    assert {run.info.status for run in found.values()} == {"FINISHED"}


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
