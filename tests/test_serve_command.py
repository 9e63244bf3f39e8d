"""`socratic-mlflow serve` as a real process, asked by the official openai client over real HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import serving
import tiny
import training
from fuzzing import as_bytes, mutated
from servers import free_port

from socratic_mlflow.incoming import MOST_BYTES
from socratic_mlflow.interruption import Interruption
from socratic_mlflow.openai_api import Desk
from socratic_mlflow.replying import Replier
from socratic_mlflow.serve_command import _listening, _run
from socratic_mlflow.tokens import ChatFormat

URI = f"models:/{training.MODEL}@champion"
MESSAGES = [{"role": "user", "content": tiny.QUESTIONS[0]}]
DRAWN = {"temperature": 1.5, "max_tokens": 30}
FUZZ_SEED, REQUESTS = 21, 300
COMMAND = ["-m", "socratic_mlflow", "serve"]


@pytest.fixture(scope="module")
def site(trained, tmp_path_factory):
    with serving.started([*COMMAND, URI], tmp_path_factory.mktemp("served"), trained.store, "/health") as found:
        yield found


@pytest.fixture(scope="module")
def client(site):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key="none", max_retries=0) as found:
        yield found


def create(client, **changes):
    return client.chat.completions.create(**{"model": training.MODEL, "messages": MESSAGES, "max_tokens": 6} | changes)


def streamed(client, **changes):
    """(text, finish reasons, chunks) of a streamed reply."""
    chunks = list(create(client, stream=True, **changes))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), [c.finish_reason for c in choices], chunks


def test_a_reply_has_what_clients_of_the_api_read(client):
    answer = create(client)
    (choice,) = answer.choices
    expected = ("chat.completion", training.MODEL, 0, "assistant")
    assert (answer.object, answer.model, choice.index, choice.message.role) == expected
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 6 < answer.usage.prompt_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_it_answers_as_mlflow_does(client, trained):
    import mlflow

    assert create(client).choices[0].message.content == mlflow.pyfunc.load_model(URI).predict(tiny.QUESTIONS[0])[0]


@pytest.mark.parametrize("seed", range(6))
def test_a_streamed_reply_is_the_same_in_pieces(client, seed):
    text, finishes, chunks = streamed(client, seed=seed, **DRAWN)
    whole = create(client, seed=seed, **DRAWN).choices[0]
    assert text == whole.message.content
    assert [finish for finish in finishes if finish] == [whole.finish_reason] == [finishes[-1]]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 3


def test_a_stream_ends_with_its_token_counts_where_they_are_asked_for(client):
    _, _, chunks = streamed(client, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage == create(client).usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_raw_stream_is_server_sent_events(site):
    connection = site.connect()
    body = {"messages": MESSAGES, "max_tokens": 3, "stream": True}
    status, text = serving.post(connection, "/v1/chat/completions", body)
    connection.close()
    *events, last, end = text.split("\n\n")
    assert (status, last, end) == (200, "data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk" for event in events)


def test_a_stop_text_ends_a_reply_whole_or_streamed(client):
    full = create(client, seed=1, **DRAWN).choices[0].message.content
    stop = full[4:6]
    cut = create(client, seed=1, stop=stop, **DRAWN).choices[0]
    assert (cut.message.content, cut.finish_reason) == (full[: full.index(stop)].rstrip(), "stop")
    assert streamed(client, seed=1, stop=[stop], **DRAWN)[0] == cut.message.content


def test_the_reasons_why_a_reply_ends(client):
    assert create(client, max_tokens=1).choices[0].finish_reason == "length"
    assert create(client, max_completion_tokens=1, max_tokens=openai.omit).usage.completion_tokens == 1


@pytest.mark.parametrize("text", ["🦉とは何か", "Ἀρετή", "正\u200b義\t？\n", "<start_of_turn>", "e\u0301" * 20])
def test_any_text_is_understood(client, text):
    assert create(client, messages=[{"role": "user", "content": text}]).choices


def test_other_accepted_spellings_of_messages(client):
    parts = [{"type": "text", "text": tiny.QUESTIONS[0][:3]}, {"type": "text", "text": tiny.QUESTIONS[0][3:]}]
    expected = create(client).choices[0].message.content
    assert create(client, messages=[{"role": "user", "content": parts}]).choices[0].message.content == expected
    told = [create(client, messages=[{"role": role, "content": "a"}, *MESSAGES]) for role in ("system", "developer")]
    assert told[0].usage.prompt_tokens == told[1].usage.prompt_tokens > create(client).usage.prompt_tokens
    talk = [*MESSAGES, {"role": "assistant", "content": "君は？"}, *MESSAGES]
    assert create(client, messages=talk, n=1, user="ada", presence_penalty=0, tools=[]).choices


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": []}, "messages is a non-empty list of messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "a conversation alternates between user and model"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "a message needs a role, one of user"),
        ({"messages": [{"role": "user", "content": " "}]}, "a message needs text as its content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a message's content is text, or a list of"),
        ({"messages": [{"role": "user", "content": "正義とは何か。" * 2000}]}, "the conversation has"),
        ({"max_tokens": 600}, "the conversation has"),
        ({"max_tokens": 0}, "max_tokens is a whole number from 1 to 8192; got 0"),
        ({"max_completion_tokens": 3}, "max_tokens and max_completion_tokens mean the same here"),
        ({"temperature": 2.5}, "temperature is a number from 0 to 2; got 2.5"),
        ({"temperature": "hot"}, "temperature is a number from 0 to 2; got 'hot'"),
        ({"n": 2}, "n 2 is not supported here; leave it out"),
        ({"logprobs": True}, "logprobs True is not supported here; leave it out"),
        ({"tools": [{"type": "function"}]}, "tools [{'type': 'function'}] is not supported here"),
        ({"response_format": {"type": "json_object"}}, "response_format {'type': 'json_object'} is not supported here"),
        ({"extra_body": {"top_k": 3}}, "unknown field 'top_k'"),
        ({"extra_body": {"stream": "yes"}}, "stream is true or false; got 'yes'"),
        ({"stream_options": {"a": 1}}, "stream_options is an object with include_usage"),
        ({"stop": ["a"] * 5}, "stop is a text, or a list of at most 4"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_the_clients_own_error(client, changes, message, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **{"stream": stream} | changes)
    body = caught.value.body
    assert body["message"].startswith(message)
    assert "\n" not in body["message"]
    assert (body["type"], body["code"], body["param"]) == ("invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"", None, "the request's body is not valid JSON in UTF-8"),
        (b"[" * 100_000, None, "the request's body is not valid JSON in UTF-8"),
        (b'{"seed": ' + b"[" * 900 + b"]" * 900 + b"}", None, "the request's lists and objects lie in each other"),
        (b"[]", None, "the request's body is a JSON object; got list"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None, "a message holds NUL or half a surrogate pair"),
        (b'{"\\ud800": 1}', None, r"unknown field '\ud800'"),
        (b"a" * (MOST_BYTES + 1), None, "the request is larger than 4 MiB"),
        (b"{}", {"Content-Type": "text/plain"}, "the request needs the header Content-Type: application/json"),
        (b"{}", {}, "the request needs the header Content-Type: application/json"),
    ],
)
def test_what_no_client_sends_is_a_400_as_well(site, body, headers, message):
    connection = site.connect()
    status, text = serving.post(connection, "/v1/chat/completions", body, headers)
    connection.close()
    assert status == 400
    assert json.loads(text)["error"]["message"].startswith(message)


# Beside what every request may have: what only this API knows.
KEYS = ["model", "messages", "role", "content", "temperature", "max_tokens", "max_completion_tokens", "seed", "stop", "n"]
KEYS += ["stream", "stream_options", "tools", "response_format", "logprobs", "user", "inputs", "type", "text", ""]


def fuzzed(draw):
    """The body of one request: sometimes right, mostly not."""
    text = draw.choice(["正義とは？", [{"type": "text", "text": "徳とは？"}]])
    talk = [{"role": "user", "content": text}, {"role": "assistant", "content": "君は？"}, *MESSAGES]
    right = {"messages": draw.choice([talk, talk[2:]]), "max_tokens": 2, "stream": draw.random() < 0.3}
    right |= draw.choice([{}, {"temperature": draw.random() * 2, "seed": draw.randrange(9)}, {"stop": ["。", "か"]}])
    for _ in range(draw.randrange(4)):
        right = mutated(draw, right, KEYS)
    return as_bytes(draw, right)


def test_hundreds_of_requests_are_answered_or_refused_with_a_sentence(site):
    draw, counts, connection = random.Random(FUZZ_SEED), {200: 0, 400: 0, 404: 0}, site.connect()
    for number in range(REQUESTS):
        body = fuzzed(draw)
        status, text = serving.post(connection, "/v1/chat/completions", body)
        assert status in counts, (number, body, text)
        counts[status] += 1
        if status != 200:
            message = json.loads(text)["error"]["message"]
            assert 10 < len(message) < 500 and "\n" not in message and "Traceback" not in message, (number, body, text)
        elif text.startswith("data: "):
            assert text.endswith("data: [DONE]\n\n") and '"error"' not in text, (number, body, text)
        else:
            assert isinstance(json.loads(text)["choices"][0]["message"]["content"], str), (number, body, text)
    connection.close()
    assert min(counts[200], counts[400]) > REQUESTS / 10 and "Traceback" not in site.log.read_text(), counts


def test_the_models_are_listed_and_others_are_not_found(client):
    assert [model.id for model in client.models.list()] == [training.MODEL]
    assert client.models.retrieve(training.MODEL).owned_by == "socratic-mlflow"
    assert create(client, model=URI).model == training.MODEL
    with pytest.raises(openai.NotFoundError, match=f"there is no model 'gpt-4' here; this server has {training.MODEL}"):
        create(client, model="gpt-4")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("GET", "/v1/chat/completions", 405)])
def test_a_wrong_address_is_an_error_in_the_same_form(site, method, path, status):
    connection = site.connect()
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert json.loads(answer.read())["error"]["message"]
    connection.close()


def test_parallel_clients_get_what_each_gets_alone(client):
    def both(seed):
        plain = create(client, seed=seed, **DRAWN).choices[0].message.content
        return plain, streamed(client, seed=seed, **DRAWN)[0]

    alone = [both(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(both, range(8))) == alone
    assert all(plain == pieces for plain, pieces in alone)


@pytest.mark.parametrize(("number", "by_run"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_ends_it_cleanly_in_the_middle_of_a_reply(trained, tmp_path, number, by_run):
    model, short = (trained.run.info.run_id, "adapter") if by_run else (URI, training.MODEL)
    with serving.started([*COMMAND, model], tmp_path, trained.store, "/health") as site:
        slow = site.connect()
        slow.request("POST", "/v1/chat/completions", b"{", serving.JSON | {"Content-Length": "100"})
        connection = site.connect()
        body = {"model": model, "messages": MESSAGES, "max_tokens": 450, "temperature": 1.5, "seed": 1, "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), serving.JSON)
        answer = connection.getresponse()
        answer.readline()
        site.process.send_signal(number)
        rest = answer.read().decode()
        late = slow.getresponse()
        assert (late.status, json.loads(late.read())["error"]["message"]) == (503, "the server is being stopped")
        assert site.process.wait(60) == 130
        connection.close()
        slow.close()
        printed = site.log.read_text()
    assert "the server is being stopped" in rest or "[DONE]" in rest
    assert "Traceback" not in printed
    assert printed.splitlines()[-1] == "socratic-mlflow: interrupted"
    assert f"ready  http://127.0.0.1:{site.port}/v1/chat/completions (model {short})" in printed


def test_it_was_interrupted_also_where_the_signal_that_uvicorn_raises_again_is_lost(monkeypatch):
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)
    words = tiny.tokenizer()
    desk = Desk(Replier(tiny.model(vocab_size=len(words)), ChatFormat(words), 1), ("tiny",), 10)
    with _listening("127.0.0.1", 0) as listener, Interruption():
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)

        def stop_once_it_answers():
            try:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        with ThreadPoolExecutor(1) as pool, contextlib.closing(connection):
            stopped = pool.submit(stop_once_it_answers)
            with pytest.raises(KeyboardInterrupt):
                _run(desk, listener)
            stopped.result()


def test_a_port_is_taken_before_the_model_is_loaded():
    with _listening("127.0.0.1", 0) as first, pytest.raises(ValueError, match="Address already in use"):
        _listening("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((URI, "--port", "{taken}"), "cannot listen on 127.0.0.1 port {taken}: Address already in use; give another"),
        ((URI, "--port", "70000"), "argument --port: it is '70000'; it takes a whole number from 0 to 65535"),
        ((URI, "--port", "8_000"), "argument --port: it is '8_000'; it takes a whole number from 0 to 65535"),
        ((URI, "--port", "８０００"), "argument --port: it is '８０００'; it takes a whole number"),
        ((URI, "--host", "nowhere.invalid"), "cannot listen on nowhere.invalid port"),
        ((URI, "--max_prompt_tokens", "0"), "argument --max_prompt_tokens: it is '0'; it takes a whole number from 1 to"),
        (("models:/nobody/1", "--port", "0"), "models:/nobody/1: is not in the registry"),
        ((URI, "--base_model", "embedded"), "model.base_model has no effect here: models:/"),
        (("nowhere", "--port", "0"), "nowhere: no adapter folder"),
        ((), "the following arguments are required: MODEL"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(site, trained, tmp_path, arguments, message):
    taken = str(site.port)
    given = [argument.replace("{taken}", taken) for argument in arguments]
    environment = os.environ | {"MLFLOW_TRACKING_URI": trained.store}
    if "--port" not in given:
        given += ["--port", str(free_port())]
    done = subprocess.run([sys.executable, *COMMAND, *given], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"socratic-mlflow: error: {message.replace('{taken}', taken)}")
    assert done.stderr.count("\n") == 1
