"""No collapsed version takes the place of an honest one. A real SQLite registry."""

from __future__ import annotations

import mlflow
import pytest
import tiny
import training
from replies import COLLAPSED, EMPTY, LOOPS, ONE_SENTENCE, REPLIES, SAME_OPENING, SWAPPED, WHOLLY, scores

from socratic_mlflow.model import base_revision
from socratic_mlflow.promotion import Candidate
from socratic_mlflow.registry import register


@pytest.fixture(scope="module")
def base(training_inputs):
    return training_inputs / "base"


@pytest.fixture
def submit(sqlite_store, base, untrained_adapter):
    """Register an adapter that gives these replies; returns its version."""

    def submit(replies, promote="if_better", questions="these", measure=None):
        name = {"registry__registered_model_name": "guarded", "registry__promote": promote}
        config = tiny.config(base, evaluation__max_new_tokens=6, **name)
        with mlflow.start_run() as run:
            candidate = Candidate(
                adapter=untrained_adapter,
                run_id=run.info.run_id,
                step=2,
                metrics=scores(replies) | {"loss": 1.0},
                base_revision=base_revision(config.model),
                data_digest="data",
                questions_digest=questions,
                profile_digest="profile",
                max_new_tokens=6,
            )
            return register(candidate, config, measure)

    return submit


def stands(version):
    """(stage, aliases, tag `collapsed`) as the registry has them."""
    found = training.version(version.name, version.version)
    return found.current_stage, found.aliases, found.tags["collapsed"]


@pytest.mark.parametrize("promote", ["if_better", "always"])
def test_no_collapsed_version_takes_the_place_of_an_honest_one(submit, promote):
    first = submit(REPLIES)
    for name, replies in COLLAPSED.items():
        version, share = submit(replies, promote), "90%" if name == "swapped nouns" else "100%"
        reason = WHOLLY.replace("100%", share)
        assert version.why == f"it has collapsed ({reason}) and version 1 has not"
        assert stands(version) == ("Staging", ["challenger"], reason)
    assert stands(first) == ("Production", ["champion"], "no")


def test_a_collapsed_version_displaces_no_honest_challenger_either(submit):
    submit(REPLIES)
    challenger = submit(REPLIES, "never")
    version = submit(ONE_SENTENCE)
    assert stands(challenger) == ("Staging", ["challenger"], "no")
    assert stands(version) == ("Archived", [], WHOLLY)
    assert "load_model('models:/guarded/3')" in training.version("guarded", 3).description
    assert stands(submit(REPLIES, "never"))[:2] == ("Staging", ["challenger"])


@pytest.mark.parametrize("replies", COLLAPSED.values(), ids=COLLAPSED)
def test_an_honest_version_replaces_a_collapsed_one_whatever_its_style(submit, replies):
    first, second = submit(replies), submit(SAME_OPENING)
    assert first.stage == "Production"
    assert first.why.startswith("there was no champion yet, though it has collapsed: ")
    assert second.why.startswith("version 1 has collapsed (")
    assert stands(second) == ("Production", ["champion"], "no")
    assert stands(first)[:2] == ("Archived", [])


def test_between_two_collapsed_versions_the_score_decides(submit):
    submit(LOOPS)
    lower, equal, higher = submit(SWAPPED), submit(LOOPS), submit(ONE_SENTENCE)
    assert [version.stage for version in (lower, equal, higher)] == ["Staging", "Production", "Production"]
    assert " is below the 0.850 of version 1 " in lower.why
    assert higher.why == "style 1.000 is at least the 0.850 of version 3 on the same questions"


def test_always_puts_a_collapsed_version_over_a_collapsed_one(submit):
    submit(ONE_SENTENCE)
    version = submit(EMPTY, "always")
    assert (version.stage, version.why) == ("Production", "promote=always; both it and version 1 have collapsed")


def test_never_is_never_for_a_collapsed_version_too(submit):
    version = submit(ONE_SENTENCE, "never")
    assert (version.stage, version.why) == ("Staging", "promote=never")


def test_honest_replies_that_open_alike_compete_by_score(submit):
    submit(SAME_OPENING)
    version = submit(REPLIES)
    assert version.stage == "Production"
    assert version.why.startswith("style 0.7")


def test_a_champion_judged_by_other_questions_is_measured_for_collapse_too(submit):
    submit(REPLIES, questions="others")
    version = submit(REPLIES, measure=lambda uri: scores(ONE_SENTENCE))
    assert (version.stage, version.why) == ("Production", f"version 1 has collapsed ({WHOLLY}) and it has not")
    version = submit(ONE_SENTENCE, "always", questions="yet others", measure=lambda uri: scores(REPLIES))
    assert (version.stage, version.why) == ("Staging", f"it has collapsed ({WHOLLY}) and version 2 has not")


def test_a_champion_of_an_older_release_is_measured_for_collapse(submit):
    first, asked = submit(ONE_SENTENCE), []
    mlflow.MlflowClient().delete_model_version_tag(first.name, first.version, "eval.hollow_share")

    def measure(uri):
        asked.append(uri)
        return scores(ONE_SENTENCE)

    version = submit(REPLIES, measure=measure)
    assert asked == ["models:/guarded/1"]
    assert (version.stage, version.why) == ("Production", f"version 1 has collapsed ({WHOLLY}) and it has not")


def test_a_collapsed_version_takes_no_place_of_which_nothing_is_known(submit):
    submit(REPLIES, questions="others")

    def gone(uri):
        raise OSError("its base is gone")

    version = submit(ONE_SENTENCE, "always", measure=gone)
    assert version.stage == "Staging"
    assert version.why == "the champion could not be measured on these questions (OSError: its base is gone)"
