"""`mlflow models serve` as a user starts it, over real HTTP: documented requests, 1,000 others, parallel clients."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
import serving
import tiny
import training
from fuzzing import as_bytes, mutated

from socratic_mlflow.incoming import MOST_BYTES

URI = f"models:/{training.MODEL}/Production"
ASKED = {"role": "user", "content": tiny.QUESTIONS[0]}
ANSWERED = {"role": "assistant", "content": "君はどう思うかね？"}
DEEP = b'{"inputs": ' + b"[" * 100_000
# json reads it, and what then looks at it would not bear it.
NESTED = b"[" * 900 + b"]" * 900
QUICK = {"max_tokens": 2}
KEYS = ["inputs", "messages", "params", "role", "content", "temperature", "top_p", "max_tokens", "seed", "stop"]
KEYS += ["instances", "dataframe_split", "dataframe_records", "prompt", "input", "n", "", "正義"]
FUZZ_SEED, REQUESTS = 20, 1000


@pytest.fixture(scope="module")
def site(trained, tmp_path_factory):
    command = ["-m", "mlflow", "models", "serve", "-m", URI, "--env-manager", "local", "--host", "127.0.0.1"]
    with serving.started(command, tmp_path_factory.mktemp("served"), trained.store, "/health") as found:
        yield found


@pytest.fixture
def connection(site):
    found = site.connect()
    yield found
    found.close()


def ask(connection, body, headers=None):
    status, text = serving.post(connection, "/invocations", body, headers)
    return status, json.loads(text)


def assert_one_sentence(answer):
    assert isinstance(answer["message"], str)
    assert 10 < len(answer["message"]) < 500
    assert "\n" not in answer["message"]
    assert "Traceback" not in str(answer)
    assert "stack_trace" not in answer


def test_the_signature_shows_the_params_with_their_defaults(trained):
    schema = mlflow.models.get_model_info(URI).signature.params
    assert {spec.name: (spec.dtype.name, spec.shape, spec.default) for spec in schema} == {
        "temperature": ("double", None, 0.0),
        "top_p": ("double", None, 1.0),
        "max_tokens": ("long", None, 6),
        "seed": ("long", None, -1),
        "stop": ("string", (-1,), [""]),
    }


def test_every_documented_form_is_answered(connection):
    question = ASKED["content"]
    _, expected = ask(connection, {"inputs": [question]})
    (reply,) = expected["predictions"]
    assert reply
    for inputs in (question, [ASKED], [[ASKED]], {"messages": [ASKED]}, [{"messages": [ASKED]}]):
        assert ask(connection, {"inputs": inputs}) == (200, {"predictions": [reply]})
    assert ask(connection, {"messages": [ASKED]}) == (200, [reply])
    assert ask(connection, {"messages": [ASKED], "max_tokens": 6, "temperature": None, "stop": None}) == (200, [reply])
    charset = {"Content-Type": "application/json; charset=UTF-8"}
    assert ask(connection, {"inputs": question, "params": {"seed": None}}, charset) == (200, {"predictions": [reply]})
    status, several = ask(connection, {"inputs": tiny.QUESTIONS})
    assert (status, len(several["predictions"])) == (200, len(tiny.QUESTIONS))


def test_params_change_the_reply_and_a_seed_repeats_it(connection):
    drawn = {"temperature": 1.5, "top_p": 0.9, "max_tokens": 20, "seed": 5}
    first = ask(connection, {"inputs": tiny.QUESTIONS, "params": drawn})
    assert first[0] == 200
    assert ask(connection, {"inputs": tiny.QUESTIONS, "params": drawn}) == first
    assert ask(connection, {"inputs": tiny.QUESTIONS, "params": drawn | {"seed": 6}}) != first
    (reply,) = ask(connection, {"messages": [ASKED], "temperature": 1.5, "max_tokens": 20, "seed": 5})[1]
    stop = reply[3:5]
    cut = ask(connection, {"messages": [ASKED], "temperature": 1.5, "max_tokens": 20, "seed": 5, "stop": stop})
    assert cut == (200, [reply[: reply.index(stop)].rstrip()])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": []}, "expected a question, messages or a list of them; got nothing"),
        ({"inputs": ""}, "a message needs text as its content"),
        ({"inputs": [ASKED, ANSWERED]}, "a conversation alternates between user and model (or assistant)"),
        ({"inputs": [{"role": "tool", "content": "a"}]}, "a message needs a role, one of"),
        ({"messages": "正義とは？"}, "a conversation is a non-empty list of messages; got str"),
        ({"messages": [ASKED], "top_k": 4}, "unknown field 'top_k'; beside 'messages' there are temperature"),
        ({"inputs": "a", "params": {"top_k": 4}}, "unknown param 'top_k'; there are temperature"),
        ({"inputs": "a", "parameters": {}}, "unknown field 'parameters'; beside 'inputs' there are params"),
        ({"inputs": "a", "params": {"temperature": "hot"}}, "temperature is a number from 0 to 2; got 'hot'"),
        ({"inputs": "a", "params": {"temperature": 3}}, "temperature is a number from 0 to 2; got 3"),
        ({"inputs": "a", "params": {"max_tokens": 0}}, "max_tokens is a whole number from 1 to 8192; got 0"),
        ({"inputs": "a", "params": {"max_tokens": 600}}, "the conversation has"),
        ({"inputs": "a", "params": []}, "params is an object of"),
        ({"inputs": "正義とは何か。" * 2000}, "the conversation has"),
        ({"inputs": ["a"] * 200, "params": {"max_tokens": 400}}, "200 conversations with max_tokens 400 are up to 80000"),
        ({"dataframe_split": {"columns": ["q"], "data": [["a"]]}}, "the request needs 'inputs' (with 'params' beside it)"),
        ({}, "the request needs 'inputs'"),
        ([ASKED], "the request's body is a JSON object; got list"),
        (b"", "the request's body is not valid JSON in UTF-8"),
        (b'{"inputs": ', "the request's body is not valid JSON in UTF-8"),
        (b'{"inputs": "\xff"}', "the request's body is not valid JSON in UTF-8"),
        (DEEP, "the request's body is not valid JSON in UTF-8"),
        (b'{"inputs": ' + NESTED + b"}", "the request's lists and objects lie in each other more than 20 deep"),
        (b'{"inputs": "a", "params": {"seed": ' + NESTED + b"}}", "the request's lists and objects lie in each other"),
        (b'{"inputs": "a", "params": {"seed": ' + b"9" * 5000 + b"}}", "the request's body is not valid JSON in UTF-8"),
        (b'{"inputs": "a", "params": {"temperature": NaN}}', "temperature is a number from 0 to 2; got nan"),
        (b'{"inputs": "\\ud800"}', "a message holds NUL or half a surrogate pair, which no text does"),
        (b'"' + b"a" * MOST_BYTES + b'"', "the request is larger than 4 MiB"),
    ],
)
def test_a_bad_request_is_a_400_with_a_sentence(connection, body, message):
    status, answer = ask(connection, body)
    assert status == 400
    assert_one_sentence(answer)
    assert answer["message"].startswith(message)


@pytest.mark.parametrize("kind", [None, "text/plain", "text/csv", "application/json; charset=shift_jis", "a;b;c=d", "\xff"])
def test_another_content_type_is_a_400_with_a_sentence(connection, kind):
    status, answer = ask(connection, {"inputs": "a"}, {} if kind is None else {"Content-Type": kind})
    assert (status, answer["message"]) == (400, "the request needs the header Content-Type: application/json (in UTF-8)")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("Content-Length", str(10**12)), "the request is larger than 4 MiB"),
        (("Transfer-Encoding", "chunked"), "the request needs the header Content-Length"),
    ],
)
def test_a_body_of_any_size_is_refused_before_it_is_read(connection, header, message):
    connection.putrequest("POST", "/invocations")
    for name, value in (*serving.JSON.items(), header):
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["message"]) == (400, message)


def test_a_client_that_goes_in_the_middle_of_its_request_leaves_no_traceback(site, connection):
    going = site.connect()
    going.request("POST", "/invocations", b"{", serving.JSON | {"Content-Length": "100"})
    going.close()
    assert ask(connection, {"messages": [ASKED]})[0] == 200
    assert "Traceback" not in site.log.read_text()


def fuzzed(draw):
    """The body of one request: sometimes right, mostly not."""
    talk = [ASKED, ANSWERED, ASKED][: draw.choice([1, 3])]
    drawn = {"temperature": draw.random() * 2, "seed": draw.randrange(9)}
    params = QUICK | draw.choice([{}, drawn, {"stop": ["。", "か"]}])
    inputs = draw.choice([[talk], talk, "正義とは？", ["正義とは？", "徳とは？"]])
    right = draw.choice([{"inputs": inputs, "params": params}, {"messages": talk, **params}])
    for _ in range(draw.randrange(4)):
        right = mutated(draw, right, KEYS)
    return as_bytes(draw, right)


def test_a_thousand_requests_are_answered_or_refused_with_a_sentence(site, connection):
    draw, counts = random.Random(FUZZ_SEED), {200: 0, 400: 0}
    for number in range(REQUESTS):
        body = fuzzed(draw)
        status, answer = ask(connection, body)
        assert status in counts, (number, body, answer)
        counts[status] += 1
        if status == 400:
            assert_one_sentence(answer)
        else:
            replies = answer if isinstance(answer, list) else answer["predictions"]
            assert replies and all(isinstance(reply, str) for reply in replies), (number, body)
    assert min(counts.values()) > REQUESTS / 10, counts
    assert "Traceback" not in site.log.read_text()


def test_parallel_clients_get_what_each_gets_alone(site):
    def answer(seed):
        connection = site.connect()
        try:
            wanted = {"temperature": 1.5, "max_tokens": 12, "seed": seed}
            right = ask(connection, {"inputs": tiny.QUESTIONS[seed % 12], "params": wanted})
            wrong = ask(connection, {"inputs": [], "params": wanted})
            return right, wrong[0]
        finally:
            connection.close()

    alone = [answer(seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, range(16)))
    assert together == alone
    assert {(right[0], wrong) for right, wrong in alone} == {(200, 400)}
    assert len({right[1]["predictions"][0] for right, _ in alone}) > 8
