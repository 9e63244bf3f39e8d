"""What the registered model accepts, and that a fresh process somewhere else gets answers from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
import tiny
import training

from socratic_mlflow.config import Config, EvaluationConfig, with_values
from socratic_mlflow.publishing import measure
from socratic_mlflow.quality import hollow
from socratic_mlflow.serving import INPUT_EXAMPLE, conversations, serving_settings
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import socratic_style, socratic_tone
from socratic_mlflow.style_profile import Feature, StyleProfile

ASKED = {"role": "user", "content": "正義とは何でしょうか？"}
ANSWERED = {"role": "model", "content": "君はどう思うかね？"}
AGAIN = {"role": "user", "content": "人を助けることです。"}
ONE = [[ASKED]]
LIMITS = EvaluationConfig(max_new_tokens=6)
LONG = [ASKED, ANSWERED, AGAIN]
TOLD = {"role": "system", "content": "短く答えよ。"}
WITH_ASSISTANT = [ASKED, ANSWERED | {"role": "assistant"}, AGAIN]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ASKED["content"], ONE),
        ([ASKED["content"]], ONE),
        ([ASKED["content"], AGAIN["content"]], [[ASKED], [AGAIN]]),
        (np.array([ASKED["content"], AGAIN["content"]]), [[ASKED], [AGAIN]]),
        (pd.Series([ASKED["content"], AGAIN["content"]]), [[ASKED], [AGAIN]]),
        (ASKED, ONE),
        ([ASKED], ONE),
        (LONG, [LONG]),
        (WITH_ASSISTANT, [WITH_ASSISTANT]),
        ([LONG, [ASKED]], [LONG, [ASKED]]),
        ([LONG, ASKED["content"]], [LONG, [ASKED]]),
        ({"messages": LONG}, [LONG]),
        ([{"messages": LONG}, {"messages": [ASKED]}], [LONG, [ASKED]]),
        (pd.DataFrame({"question": [ASKED["content"], AGAIN["content"]]}), [[ASKED], [AGAIN]]),
        (pd.DataFrame({"messages": [LONG, [ASKED]], "id": [1, 2]}), [LONG, [ASKED]]),
        (pd.DataFrame({"messages": [np.array(LONG, dtype=object)]}), [LONG]),
        (pd.DataFrame(LONG), [LONG]),
        (pd.DataFrame([message | {"id": 1} for message in LONG]), [LONG]),
        ([ASKED | {"name": "ada"}], ONE),
        ([TOLD, *LONG], [[TOLD, *LONG]]),
        (INPUT_EXAMPLE, INPUT_EXAMPLE),
    ],
)
def test_every_accepted_form_becomes_conversations(given, expected):
    assert conversations(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "expected a question, messages or a list of them; got nothing"),
        ([], "expected a question, messages or a list of them; got nothing"),
        (7, "expected a question, messages or a list of them; got int"),
        ("", "a message needs text as its content"),
        ("  \n", "a message needs text as its content"),
        ([""], "a message needs text as its content"),
        ([7], "a conversation is a non-empty list of messages; got int"),
        ([[]], "a conversation is a non-empty list of messages; got nothing"),
        ([[7]], "a message needs a role, one of user, model, assistant, system; got None"),
        ([LONG, None], "a conversation is a non-empty list of messages; got nothing"),
        ({"messages": "正義とは？"}, "a conversation is a non-empty list of messages; got str"),
        ({"question": "正義とは？"}, "a message needs a role, one of user, model, assistant, system; got None"),
        ([{"role": "tool", "content": "a"}], "a message needs a role, one of user, model, assistant, system; got 'tool'"),
        ([TOLD], "a conversation alternates between user and model (or assistant) and ends with user"),
        ([ASKED, TOLD], "a conversation alternates between user and model (or assistant) and ends with user"),
        ([TOLD, TOLD, ASKED], "a conversation alternates between user and model (or assistant) and ends with user"),
        ([ASKED] * 101, "a conversation of 101 messages; at most 100 are read"),
        ([[ASKED]] * 257, "257 conversations at once; at most 256 are taken"),
        (
            [{"role": ["user"], "content": "a"}],
            "a message needs a role, one of user, model, assistant, system; got ['user']",
        ),
        ([{"role": "user"}], "a message needs text as its content"),
        ([{"role": "user", "content": 7}], "a message needs text as its content"),
        ([ASKED, ANSWERED], "a conversation alternates between user and model (or assistant) and ends with user"),
        ([ASKED, AGAIN], "a conversation alternates between user and model (or assistant) and ends with user"),
        ([ANSWERED, ASKED], "a conversation alternates between user and model (or assistant) and ends with user"),
        (pd.DataFrame({"question": []}), "expected a question, messages or a list of them; got nothing"),
        (pd.DataFrame({"question": [float("nan")]}), "a conversation is a non-empty list of messages; got float"),
        (
            pd.DataFrame({"a": ["x"], "b": ["y"]}),
            "a DataFrame needs a column 'messages', columns 'role' and 'content', or one column of questions; "
            "this one has a, b",
        ),
    ],
)
def test_anything_else_is_one_clear_line(given, message):
    with pytest.raises(ValueError) as caught:
        conversations(given)
    assert str(caught.value) == message


def test_what_a_model_needs_to_answer_travels_with_it():
    changes = {"model.base_model": "some/base", "quantization.bnb_4bit_quant_type": "fp4", "evaluation.max_new_tokens": 9}
    config = with_values(Config(), changes)
    settings = serving_settings(config, "0123abcd")
    assert settings.pop("serving.max_prompt_tokens") == 4096
    restored = with_values(Config(), settings)
    assert restored.model == with_values(config, {"model.revision": "0123abcd"}).model
    assert restored.evaluation.max_new_tokens == 9
    assert restored.quantization.bnb_4bit_quant_type == "fp4"
    # The dtype is this machine's own affair.
    assert "quantization.bnb_4bit_compute_dtype" not in settings


def test_a_local_base_is_found_from_any_working_directory(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = serving_settings(with_values(Config(), {"model.base_model": "base"}), "digest")
    assert settings["model.base_model"] == str(tmp_path / "base")


FRESH_PROCESS = """
import json, sys
import mlflow
import pandas as pd
uri, questions = sys.argv[1], json.loads(sys.argv[2])
model = mlflow.pyfunc.load_model(uri)
chats = [[{"role": "user", "content": question}] for question in questions]
talk = [*chats[0], {"role": "assistant", "content": "では、君は？"}, *chats[1]]
answers = {
    "string": model.predict(questions[0]),
    "strings": model.predict(questions),
    "frame": model.predict(pd.DataFrame({"question": questions})),
    "conversation": model.predict(chats[0]),
    "conversations": model.predict(chats),
    "frame of conversations": model.predict(pd.DataFrame({"messages": chats})),
    "dict": model.predict({"messages": chats[0]}),
    "several turns": model.predict(talk),
    "one by one": [model.predict(question)[0] for question in questions],
}
base = model.unwrap_python_model().model.base_model.model
kinds = {type(module).__name__ for module in base.modules()}
import socratic_mlflow
print(json.dumps({"answers": answers, "quantized": "Linear4bit" in kinds, "package": socratic_mlflow.__file__}))
"""


@pytest.mark.parametrize("place", ["/Production", "@champion"])
def test_a_fresh_process_elsewhere_gets_answers_to_every_form(trained, tmp_path, place):
    questions = tiny.QUESTIONS[:3]
    asked = [sys.executable, "-c", FRESH_PROCESS, f"models:/{training.MODEL}{place}", json.dumps(questions)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    answers = told["answers"]
    each = answers["strings"]
    assert len(each) == 3
    assert all(isinstance(reply, str) and reply for reply in each)
    assert (
        answers["frame"] == answers["conversations"] == answers["frame of conversations"] == answers["one by one"] == each
    )
    assert answers["string"] == answers["conversation"] == answers["dict"] == each[:1]
    assert len(answers["several turns"]) == 1
    assert told["quantized"]
    # The source that was stored with it answers, not whatever is installed.
    assert "/code/socratic_mlflow/" in told["package"]


def test_the_registered_model_answers_as_it_did_in_its_run(trained):
    import stores

    best = training.version(training.MODEL, 1).tags["step"]
    rows = stores.table(trained.run.info.run_id, f"samples/step_{int(best):06d}.json")
    model = mlflow.pyfunc.load_model(f"models:/{training.MODEL}/1")
    assert model.predict([row["question"] for row in rows]) == [row["reply"] for row in rows]


def test_a_wrong_input_to_the_loaded_model_is_one_clear_line(trained):
    model = mlflow.pyfunc.load_model(f"models:/{training.MODEL}/1")
    with pytest.raises(Exception, match="ends with user") as caught:
        model.predict([ASKED, ANSWERED])
    assert str(caught.value).count("\n") == 0


def test_measure_is_what_its_replies_score(trained):
    uri = f"models:/{training.MODEL}/1"
    replies = mlflow.pyfunc.load_model(uri).predict(tiny.QUESTIONS)
    measured = measure(uri, tiny.QUESTIONS, LIMITS, SOCRATIC)
    assert measured["socratic_style"] == pytest.approx(sum(map(socratic_style, replies)) / len(replies))
    assert measured["socratic_tone"] == pytest.approx(sum(map(socratic_tone, replies)) / len(replies))
    assert measured["hollow_share"] == pytest.approx(sum(map(bool, hollow(replies))) / len(replies))


def test_measure_takes_the_profile_that_it_is_given(trained):
    uri = f"models:/{training.MODEL}/1"
    always = Feature("not there", 0.75, contains=("この言葉は誰も言わない",), absent=True)
    profile = StyleProfile("silence", style=SOCRATIC.style, tone=(always,), tone_base=0.25)
    assert measure(uri, tiny.QUESTIONS[:2], LIMITS, profile)["socratic_tone"] == 1.0
