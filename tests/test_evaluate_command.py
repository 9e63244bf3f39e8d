"""`socratic-mlflow evaluate`: any model that can be named, logged as a run, compared on the same questions."""

from __future__ import annotations

import json
import shutil

import mlflow
import pytest
import tiny
import training
from mlflow import MlflowClient

from socratic_mlflow import cli
from socratic_mlflow.bootstrap import Interval
from socratic_mlflow.callback import samples_file
from socratic_mlflow.evaluate_command import Evaluated, compare, verdict
from socratic_mlflow.tracking import Tracker


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
    rows = Tracker(run_id).read_table(samples_file(0))
    assert rows == Tracker(trained.run.info.run_id).read_table(samples_file(int(champion.tags["step"])))
    assert run.data.params["evaluated_model"] == f"models:/{training.MODEL}@champion"
    assert run.data.params["evaluation.questions_digest"] == champion.tags["questions_digest"]
    assert run.data.params["evaluation.style_profile_digest"] == champion.tags["style_profile_digest"]
    assert f"run {run_id}" in printed


def test_the_versions_page_shows_the_evaluation(evaluate):
    _, _, (run_id,) = evaluate(f"models:/{training.MODEL}/1")
    version = training.version(training.MODEL, 1)
    (tag,) = [value for name, value in version.tags.items() if name.startswith("evaluated.")]
    assert tag.endswith(f"run {run_id}")
    assert tag.startswith("style 0.")
    (logged,) = mlflow.search_logged_models(["0"], output_format="list")
    assert {"eval/socratic_style", "eval/distinct_2"} <= {
        metric.key for metric in logged.metrics if metric.run_id == run_id
    }
    registered = json.loads(logged.tags["mlflow.modelVersions"])
    assert [(each["name"], str(each["version"])) for each in registered] == [(training.MODEL, "1")]


def test_an_adapter_folder_answers_as_its_version(evaluate, trained):
    _, _, (by_folder,) = evaluate(trained.output / "best_adapter")
    _, _, (by_uri,) = evaluate(f"models:/{training.MODEL}/Production")
    assert Tracker(by_folder).read_table(samples_file(0)) == Tracker(by_uri).read_table(samples_file(0))


def test_a_moved_adapter_folder_still_names_its_base(evaluate, trained, training_inputs, tmp_path):
    shutil.copytree(trained.output / "best_adapter", tmp_path / "moved")
    _, _, (moved,) = evaluate(tmp_path / "moved", "--max_new_tokens", 6, "--preset", "embedded")
    _, _, (own,) = evaluate(trained.output / "best_adapter")
    assert Tracker(moved).read_table(samples_file(0)) == Tracker(own).read_table(samples_file(0))


def test_the_base_scores_as_at_step_zero(evaluate, trained, training_inputs):
    code, _, (run_id,) = evaluate("base", *tiny_base(training_inputs))
    assert code == 0
    assert Tracker(run_id).read_table(samples_file(0)) == Tracker(trained.run.info.run_id).read_table(samples_file(0))
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
    style, tone = run.tags["comparison"].split("; tone:")
    assert f"  {style}\n" in printed
    assert f"  tone:{tone}\n" in printed
    assert "no real difference" in style or "the difference is real" in style
    rows = Tracker(ours).read_table("comparison.json")
    assert [row["question"] for row in rows] == tiny.QUESTIONS[:4]
    assert {"base", f"models:/{training.MODEL}/1", "style difference", "tone difference"} <= set(rows[0])


def test_a_model_against_itself_shows_no_difference(evaluate):
    _, printed, _ = evaluate(f"models:/{training.MODEL}/1", "--against", f"models:/{training.MODEL}@champion")
    assert "style: no real difference (+0.000, 95% interval +0.000 to +0.000)" in printed


def test_questions_come_from_dialogues_too(evaluate, training_inputs):
    code, _, (run_id,) = evaluate(
        "base", *tiny_base(training_inputs), "--data", training_inputs / "dialogues.jsonl", "--max_samples", 5,
        questions=False,
    )  # fmt: skip
    assert code == 0
    asked = [row["question"] for row in Tracker(run_id).read_table(samples_file(0))]
    assert len(asked) == 5
    assert set(asked) <= {tiny.dialogue(number)[0]["content"] for number in range(training.DIALOGUES)}


def test_another_style_profile_gives_other_scores(evaluate, training_inputs):
    _, _, (run_id,) = evaluate(f"models:/{training.MODEL}/1", "--style_profile", "gozaru", *tiny_base(training_inputs)[4:])
    data = MlflowClient().get_run(run_id).data
    assert data.params["evaluation.style_profile_name"] == "gozaru"
    assert data.tags["style_profile"] == "gozaru"


def judged(name, styles):
    rows = [{"socratic_style": style, "socratic_tone": 0.5} for style in styles]
    return Evaluated(name, None, {}, rows, "run")


def test_a_clear_difference_is_called_real():
    good, bad = judged("good", [0.6, 0.7, 0.5, 0.8] * 10), judged("bad", [0.1, 0.2, 0.1, 0.3] * 10)
    found = compare(good, bad)
    assert "style: good is better, and the difference is real (+0.475" in verdict(
        "socratic_style", good, bad, found["socratic_style"]
    )
    assert "style: good is better" in verdict("socratic_style", bad, good, compare(bad, good)["socratic_style"])
    assert "no real difference" in verdict("socratic_tone", good, bad, found["socratic_tone"])


def test_a_difference_that_few_questions_carry_is_not_called_real():
    ours, theirs = judged("a", [1.0, 0.0, 0.5, 0.3]), judged("b", [0.0, 0.9, 0.5, 0.3])
    assert "no real difference" in verdict("socratic_style", ours, theirs, compare(ours, theirs)["socratic_style"])


def test_an_interval_that_touches_zero_is_not_real():
    assert not Interval(0.1, 0.0, 0.2).excludes_zero
    assert Interval(-0.1, -0.2, -0.01).excludes_zero


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
    assert "is not the configuration of a LoRA adapter" in refused(capsys, tmp_path)
