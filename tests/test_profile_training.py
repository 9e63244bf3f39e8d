"""A training under another speaking style, from the command line to scores, params, artifact and version."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import stores
import tiny
import training
from mlflow import MlflowClient
from transformers import EvalPrediction

from socratic_mlflow import evaluation, publishing
from socratic_mlflow.evaluation import Reply, judge
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style_profile import parse_profile, read_profile
from socratic_mlflow.tokens import ChatFormat
from socratic_mlflow.trainer import teacher_forced_style

SAID = [
    "拙者は知らぬ。されど、お主は友を信じるのでござるな。",
    "では、君はそれを勇気と呼ぶのかね？",
    "かたじけない。左様でござる。",
    "それは大変でしたね。",
]
OWN = """name: shouting
what: ends loudly
style:
- {name: loud, weight: 0.5, contains: [君]}
tone:
- {name: soft, weight: 1.0, ends: [ね]}
"""


@pytest.fixture
def say(monkeypatch):
    """Let every evaluation find SAID in place of what the model generates."""
    generate = evaluation.generate

    def say(model, chat, conversations, *arguments):
        if len(conversations) != len(SAID):
            return generate(model, chat, conversations, *arguments)
        return [Reply(text, len(text), False) for text in SAID]

    monkeypatch.setattr(evaluation, "generate", say)


def short(inputs, profile, **changes):
    return training.arguments(inputs, max_steps=2, style_profile=profile, **changes)


def judged(profile):
    return judge(tiny.QUESTIONS[: len(SAID)], [Reply(text, len(text), False) for text in SAID], profile)[0]


def refused(capsys, folder, given):
    """The one line with which a command ends before it has begun."""
    with pytest.raises(SystemExit) as caught:
        training.command(folder, given)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("socratic-mlflow: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def own(tmp_path):
    """A profile file of somebody's own."""
    file = tmp_path / "own.yaml"
    file.write_text(OWN, encoding="utf-8")
    return file


@pytest.mark.parametrize("shipped", [True, False], ids=["gozaru", "a file"])
def test_a_training_is_judged_under_its_profile(sqlite_store, tmp_path, training_inputs, own, say, shipped):
    given = "gozaru" if shipped else str(own)
    code, printed = training.command(tmp_path, short(training_inputs, given))
    profile, run = read_profile(given), stores.only_run()
    assert code == 0
    assert [line for line in printed.splitlines() if line.startswith("judge ") and profile.name in line]
    check_what_is_logged(run, given, profile)
    check_scores(run, profile)
    version = training.version(training.MODEL, 1)
    assert version.tags["style_profile_digest"] == profile.digest()
    assert float(version.tags["eval.socratic_style"]) == pytest.approx(judged(profile)["socratic_style"], abs=1e-6)


def check_what_is_logged(run, given, profile):
    params = {name: value for name, value in run.data.params.items() if "style_profile" in name}
    assert params == {
        "evaluation.style_profile": given,
        "evaluation.style_profile_name": profile.name,
        "evaluation.style_profile_digest": profile.digest(),
    }
    assert profile.digest() != SOCRATIC.digest()
    assert run.data.tags["style_profile"] == profile.name
    stored = stores.artifact_text(run.info.run_id, "style_profile.yaml")
    assert parse_profile(stored, "style_profile.yaml") == profile


def check_scores(run, profile):
    found, expected, socratic = run.data.metrics, judged(profile), judged(SOCRATIC)
    for name in ("socratic_style", "socratic_tone"):
        assert found[f"eval/{name}"] == pytest.approx(expected[name])
        assert found[f"eval/{name}"] != pytest.approx(socratic[name], abs=0.01)
        assert found[f"eval/{name}_low"] == pytest.approx(expected[f"{name}_low"])
    rows = stores.table(run.info.run_id, "samples/step_000002.json")
    assert [row["socratic_tone"] for row in rows] == [round(evaluation.socratic_tone(text, profile), 4) for text in SAID]


def test_the_held_out_replies_are_scored_under_the_profile_too(sqlite_store, tmp_path, training_inputs, finished_training):
    training.command(tmp_path, short(training_inputs, "gozaru"))
    # The same dialogues: they are Socratic to some degree, and nobody in them speaks as a samurai.
    found, socratic = stores.only_run().data.metrics, finished_training.run.data.metrics
    assert found["eval/reference_style"] == 0.0
    assert found["eval/reference_tone"] < socratic["eval/reference_tone"]
    assert socratic["eval/reference_style"] > 0.0


def test_a_champion_of_another_style_is_asked_again_and_judged_under_this_one(sqlite_store, tmp_path, training_inputs, say):
    training.command(tmp_path, short(training_inputs, "socratic"))
    _, printed = training.command(tmp_path, short(training_inputs, "gozaru", output="second"))
    style = f"{judged(read_profile('gozaru'))['socratic_style']:.3f}"
    assert style != f"{judged(SOCRATIC)['socratic_style']:.3f}"
    assert f"style {style} is at least the {style} of version 1 on the same questions" in printed


def test_the_teacher_forced_style_is_that_of_the_profile():
    chat = ChatFormat(tiny.tokenizer())
    row = chat.encode([{"role": "user", "content": "友とは？"}, {"role": "model", "content": SAID[0]}])
    # A model that predicts each next token rightly says just the reply.
    right = EvalPrediction(np.array([[*row.input_ids[1:], 0]]), np.array([row.labels]))
    for profile in (SOCRATIC, read_profile("gozaru")):
        expected = {"teacher_forced_style": evaluation.socratic_style(SAID[0], profile)}
        assert teacher_forced_style(chat, profile)(right) == expected
    assert evaluation.socratic_style(SAID[0], SOCRATIC) != expected["teacher_forced_style"]


@pytest.fixture
def begun(sqlite_store, tmp_path, training_inputs, own, say, monkeypatch, capsys):
    """The command of a training under `own` that has failed after its last step."""
    given = short(training_inputs, own)

    def fail(*_):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "announce", fail)
        assert training.command(tmp_path, given)[0] == 1
    assert "RuntimeError: power cut" in capsys.readouterr().err
    return given


def test_a_profile_that_has_changed_is_refused_on_resume(begun, tmp_path, own, capsys):
    before = stores.only_run()
    own.write_text(OWN.replace("weight: 0.5", "weight: 0.75"), encoding="utf-8")
    error = refused(capsys, tmp_path, begun)
    digests = [parse_profile(text, "").digest()[:12] for text in (OWN, own.read_text(encoding="utf-8"))]
    assert f"(style_profile_digest {digests[0]}, not {digests[1]}); choose another output_dir" in error
    after = stores.only_run()
    assert (after.info.end_time, after.data.metrics) == (before.info.end_time, before.data.metrics)


def test_another_profile_is_refused_on_resume(begun, tmp_path, capsys):
    assert "choose another output_dir" in refused(capsys, tmp_path, [*begun, "--style_profile=gozaru"])


def test_another_metric_is_refused_on_resume(begun, tmp_path, capsys):
    error = refused(capsys, tmp_path, [*begun, "--metric_for_best_model=socratic_tone"])
    assert "evaluation.metric_for_best_model socratic_style -> socratic_tone; choose another output_dir" in error


def test_a_profile_whose_words_about_itself_have_changed_goes_on(begun, tmp_path, own):
    own.write_text(OWN.replace("ends loudly", "says so with 君"), encoding="utf-8")
    code, printed = training.command(tmp_path, begun)
    assert code == 0
    assert "going on from" in printed
    run = stores.only_run()
    assert run.info.status == "FINISHED"
    assert not [tag for tag in run.data.tags if tag.startswith("changed.")]


BROKEN = {
    OWN.replace("weight: 0.5", "weight: heavy"): (4, "weight is 'heavy'; allowed: a number from -1 to 1"),
    OWN.replace("ends: [ね]", "end: [ね]"): (6, "unknown field 'end'"),
    OWN.replace("tone:", "tone: ["): (6, "not valid YAML"),
}
WATCHED = """
import sys
from socratic_mlflow.cli import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in ("torch", "transformers", "mlflow", "numpy", "scipy") if name in sys.modules])
"""


@pytest.mark.parametrize(("text", "line", "message"), [(text, *said) for text, said in BROKEN.items()])
def test_a_broken_profile_is_one_line_before_anything_is_loaded_or_made(tmp_path, own, text, line, message):
    own.write_text(text, encoding="utf-8")
    given = [sys.executable, "-c", WATCHED, "train", "--preset=embedded", "--style_profile=own.yaml"]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(f"socratic-mlflow: error: own.yaml:{line}: {re.escape(message)}.*\n", done.stderr)
    assert done.stdout == "[]\n"
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style_profile": "missing.yaml"}, "style_profile missing.yaml: cannot be read"),
        ({"metric_for_best_model": "loss"}, "allowed: one of socratic_style, socratic_tone"),
    ],
)
def test_a_mistake_in_the_choice_of_style_or_metric_leaves_nothing_behind(
    sqlite_store, tmp_path, training_inputs, capsys, changes, message
):
    assert message in refused(capsys, tmp_path, training.arguments(training_inputs, **changes))
    assert MlflowClient().search_runs(["0"]) == []
    assert not (tmp_path / "out").exists()
