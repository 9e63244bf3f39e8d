"""`socratic-mlflow evaluate`: any model that can be named, logged as a run, compared on the same questions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import pytest
import stores
import tiny
import training
from mlflow import MlflowClient

from socratic_mlflow import cli
from socratic_mlflow.callback import samples_file


@pytest.fixture
def evaluate(trained, training_inputs):
    """Run the command where the small training ran; returns (exit code, printed, run ids of what it logged)."""

    def run(*arguments, questions=True):
        given = ["evaluate", *map(str, arguments)]
        if questions:
            given += ["--data", str(training_inputs / "questions.txt")]
        before = run_ids()
        code, printed = training.command(trained.folder, given)
        return code, printed, [run_id for run_id in run_ids() if run_id not in before]

    return run


def run_ids():
    found = MlflowClient().search_runs(["0"], order_by=["attributes.start_time ASC"])
    return [run.info.run_id for run in found]


def tiny_base(training_inputs):
    return ["--preset", "embedded", "--base_model", training_inputs / "base", "--max_new_tokens", "6"]


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", *map(str, arguments)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("socratic-mlflow: error: ")
    return error


def test_a_version_scores_as_in_its_training(evaluate, trained):
    champion = MlflowClient().get_model_version_by_alias(training.MODEL, "champion")
    code, printed, (run_id,) = evaluate(f"models:/{training.MODEL}@champion")
    assert code == 0
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in ("socratic_style", "socratic_tone", "hollow_share"):
        assert run.data.metrics[f"eval/{name}"] == pytest.approx(float(champion.tags[f"eval.{name}"]), abs=1e-6)
    rows = stores.table(run_id, samples_file(0))
    assert rows == stores.table(trained.run.info.run_id, samples_file(int(champion.tags["step"])))
    assert run.data.params["evaluated_model"] == f"models:/{training.MODEL}@champion"
    assert run.data.params["evaluation.questions_digest"] == champion.tags["questions_digest"]
    assert run.data.params["evaluation.style_profile_digest"] == champion.tags["style_profile_digest"]
    assert f"run {run_id}" in printed


def test_the_versions_page_shows_the_evaluation(evaluate):
    _, _, (run_id,) = evaluate(f"models:/{training.MODEL}/1")
    version = training.version(training.MODEL, 1)
    # Other tests may have evaluated it, or registered more in this store.
    tags = [value for name, value in version.tags.items() if name.startswith("evaluated.")]
    (tag,) = [value for value in tags if value.endswith(f"run {run_id}")]
    assert tag.startswith("style 0.")
    models = mlflow.search_logged_models(["0"], output_format="list")
    versions = {
        (each["name"], str(each["version"])): model
        for model in models
        for each in json.loads(model.tags.get("mlflow.modelVersions", "[]"))
    }
    logged = versions[training.MODEL, "1"]
    assert {"eval/socratic_style", "eval/distinct_2"} <= {
        metric.key for metric in logged.metrics if metric.run_id == run_id
    }


def test_an_adapter_folder_answers_as_its_version(evaluate, trained):
    _, _, (by_folder,) = evaluate(trained.output / "best_adapter")
    _, _, (by_uri,) = evaluate(f"models:/{training.MODEL}/Production")
    assert stores.table(by_folder, samples_file(0)) == stores.table(by_uri, samples_file(0))


def test_a_run_is_named_by_its_bare_id_as_well(evaluate, trained):
    run = trained.run.info.run_id
    code, _, (ours, theirs) = evaluate(run, "--against", run)
    assert code == 0
    assert stores.table(ours, samples_file(0)) == stores.table(theirs, samples_file(0))
    assert MlflowClient().get_run(ours).data.params["evaluated_model"] == f"runs:/{run}/adapter"


def test_a_moved_adapter_folder_still_names_its_base(evaluate, trained, training_inputs, tmp_path):
    shutil.copytree(trained.output / "best_adapter", tmp_path / "moved")
    _, _, (moved,) = evaluate(tmp_path / "moved", "--max_new_tokens", 6, "--preset", "embedded")
    _, _, (own,) = evaluate(trained.output / "best_adapter")
    assert stores.table(moved, samples_file(0)) == stores.table(own, samples_file(0))


def test_the_base_scores_as_at_step_zero(evaluate, trained, training_inputs):
    code, _, (run_id,) = evaluate("base", *tiny_base(training_inputs))
    assert code == 0
    assert stores.table(run_id, samples_file(0)) == stores.table(trained.run.info.run_id, samples_file(0))
    assert "evaluated_version" not in MlflowClient().get_run(run_id).data.tags


def test_two_models_are_compared_question_by_question(evaluate, training_inputs):
    code, printed, (ours, theirs) = evaluate(
        f"models:/{training.MODEL}/1", "--against", "base", *tiny_base(training_inputs)
    )
    assert code == 0
    run, other = (MlflowClient().get_run(run_id).data for run_id in (ours, theirs))
    for name in ("socratic_style", "socratic_tone"):
        difference = run.metrics[f"compare/{name}_difference"]
        assert difference == pytest.approx(run.metrics[f"eval/{name}"] - other.metrics[f"eval/{name}"], abs=1e-4)
        assert run.metrics[f"compare/{name}_difference_low"] <= difference + 1e-9
        assert difference <= run.metrics[f"compare/{name}_difference_high"] + 1e-9
    assert "style: too few questions to tell" in run.tags["comparison"]
    assert "tone: too few questions to tell" in printed
    rows = stores.table(ours, "comparison.json")
    assert [row["question"] for row in rows] == tiny.QUESTIONS[:4]
    assert {"base", f"models:/{training.MODEL}/1", "style difference", "tone difference"} <= set(rows[0])


def test_a_model_against_itself_shows_no_difference(evaluate):
    _, printed, _ = evaluate(f"models:/{training.MODEL}/1", "--against", f"models:/{training.MODEL}@champion")
    assert "style: too few questions to tell (+0.000, 95% interval +0.000 to +0.000)" in printed


def test_questions_come_from_dialogues_too(evaluate, training_inputs):
    code, _, (run_id,) = evaluate(
        "base", *tiny_base(training_inputs), "--data", training_inputs / "dialogues.jsonl", "--max_samples", 5,
        questions=False,
    )  # fmt: skip
    assert code == 0
    asked = [row["question"] for row in stores.table(run_id, samples_file(0))]
    assert len(asked) == 5
    assert set(asked) <= {tiny.dialogue(number)[0]["content"] for number in range(training.DIALOGUES)}


def test_another_style_profile_gives_other_scores(evaluate, training_inputs):
    _, _, (run_id,) = evaluate(f"models:/{training.MODEL}/1", "--style_profile", "gozaru")
    data = MlflowClient().get_run(run_id).data
    assert data.params["evaluation.style_profile_name"] == "gozaru"
    assert data.tags["style_profile"] == "gozaru"


def test_a_version_is_scored_by_the_style_that_it_was_chosen_by(evaluate, trained, training_inputs, tmp_path):
    given = training.arguments(training_inputs, "gozaru", style_profile="gozaru", registered_model_name="tiny-samurai")
    assert training.command(trained.folder, [*given, "--max_steps=2"])[0] == 0
    _, printed, (run_id,) = evaluate("models:/tiny-samurai/1")
    version = training.version("tiny-samurai", 1)
    data = MlflowClient().get_run(run_id).data
    assert data.params["evaluation.style_profile_digest"] == version.tags["style_profile_digest"]
    assert data.metrics["eval/socratic_tone"] == pytest.approx(float(version.tags["eval.socratic_tone"]), abs=1e-6)
    assert "style gozaru" in printed


def test_the_params_tell_what_was_really_asked(evaluate, trained, tmp_path):
    (tmp_path / "q.txt").write_text("徳とは？\n徳とは？\n勇気とは？\n", encoding="utf-8")
    _, _, (run_id,) = evaluate(trained.output / "best_adapter", "--data", tmp_path / "q.txt", questions=False)
    params = MlflowClient().get_run(run_id).data.params
    assert params["evaluation.questions"] == str(tmp_path / "q.txt")
    assert (params["evaluation.max_samples"], params["evaluation.questions_asked"]) == ("2", "2")


def test_the_other_model_is_asked_under_the_limit_of_the_first(evaluate):
    one = f"models:/{training.MODEL}/1"
    _, _, (first, second) = evaluate(one, "--against", "base")
    params = [MlflowClient().get_run(run_id).data.params for run_id in (first, second)]
    for name in ("evaluation.max_new_tokens", "model.base_model", "evaluation.questions_digest"):
        assert params[0][name] == params[1][name]
    assert params[0]["evaluation.max_new_tokens"] == "6"


def test_sigterm_ends_the_run_killed_and_it_says_what_it_was(trained, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"問い{n}とは？" for n in range(3000)), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "socratic_mlflow",
        "evaluate",
        f"models:/{training.MODEL}/1",
        "--max_new_tokens",
        "400",
    ]
    command += ["--data", str(tmp_path / "many.txt"), "--max_samples", "3000"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": trained.store}
    before = run_ids()
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        for _ in range(600):
            new = [run_id for run_id in run_ids() if run_id not in before]
            if new and "evaluated_version" in MlflowClient().get_run(new[0]).data.tags:
                break
            time.sleep(0.1)
        started.send_signal(signal.SIGTERM)
        _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert b"Traceback" not in errors
    run = MlflowClient().get_run(new[0])
    assert run.info.status == "KILLED"
    assert run.data.params["evaluated_model"] == f"models:/{training.MODEL}/1"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/nobody/1", "is not in the registry"),
        (f"models:/{training.MODEL}/99", "is not in the registry"),
        (f"models:/{training.MODEL}@nobody", "is not in the registry"),
        ("models:/", "names no model"),
        ("models:/a/b/c", "names no model"),
        ("runs:/x", "names no model"),
        ("runs:/no/adapter", "cannot be loaded"),
        ("no-such-folder", "no adapter folder"),
        (".", "no adapter folder"),
    ],
)
def test_what_names_no_model_is_one_line(trained, capsys, model, message):
    before = run_ids()
    assert message in refused(capsys, model)
    assert run_ids() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/nowhere.txt"], "/nowhere.txt: no such file"),
        (["--data", "heldout"], "belong to a training"),
        (["--against", "nowhere"], "nowhere: no adapter folder"),
        (["--epochs", "3"], "epochs is a field of trainings"),
        (["--max_new_tokens", "0"], "allowed: at least 1"),
        (["--style_profile", "nowhere.yaml"], "style_profile nowhere.yaml: cannot be read"),
        (["--styl_profile", "x"], "did you mean style_profile"),
        (["surplus"], "unexpected argument 'surplus'"),
        (["--base_model", "embedded"], "model.base_model has no effect here"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_loaded(trained, capsys, arguments, message):
    before = run_ids()
    assert message in refused(capsys, f"models:/{training.MODEL}/1", *arguments)
    assert run_ids() == before


def test_an_adapter_of_another_base_is_one_line(trained, bases, tmp_path, capsys):
    shutil.copytree(trained.output / "best_adapter", tmp_path / "adapter")
    error = refused(capsys, tmp_path / "adapter", "--preset", "embedded", "--base_model", bases["llama"])
    assert "does not fit the base" in error


def test_a_folder_whose_configuration_is_garbage_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("[1, 2", encoding="utf-8")
    assert "adapter_config.json: cannot be read as JSON" in refused(capsys, tmp_path)
