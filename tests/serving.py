"""Real servers of a registered model on loopback, and how to ask them over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import free_port, wait_until

JSON = {"Content-Type": "application/json"}


class Site:
    """A server that runs: its address, its process, and the file of what it prints."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays open over several requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def answers(self, path: str) -> bool:
        """Whether GET `path` is 200."""
        assert self.process.poll() is None, self.log.read_text()
        connection = self.connect()
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def post(
    connection: http.client.HTTPConnection, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """(status, body) of a POST; a `body` that is neither bytes nor str goes as JSON."""
    sent = body if isinstance(body, bytes | str) else json.dumps(body)
    connection.request("POST", path, sent.encode() if isinstance(sent, str) else sent, JSON if headers is None else headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@contextmanager
def started(command: list[str], folder: Path, store: str, health: str, python: str = sys.executable) -> Iterator[Site]:
    """`PYTHON COMMAND... --port PORT` on the MLflow `store`, once GET `health` answers; killed at the end."""
    port, log = free_port(), folder / "server.log"
    # mlflow starts uvicorn by its name.
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": path}
    with log.open("ab") as printed:
        process = subprocess.Popen(
            [python, *command, "--port", str(port)],
            stdout=printed,
            stderr=printed,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    site = Site(process, port, log)
    try:
        wait_until(lambda: site.answers(health), f"the server is up: {log}")
        yield site
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
