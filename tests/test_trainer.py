"""One small training, whole: from the command line to a registered version, and what a second start does."""

from __future__ import annotations

import mlflow
import pytest
import stores
import tiny
import torch
import training
from mlflow import MlflowClient
from safetensors.torch import load_file

from socratic_mlflow.config import Config
from socratic_mlflow.dialogues import text_digest
from socratic_mlflow.evaluation import StyleEvaluator
from socratic_mlflow.lock import LOCK_FILE
from socratic_mlflow.model import resolve_dtype
from socratic_mlflow.options import as_params, build_config
from socratic_mlflow.ordered_trainer import EpochOrder
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import socratic_style, socratic_tone

EVERY_STEP = list(range(1, training.MAX_STEPS + 1))
SCORES = [f"socratic_{score}{end}" for score in ("style", "tone") for end in ("", "_low", "_high")]
QUALITY = (
    "hollow_share", "identical_share", "loop_share", "empty_share", "cut_off_share", "distinct_1", "distinct_2",
    "repetition", "reply_chars", "question_overlap", "question_overlap_chance",
)  # fmt: skip


def resolved(trained):
    given = dict(argument.removeprefix("--").split("=", 1) for argument in trained.arguments[1:])
    return resolve_dtype(build_config(given))


def test_every_step_has_its_metrics_once(trained):
    run = trained.run
    assert run.info.status == "FINISHED"
    assert stores.logged_twice(run.info.run_id) == []
    for name in ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_s"):
        assert stores.steps(run.info.run_id, f"train/{name}") == EVERY_STEP
    assert stores.steps(run.info.run_id, "memory/rss_gib") == EVERY_STEP


def test_every_evaluation_has_styles_loss_replies_and_a_picture(trained):
    run_id = trained.run.info.run_id
    for name in ("loss", "teacher_forced_style", "reference_style", "reference_tone", *SCORES, *QUALITY):
        assert stores.steps(run_id, f"eval/{name}") == training.EVALUATED
    for step in training.EVALUATED:
        rows = stores.table(run_id, f"samples/step_{step:06d}.json")
        assert [row["question"] for row in rows] == tiny.QUESTIONS[:4]
        assert all(row["socratic_style"] == round(socratic_style(row["reply"]), 4) for row in rows)
        assert all(row["socratic_tone"] == round(socratic_tone(row["reply"]), 4) for row in rows)
    assert stores.image_steps(run_id) == training.EVALUATED


def test_replies_before_and_after_stand_side_by_side(trained):
    run_id = trained.run.info.run_id
    both = stores.table(run_id, "before_and_after.json")
    first = stores.table(run_id, "samples/step_000000.json")
    assert [row["before (base)"] for row in both] == [row["reply"] for row in first]
    assert [row["tone before"] for row in both] == [row["socratic_tone"] for row in first]
    assert len(both) == 4


def test_params_are_the_whole_configuration(trained):
    params = trained.run.data.params
    expected = as_params(resolved(trained))
    assert {name: params.get(name) for name in expected} == expected
    assert params["quantization.bnb_4bit_compute_dtype"] in ("float32", "bfloat16", "float16")
    assert params["run.preset_requested"] == "embedded"


def test_params_tell_libraries_commit_and_device(trained):
    params = trained.run.data.params
    for library in ("mlflow", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets"):
        assert params[f"environment.{library}"].partition("+")[0] == version_of(library)
    assert {"environment.socratic_mlflow", "environment.device", "environment.git_commit"} <= set(params)


def version_of(library):
    from importlib.metadata import version

    return version(library).partition("+")[0]


def test_params_count_what_was_learned_from_and_what_was_not(trained):
    params = trained.run.data.params
    counts = {name: params[name] for name in params if name.startswith("data.") and "digest" not in name}
    counts = {name: value for name, value in counts.items() if name not in as_params(Config())}
    assert int(counts.pop("data.train_tokens")) > 0
    assert counts == {
        "data.train_dialogues": str(training.DIALOGUES - training.HELD_OUT),
        "data.held_out_dialogues": str(training.HELD_OUT),
        "data.held_out_not_evaluated": "0",
        "data.skipped": "3",
        "data.skipped.bad_role": "1",
        "data.skipped.duplicate": "1",
        "data.skipped.too_long": "1",
    }
    assert params["evaluation.questions_digest"] == text_digest(tiny.QUESTIONS[:4])
    assert params["evaluation.style_profile_digest"] == SOCRATIC.digest()
    assert (params["evaluation.style_profile"], params["evaluation.style_profile_name"]) == ("socratic", "socratic")
    not_used = stores.table(trained.run.info.run_id, "data_not_used.json")
    assert [row["reason"] for row in not_used] == ["bad_role", "duplicate", "too_long"]
    assert [row["place"] for row in not_used] == ["line 15", "line 16", "line 17"]


def test_config_yaml_reads_back_to_the_same_configuration(trained, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(stores.artifact_text(trained.run.info.run_id, "config.yaml"), encoding="utf-8")
    assert build_config({}, str(file)) == resolved(trained)
    assert build_config({}, str(trained.output / "config.yaml")) == resolved(trained)


def test_datasets_are_inputs_with_digests(trained):
    inputs = {each.dataset.name: each for each in trained.run.inputs.dataset_inputs}
    contexts = {name: [tag.value for tag in each.tags] for name, each in inputs.items()}
    assert contexts == {
        "dialogues_train": ["training"],
        "dialogues_held_out": ["evaluation"],
        "questions": ["evaluation"],
    }
    digests = {each.dataset.digest for each in inputs.values()}
    assert len(digests) == 3
    assert all(digests)


def test_the_description_says_what_was_trained_on_what_and_how_to_load_it(trained):
    text = trained.run.data.tags["mlflow.note.content"]
    config = resolved(trained)
    for part in (config.model.base_model, config.data.path, "11 dialogues, 3 held out", f"models:/{training.MODEL}/"):
        assert part in text


def test_the_summary_stands_once_at_the_end(trained):
    run_id, metrics = trained.run.info.run_id, trained.run.data.metrics
    names = ("duration_s", "final_loss", "best_style", "mean_style", "base_style", "total_steps", "final_epoch")
    for name in names:
        assert stores.steps(run_id, f"summary/{name}") == [training.MAX_STEPS]
    assert metrics["summary/total_steps"] == training.MAX_STEPS
    assert metrics["summary/final_epoch"] == pytest.approx(7 / 3)
    styles = [point.value for point in MlflowClient().get_metric_history(run_id, "eval/socratic_style") if point.step]
    assert metrics["summary/best_style"] == max(styles)
    assert metrics["summary/mean_style"] == pytest.approx(sum(styles) / len(styles))


def adapters(output):
    """(the best adapter by what is registered, {step: the adapter of its checkpoint})"""
    stored = mlflow.artifacts.download_artifacts(f"models:/{training.MODEL}/1")
    checkpoints = {step: output / f"checkpoints/checkpoint-{step}" for step in training.EVALUATED if step}
    weights = {step: load_file(folder / "adapter_model.safetensors") for step, folder in checkpoints.items()}
    return load_file(f"{stored}/artifacts/best_adapter/adapter_model.safetensors"), weights


def same(one, other):
    assert set(one) == set(other)
    return all(one[name].equal(other[name]) for name in one)


def test_the_registered_adapter_is_that_of_the_best_checkpoint(trained):
    version = training.version(training.MODEL, 1)
    registered, checkpoints = adapters(trained.output)
    assert same(registered, checkpoints[int(version.tags["step"])])
    assert float(version.tags["eval.socratic_style"]) == trained.run.data.metrics["summary/best_style"]
    assert version.run_id == trained.run.info.run_id
    found = {
        point.key: point.value
        for point in mlflow.get_logged_model(version.source.removeprefix("models:/")).metrics
        if "registered" in point.key
    }
    assert found == {name: value for name, value in trained.run.data.metrics.items() if "registered" in name}
    assert len(found) == 4
    assert trained.run.data.tags["registered_model"] == f"models:/{training.MODEL}/1"


def test_the_best_checkpoint_is_neither_the_base_nor_the_last(sqlite_store, tmp_path, training_inputs, monkeypatch):
    styles = iter([0.9, 0.1, 0.5, 0.3, 0.4])
    judge = StyleEvaluator.__call__

    def judge_as_told(self, model):
        metrics, rows = judge(self, model)
        return metrics | {"socratic_style": next(styles), "hollow_share": 0.0}, rows

    monkeypatch.setattr(StyleEvaluator, "__call__", judge_as_told)
    code, printed = training.command(tmp_path, training.arguments(training_inputs))
    assert code == 0
    assert "best   step 4: style 0.500" in printed
    version = training.version(training.MODEL, 1)
    assert (version.tags["step"], version.tags["eval.socratic_style"]) == ("4", "0.5")
    registered, checkpoints = adapters(tmp_path / "out")
    assert [step for step, weights in checkpoints.items() if same(registered, weights)] == [4]


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_order_of_an_epoch_follows_seed_and_epoch_alone(epoch):
    lengths = [7 * number % 50 for number in range(100)]

    def order(seed, epoch):
        sampler = EpochOrder(4, lengths, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    once = order(42, epoch)
    torch.manual_seed(123)
    assert order(42, epoch) == once
    assert order(43, epoch) != once
    assert order(42, epoch + 1) != once
    assert sorted(once) == list(range(100))


def test_a_person_sees_the_lines_that_matter(trained):
    lines = trained.printed.splitlines()
    assert len(lines) < 40
    assert [line for line in lines if "3 not used" in line and "check-data" in line]
    evaluations = [line for line in lines if "evaluation" in line and "style" in line]
    assert len(evaluations) == len(training.EVALUATED)
    assert f"models:/{training.MODEL}/Production" in lines[-1]
    assert not [line for line in lines if "Warning" in line or "Traceback" in line]


def snapshot(trained):
    client = MlflowClient()
    runs = [(run.info.run_id, run.info.end_time, run.data.metrics, run.data.tags) for run in client.search_runs(["0"])]
    # Whoever looks into the folder holds its lock for the while.
    found = (file for file in trained.folder.rglob("*") if "mlflow.db" not in file.name and file.name != LOCK_FILE)
    files = {str(file): file.stat().st_mtime_ns for file in found}
    versions = [(each.version, each.current_stage) for each in client.search_model_versions(f"name='{training.MODEL}'")]
    return runs, files, versions


def test_the_same_command_again_says_it_has_finished_and_changes_nothing(trained):
    before = snapshot(trained)
    code, printed = training.command(trained.folder, trained.arguments)
    assert code == 0
    assert f"finished already: models:/{training.MODEL}/1" in printed
    assert trained.run.info.run_id in printed
    assert snapshot(trained) == before


def test_another_configuration_in_the_same_folder_is_refused(trained, capsys):
    before = snapshot(trained)
    with pytest.raises(SystemExit) as caught:
        training.command(trained.folder, [*trained.arguments, "--learning_rate=0.01"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "training.learning_rate 0.05 -> 0.01; choose another output_dir" in error
    assert error.count("\n") == 1
    assert snapshot(trained) == before
