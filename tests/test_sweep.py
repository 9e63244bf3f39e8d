"""A sweep as a person starts it: real trainings in processes of their own, a real study, one registered model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faults
import pytest
import stores
import training
import yaml
from mlflow import MlflowClient
from PIL import Image
from training import Training

from socratic_mlflow import sweep_command, sweep_run
from socratic_mlflow.options import build_config
from socratic_mlflow.sweep_plots import pictures
from socratic_mlflow.sweep_space import read_space
from socratic_mlflow.sweep_study import open_study
from socratic_mlflow.sweep_worker import Plan

SPACE = "learning_rate: {choices: [0.05, 1e-9]}\nlora_r: {low: 2, high: 4}\n"
# The first one learns nothing, so that the other one is the best.
QUEUED = [{"learning_rate": 1e-9, "lora_r": 2}, {"learning_rate": 0.05, "lora_r": 4}]


@dataclass(frozen=True)
class Swept:
    """A finished sweep: where it ran, what it was given, what it printed."""

    folder: Path
    arguments: list[str]
    printed: str

    @property
    def output(self) -> Path:
        """Its output_dir."""
        return self.folder / "out"

    @property
    def parent(self) -> Any:
        """The sweep's run."""
        (run,) = MlflowClient().search_runs(["0"], "tags.sweep = 'true'")
        return run

    @property
    def trials(self) -> list[Any]:
        """The nested runs, in the order of their trials."""
        runs = MlflowClient().search_runs(["0"], f"tags.`mlflow.parentRunId` = '{self.parent.info.run_id}'")
        return sorted(runs, key=lambda run: int(run.data.tags["trial"]))


def arguments(inputs: Path, space: Path, n_trials: int, **changes: Any) -> list[str]:
    """The command line of a small sweep."""
    given = training.arguments(inputs, **{"metric_for_best_model": "socratic_tone"} | changes)[1:]
    searched = ("--learning_rate=", "--lora_r=")
    own = [f"--n_trials={n_trials}", f"--space={space}"]
    return ["sweep", *own, *(each for each in given if not each.startswith(searched))]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, training_inputs: Path, empty_database: Path) -> Iterator[Swept]:
    """Two trials whose values are given, in a store of their own."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "out").mkdir()
    study = open_study(f"sqlite:///{folder}/out/study.db", "out", 2)
    for values in QUEUED:
        study.enqueue_trial(values)
    given = arguments(training_inputs, folder / "space.yaml", 2)
    with stores.used(stores.make(folder, "sqlite", empty_database)), pytest.MonkeyPatch.context() as patch:
        # As `mlflow run -e sweep` starts it.
        patch.setenv("MLFLOW_RUN_ID", MlflowClient().create_run("0", tags={"made": "by mlflow run"}).info.run_id)
        code, printed = training.command(folder, given)
        os.environ.pop("MLFLOW_RUN_ID", None)
        assert code == 0, printed + "".join(log.read_text() for log in (folder / "out/logs").iterdir())
        yield Swept(folder, given, printed)


def test_each_trial_is_a_nested_run_with_all_that_a_training_logs(swept: Swept, finished_training: Training) -> None:
    assert [run.data.tags["trial"] for run in swept.trials] == ["0", "1"]
    with stores.used(finished_training.store):
        artifacts = faults.plain_artifacts(finished_training.run.info.run_id)
    for run in swept.trials:
        assert run.info.status == "FINISHED"
        assert "error" not in run.data.tags
        assert faults.plain_artifacts(run.info.run_id) == artifacts
        assert stores.steps(run.info.run_id, "train/loss") == list(range(1, training.MAX_STEPS + 1))
        assert stores.image_steps(run.info.run_id) == training.EVALUATED
        assert stores.logged_twice(run.info.run_id) == []
        assert run.data.params.keys() >= finished_training.run.data.params.keys()
    assert [run.data.params["lora.r"] for run in swept.trials] == ["2", "4"]


def test_the_best_adapter_alone_is_registered(swept: Swept) -> None:
    rows = stores.table(swept.parent.info.run_id, "trials.json")
    best = max(rows, key=lambda row: (row["socratic_tone"], -row["loss"]))
    assert best["trial"] == 1
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert version.run_id == best["run_id"] == swept.trials[best["trial"]].info.run_id
    assert version.current_stage == "Production"
    assert MlflowClient().get_model_version_by_alias(training.MODEL, "champion").version == version.version
    assert swept.parent.data.tags["registered_model"] == f"models:/{training.MODEL}/{version.version}"
    assert swept.parent.data.tags["best_run"] == best["run_id"]
    assert f"train --config runs:/{best['run_id']}/config.yaml" in swept.printed


def test_the_sweeps_run_shows_the_study(swept: Swept) -> None:
    run, run_id = swept.parent, swept.parent.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags["made"] == "by mlflow run"
    assert len(MlflowClient().search_runs(["0"])) == 3
    assert run.data.params["space.learning_rate"] == "one of 0.05, 1e-09"
    assert run.data.params["space.lora_r"] == "2 to 4"
    assert run.data.params["training.max_steps"] == str(training.MAX_STEPS)
    assert not {"lora.r", "training.learning_rate"} & run.data.params.keys()
    rows = stores.table(run_id, "trials.json")
    assert [(row["trial"], row["learning_rate"], row["lora_r"]) for row in rows] == [(0, 1e-9, 2), (1, 0.05, 4)]
    assert stores.steps(run_id, "search/best_value") == [1, 2]
    assert {row["state"] for row in rows} == {"complete"}
    for name in ("parallel_coordinate", "parameter_importance", "optimization_history"):
        with Image.open(MlflowClient().download_artifacts(run_id, f"{name}.png")) as image:
            assert image.size == (1100, 600)
            # Axes, lines and labels: more than one colour.
            assert len(image.convert("RGB").getcolors(1 << 20)) > 100
    assert f"the best so far is trial {run.data.tags['best_trial']}, " in run.data.tags["mlflow.note.content"]


def test_of_the_losers_the_adapters_stay_and_the_checkpoints_go(swept: Swept) -> None:
    best = int(swept.parent.data.tags["best_trial"])
    kept = [number for number in range(2) if (swept.output / f"trial-{number:03d}" / "checkpoints").exists()]
    assert kept == [best]
    assert (swept.output / f"trial-{best:03d}" / "best_adapter" / "adapter_model.safetensors").is_file()


def test_the_same_command_again_has_nothing_left_to_do(swept: Swept) -> None:
    before = [run.info.end_time for run in swept.trials]
    code, printed = training.command(swept.folder, swept.arguments)
    assert code == 0
    assert "2 trials so far, 2 in all" in printed
    assert [run.info.end_time for run in swept.trials] == before
    assert len(MlflowClient().search_model_versions(f"name='{training.MODEL}'")) == 1
    assert swept.parent.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--seed=7"], "was begun with training.seed=42, not 7; its trials would not compare, so choose another"),
        (["--lora_r=4"], "was begun with lora.r=search(2 to 4), not 4"),
        (["--resume=never"], "resume=never, but the study out in out has 2 trials"),
        (["--n_trials=0"], "n_trials is '0'; it takes a whole number from 1 to 999999"),
        (["--space=nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--storage=sqlite:///no/such/folder/study.db"], "the storage sqlite:///no/such/folder/study.db cannot be used"),
        (["--storage=nonsense"], "the storage nonsense cannot be used"),
        (
            ["--storage=sqlite:///other.db"],
            "output_dir out holds a sweep whose study is not in sqlite:///other.db as out; ",
        ),
        (["--output_dir=out/trial-000"], "output_dir out/trial-000 exists and holds no sweep"),
        (["--epohcs=3"], "unknown field 'epohcs'; did you mean epochs?"),
    ],
)
def test_a_mistake_is_one_line(swept: Swept, capsys: pytest.CaptureFixture[str], changes: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        training.command(swept.folder, [*swept.arguments, *changes])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert words in error


def test_without_mlflow_a_sweep_does_not_begin(swept: Swept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stores.used("http://127.0.0.1:9"), pytest.raises(SystemExit):
        training.command(tmp_path, swept.arguments)
    assert "MLflow cannot be reached (connection refused), and a sweep needs it to begin" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql://me:hidden@db/optuna", "postgresql+psycopg2://db/optuna?password=hidden"])
def test_a_password_that_mlflow_run_has_logged_is_refused(
    swept: Swept, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", swept.parent.info.run_id)
    with pytest.raises(SystemExit):
        training.command(swept.folder, [*swept.arguments, f"--storage={url}"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"a password, which mlflow run has logged as a param of run {swept.parent.info.run_id}: delete that run" in error
    assert "give it in ~/.pgpass or PGPASSWORD" in error
    assert "hidden" not in error


def test_two_folders_of_one_name_do_not_share_a_study(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    shared, other = f"sqlite:///{swept.output}/study.db", swept.folder / "elsewhere" / "out"
    for _ in range(2):
        with pytest.raises(SystemExit):
            training.command(swept.folder, [*swept.arguments, f"--output_dir={other}", f"--storage={shared}"])
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"the study out in {shared} belongs to another folder of that name, or to {other} before it was" in error
        assert f"'optuna delete-study --study-name out --storage {shared}'" in error
    assert not other.exists()


def plan_of(swept: Swept) -> Plan:
    """The plan that the sweep was made by."""
    config = build_config({}, MlflowClient().download_artifacts(swept.parent.info.run_id, "config.yaml"))
    space = read_space(str(swept.folder / "space.yaml"), "embedded")
    return Plan(swept.output, config, tuple(space), 2, f"sqlite:///{swept.output}/study.db")


@pytest.mark.parametrize("error", [KeyboardInterrupt("SIGINT"), ValueError("out is in use")])
@pytest.mark.parametrize("begun_again", [False, True], ids=["while another worker ended it", "once more"])
def test_a_worker_that_is_stopped_leaves_a_finished_sweep_finished(
    swept: Swept, error: BaseException, begun_again: bool
) -> None:
    plan = plan_of(swept)
    if begun_again:
        sweep_run.begin(plan)
        assert swept.parent.info.status == "RUNNING"
    sweep_command._end_badly(plan, open_study(plan.storage, "out", 2), error)
    assert swept.parent.info.status == "FINISHED"
    assert "error" not in swept.parent.data.tags


def test_a_study_that_optuna_cannot_draw_does_not_end_the_sweep(swept: Swept, tmp_path: Path) -> None:
    import optuna

    plan = replace(plan_of(swept), folder=tmp_path / "drawn")
    plan.folder.mkdir()
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.2):
        study.add_trial(optuna.create_trial(value=value))
    with pytest.raises(IndexError):
        pictures(study, "style")
    run_id = sweep_run.begin(plan)
    sweep_run.show(plan, study)
    assert len(stores.table(run_id, "trials.json")) == 2
    MlflowClient().delete_run(run_id)


def test_mlprojects_sweep_takes_all_that_main_takes(repository: Path) -> None:
    entry_points = yaml.safe_load((repository / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    main, sweep = (entry_points[name]["parameters"] for name in ("main", "sweep"))
    assert main.items() <= sweep.items()
