"""`mlflow models serve` when it is asked for more than it can do before it gives a request up."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import serving
import tiny
import training
from servers import wait_until

URI = f"models:/{training.MODEL}/Production"
# Seconds; what is asked for below would take minutes.
TIMEOUT_S = 6
LONG = {"inputs": [tiny.QUESTIONS[0]] * 130, "params": {"max_tokens": 450, "temperature": 2.0, "seed": 1}}
# More than asyncio has threads for what computes.
CLIENTS = (os.cpu_count() or 1) + 6
WRONG = {"inputs": "a", "params": {"temperature": 3}}
RIGHT = {"inputs": tiny.QUESTIONS[0], "params": {"max_tokens": 1}}


@pytest.fixture(scope="module")
def site(trained, tmp_path_factory):
    command = ["-m", "mlflow", "models", "serve", "-m", URI, "--env-manager", "local", "--host", "127.0.0.1"]
    command += ["--timeout", str(TIMEOUT_S)]
    with serving.started(command, tmp_path_factory.mktemp("served"), trained.store, "/health") as found:
        yield found


def ask(site, body):
    connection = site.connect()
    try:
        return serving.post(connection, "/invocations", body)
    finally:
        connection.close()


def test_requests_that_were_given_up_are_computed_no_further_and_keep_nobody_waiting(site):
    with ThreadPoolExecutor(CLIENTS) as pool:
        waiting = [pool.submit(ask, site, LONG) for _ in range(CLIENTS)]
        refused = [ask(site, WRONG) for _ in range(20)]
        given_up = [each.result()[0] for each in waiting]
    assert set(given_up) == {504}
    assert {status for status, _ in refused} == {400}
    assert {json.loads(text)["message"] for _, text in refused} == {"temperature is a number from 0 to 2; got 3"}
    # All that was asked for would take the better part of an hour.
    wait_until(lambda: ask(site, RIGHT)[0] == 200, "the server answers again")
    assert ask(site, RIGHT)[0] == 200
    assert "Traceback" not in site.log.read_text()
