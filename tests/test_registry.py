"""The best adapter as a registered version: its stage and alias, its tags, and what is stored. A real SQLite registry."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import pytest
import servers
import stores
import tiny
from mlflow import MlflowClient
from safetensors.torch import load_file

from socratic_mlflow.model import base_revision
from socratic_mlflow.promotion import Candidate, find_champion
from socratic_mlflow.registry import as_tags, is_deleted, register
from socratic_mlflow.standing import move

QUESTIONS, PROFILE = "digest of the questions", "digest of the profile"


@pytest.fixture(scope="module", autouse=True)
def registry_store(tmp_path_factory, empty_database):
    with stores.used(stores.make(tmp_path_factory.mktemp("registry"), "sqlite", empty_database)) as uri:
        yield uri


@pytest.fixture(scope="module")
def base(training_inputs):
    return training_inputs / "base"


@pytest.fixture
def submit(base, untrained_adapter, request):
    """Register a candidate of a given style under the name of the test; returns the version."""

    def submit(
        style, *, tone=0.5, hollow=0.0, promote="if_better", metric="socratic_style", questions=QUESTIONS, profile=PROFILE,
        limit=6,
        measure=no_measure, name=request.node.name,
    ):  # fmt: skip
        values = {"registry__registered_model_name": name.replace("[", "-").strip("]"), "registry__promote": promote}
        values |= {"evaluation__metric_for_best_model": metric}
        config = tiny.config(base, evaluation__max_new_tokens=6, **values)
        with mlflow.start_run() as run:
            candidate = Candidate(
                adapter=untrained_adapter,
                run_id=run.info.run_id,
                step=40,
                metrics=scores(style, tone, hollow) | {"loss": 1.25, "distinct_2": 0.75, "reply_chars": 30.0},
                base_revision=base_revision(config.model),
                data_digest="digest of the data",
                questions_digest=questions,
                profile_digest=profile,
                max_new_tokens=limit,
            )
            return register(candidate, config, measure)

    return submit


def scores(style, tone=0.5, hollow=0.0):
    """The metrics by which versions are compared."""
    return {"socratic_style": style, "socratic_tone": tone, "hollow_share": hollow}


def no_measure(uri):
    raise AssertionError(f"{uri} was measured, though its score on these questions is known")


def standing(version):
    """{version: (stage, aliases)} of all versions under the name of `version`."""
    client = MlflowClient()
    found = client.search_model_versions(f"name='{version.name}'")
    return {
        int(each.version): (each.current_stage, client.get_model_version(each.name, each.version).aliases) for each in found
    }


def test_the_first_version_is_champion_in_production(submit):
    version = submit(0.0)
    assert (version.version, version.stage, version.alias) == ("1", "Production", "champion")
    assert version.why == "there was no champion yet"
    assert standing(version) == {1: ("Production", ["champion"])}


def test_better_ones_take_over_and_worse_ones_stand_by(submit):
    assert submit(0.2).stage == "Production"
    better, worse = submit(0.3), submit(0.25)
    assert standing(worse) == {
        1: ("Archived", []),
        2: ("Production", ["champion"]),
        3: ("Staging", ["challenger"]),
    }
    assert better.why == "style 0.300 is at least the 0.200 of version 1 on the same questions"
    assert worse.why == "style 0.250 is below the 0.300 of version 2 on the same questions"


def test_an_equal_score_takes_over(submit):
    # A score that has no short decimal form: what is remembered of the champion must be all of it.
    assert submit(2 / 3).stage == "Production"
    assert submit(2 / 3).stage == "Production"


def test_the_metric_of_the_configuration_decides(submit):
    submit(0.5, tone=0.5)
    by_tone = submit(0.2, tone=0.6, metric="socratic_tone")
    assert (by_tone.stage, by_tone.why) == (
        "Production",
        "tone 0.600 is at least the 0.500 of version 1 on the same questions",
    )
    assert submit(0.1, tone=0.9, metric="socratic_style").stage == "Staging"


@pytest.mark.parametrize(
    ("promote", "stage", "alias"), [("always", "Production", "champion"), ("never", "Staging", "challenger")]
)
def test_promotion_can_be_decided_beforehand(submit, promote, stage, alias):
    first = submit(0.5, promote=promote)
    second = submit(0.5 if promote == "never" else 0.1, promote=promote)
    assert (first.stage, second.stage) == (stage, stage)
    assert standing(second)[2] == (stage, [alias])
    assert second.why == f"promote={promote}"


@pytest.mark.parametrize("other", [{"questions": "other questions"}, {"profile": "another style"}])
@pytest.mark.parametrize(("measured", "stage"), [(0.5, "Staging"), (0.2, "Production")])
def test_a_champion_judged_by_other_questions_or_another_style_is_measured_anew(submit, measured, stage, other):
    first = submit(0.1, **other)
    asked = []

    def measure(uri):
        asked.append(uri)
        return scores(measured)

    second = submit(0.3, measure=measure)
    assert asked == [f"models:/{first.name}/1"]
    assert second.stage == stage
    assert f"{measured:.3f} of version 1" in second.why


def test_a_champion_that_cannot_be_measured_stays_and_costs_no_version(submit):
    submit(0.1, questions="other questions")

    def measure(uri):
        raise OSError("its base is gone")

    second = submit(0.9, measure=measure)
    assert standing(second) == {1: ("Production", ["champion"]), 2: ("Staging", ["challenger"])}
    assert second.why == "the champion could not be measured on these questions (OSError: its base is gone)"


def test_only_what_the_registry_says_it_has_not_is_deleted(submit):
    version = submit(0.1)
    assert not is_deleted(f"models:/{version.name}/1")
    assert is_deleted(f"models:/{version.name}/2")
    assert is_deleted("models:/nobody-has-registered-this/1")


def test_a_registry_that_does_not_answer_has_deleted_nothing(registry_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with stores.used(f"http://127.0.0.1:{servers.free_port()}"):
        assert not is_deleted("models:/nobody-has-registered-this/1")


def test_a_champion_by_stage_alone_is_the_one_to_beat(submit):
    first = submit(0.4)
    MlflowClient().delete_registered_model_alias(first.name, "champion")
    assert int(find_champion(first.name).version) == 1
    assert submit(0.3).stage == "Staging"


def test_there_is_no_champion_of_an_unknown_name():
    assert find_champion("nobody-has-registered-this") is None


def test_tags_and_description_say_where_a_version_comes_from(submit, base):
    version = submit(0.4)
    stored = MlflowClient().get_model_version(version.name, "1")
    assert stored.tags == {
        "run_id": stored.run_id,
        "base_model": str(base),
        "base_revision": base_revision(tiny.config(base).model),
        "data_digest": "digest of the data",
        "questions_digest": QUESTIONS,
        "style_profile_digest": PROFILE,
        "max_new_tokens": "6",
        "step": "40",
        "eval.socratic_style": "0.4",
        "eval.socratic_tone": "0.5",
        "eval.loss": "1.25",
        "eval.hollow_share": "0.0",
        "eval.distinct_2": "0.75",
        "collapsed": "no",
        "promotion": "there was no champion yet",
    }
    for part in (stored.run_id, str(base), "step 40", "style 0.400", "tone 0.500", f"models:/{version.name}/1"):
        assert part in stored.description


def test_what_a_versions_page_says_stays_true_when_another_takes_its_place(submit):
    first, second = submit(0.4), submit(0.5)
    client = MlflowClient()
    pages = {number: client.get_model_version(first.name, number) for number in ("1", "2")}
    for number, page in pages.items():
        assert f"load_model('models:/{first.name}/{number}')" in page.description
        assert not re.search("Production|Staging|champion", page.description)
    assert pages["1"].tags["promotion"] == "version 2 has taken its place"
    assert pages["2"].tags["promotion"] == second.why
    move(first.name, "1", "Production", "rollback", "rolled back from version 2")
    assert client.get_model_version(first.name, "1").tags["promotion"] == "rolled back from version 2"
    assert client.get_model_version(first.name, "2").tags["promotion"] == "version 1 has taken its place"
    assert "registered_stage" not in as_tags(second)


def test_a_version_leads_to_its_run_and_its_scores(submit):
    version = submit(0.4)
    stored = MlflowClient().get_model_version(version.name, "1")
    model = mlflow.get_logged_model(stored.source.removeprefix("models:/"))
    assert model.source_run_id == stored.run_id
    assert model.model_id == version.model_id


def test_what_is_stored_is_safetensors_and_source_and_no_pickle(submit, untrained_adapter):
    version = submit(0.4)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/1"))
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    pickles = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".npy"}
    assert [file for file in files if Path(file).suffix in pickles] == []
    assert "artifacts/best_adapter/adapter_model.safetensors" in files
    assert [file for file in files if file.endswith("socratic_mlflow/serving.py")]
    registered = load_file(folder / "artifacts/best_adapter/adapter_model.safetensors")
    saved = load_file(untrained_adapter / "adapter_model.safetensors")
    assert all(registered[name].equal(value) for name, value in saved.items())


def test_a_version_has_a_signature_an_input_example_and_pinned_requirements(submit):
    version = submit(0.4)
    info = mlflow.models.get_model_info(f"models:/{version.name}/1")
    assert info.signature.inputs is not None
    assert info.signature.outputs is not None
    example = mlflow.pyfunc.load_model(f"models:/{version.name}/1").input_example
    assert example == [[{"role": "user", "content": "正義とは何でしょうか？"}]]
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/1"))
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "torch", "transformers", "peft", "bitsandbytes"}
    assert all("==" in line for line in requirements)
