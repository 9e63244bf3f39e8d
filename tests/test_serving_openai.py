"""The chat completions API in this process: what happens when a client goes, and when the model fails."""

from __future__ import annotations

import json
import threading
import time

import pytest
import serving
import tiny
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from servers import free_port, wait_until

from socratic_mlflow.incoming import ReplyParams
from socratic_mlflow.openai_api import Desk, make_app
from socratic_mlflow.replying import Replier
from socratic_mlflow.scoring_guard import ADMITTED, Admitted, RefusedError, guarded
from socratic_mlflow.tokens import ChatFormat

PATH = "/v1/chat/completions"
PATIENCE_S = 60.0


class Watched(Replier):
    """Stops at the third token until it may go on, and then until the reply is over, or `PATIENCE_S` have passed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.tokens, self.reached, self.may_go_on = 0, threading.Event(), threading.Event()

    def answer(self, prompts, params, hear=None, is_over=lambda: False):
        def look():
            self.tokens += 1
            if self.tokens == 3:
                self.reached.set()
                self.may_go_on.wait(PATIENCE_S)
                end = time.monotonic() + PATIENCE_S
                while not is_over() and time.monotonic() < end:
                    time.sleep(0.01)
            return is_over()

        return super().answer(prompts, params, hear, look)


class Failing(Replier):
    """Has no memory left."""

    def answer(self, *args, **kwargs):
        raise MemoryError("secret detail")


class Broken(Replier):
    """Has a mistake in it."""

    def answer(self, *args, **kwargs):
        raise RuntimeError("secret\ndetail")


@pytest.fixture
def serve():
    """serve(kind of replier) -> (it, its desk, a connection to its server); everything is stopped at the end."""
    words, servers = tiny.tokenizer(), []

    def start(kind):
        replier = kind(tiny.model(vocab_size=len(words)), ChatFormat(words), 4)
        desk, port = Desk(replier, ("tiny",), 6), free_port()
        server = uvicorn.Server(uvicorn.Config(make_app(desk), port=port, log_level="critical"))
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_until(lambda: server.started, "the server is up")
        servers.append((server, thread))
        return replier, desk, serving.http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def body(**changes):
    return {"messages": [{"role": "user", "content": tiny.QUESTIONS[0]}], "max_tokens": 300} | changes


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_generated_for_a_client_that_has_gone(serve, stream):
    replier, desk, connection = serve(Watched)
    connection.request("POST", PATH, json.dumps(body(stream=stream)), serving.JSON)
    assert replier.reached.wait(PATIENCE_S)
    if stream:
        connection.getresponse().readline()
    connection.close()
    replier.may_go_on.set()
    # The worker takes the next thing once it has left this reply.
    desk._worker.submit(lambda: None).result()
    assert replier.tokens < 10
    assert serving.post(connection, PATH, body(max_tokens=2))[0] == 200
    connection.close()


@pytest.mark.parametrize(("stream", "status"), [(False, 503), (True, 200)])
def test_a_server_that_stops_says_so_to_those_who_wait(serve, stream, status):
    replier, desk, connection = serve(Watched)
    connection.request("POST", PATH, json.dumps(body(stream=stream)), serving.JSON)
    assert replier.reached.wait(PATIENCE_S)
    desk.closing = True
    replier.may_go_on.set()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == status
    assert "the server is being stopped" in text
    assert "[DONE]" not in text


@pytest.mark.parametrize(("kind", "sentence"), [(Failing, "has not enough memory"), (Broken, "failed to answer")])
@pytest.mark.parametrize(("stream", "status"), [(False, 500), (True, 200)])
def test_a_failure_is_a_sentence_without_details(serve, kind, sentence, stream, status):
    _, _, connection = serve(kind)
    found, text = serving.post(connection, PATH, body(stream=stream))
    connection.close()
    assert found == status
    assert sentence in text
    assert "secret" not in text
    assert '"type": "server_error"' in text.replace('":"', '": "')


def answered(invocations):
    """What comes of a request that was found right, in an MLflow server with these `invocations`."""
    token = ADMITTED.set(Admitted({"inputs": "a"}, [[1]], ReplyParams(), time.monotonic() + PATIENCE_S))
    try:
        return guarded(invocations)(b"", "", None, None)
    finally:
        ADMITTED.reset(token)


def test_a_failure_in_mlflows_server_is_a_sentence_as_well():
    def invocations(*_):
        raise RuntimeError("secret\ndetail")

    with pytest.raises(RefusedError) as caught:
        answered(invocations)
    assert caught.value.get_http_status_code() == 500
    assert caught.value.message == "the server failed to answer this request; its log says why"


def test_what_mlflows_server_says_of_a_request_is_said_without_the_request_and_its_traceback():
    def invocations(*_):
        message = "Failed to predict data 'private\nwords'. \nError: no such thing\nhere"
        raise MlflowException(message, BAD_REQUEST, stack_trace="Traceback ...")

    with pytest.raises(RefusedError) as caught:
        answered(invocations)
    assert caught.value.get_http_status_code() == 400
    assert json.loads(caught.value.serialize_as_json())["message"] == "no such thing here"
    assert "Traceback" not in caught.value.serialize_as_json()


def test_mlflows_server_cannot_put_the_request_into_a_refusal():
    refusal = RefusedError("a sentence\nof one line")
    refusal.message = f"Failed to predict data '...'. \nError: {refusal.message}"
    assert refusal.message == "a sentence of one line"
