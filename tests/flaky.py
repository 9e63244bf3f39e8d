"""MLflow's own server application over real HTTP in a thread of this process, which misbehaves request by request.

For what a server in a process of its own (`servers.py`) cannot do: let exactly the n-th request fail, before or (`LOSE`)
after it was carried out, and start in no time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

# What can become of a request.
PASS, ERROR, GARBAGE, NOT_FOUND, BAD_REQUEST, DROP, LOSE = (
    "pass", "error", "garbage", "not found", "bad request", "drop", "lose",
)  # fmt: skip
_HTML = {ERROR: 500, GARBAGE: 200, NOT_FOUND: 404, BAD_REQUEST: 400}


class Flaky:
    """The server at `uri`; `fate` says what becomes of a request, by its method and path ('POST runs/log-batch')."""

    def __init__(self) -> None:
        self.fate: Callable[[str], str] = lambda call: PASS
        self.calls: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def becomes(self, what: str, only: str = "", times: int | None = None) -> None:
        """From here on `what` becomes of the requests whose method and path hold `only`; `times` of them, or all."""
        left = [times]

        def fate(call: str) -> str:
            if only not in call or left[0] == 0:
                return PASS
            left[0] = left[0] - 1 if left[0] else left[0]
            return what

        self.fate = fate

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(server: Flaky) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = f"{self.command} {self.path.partition('/mlflow/')[2].partition('?')[0] or self.path}"
            server.calls.append(call)
            what = server.fate(call)
            if what in _HTML:
                self._answer(_HTML[what], "text/html", b"<html>A proxy, and not MLflow</html>")
            elif what != DROP:
                done = _application().open(self.path, method=self.command, data=body, content_type="application/json")
                if what != LOSE:
                    self._answer(done.status_code, done.content_type, done.data)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silent."""

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle  # noqa: N815

    return Handler


def _application() -> Any:
    from mlflow.server import app

    return app.test_client()


@contextmanager
def serving(store: str) -> Iterator[Flaky]:
    """A server in front of `store`, for a client that asks once and waits five seconds for an answer."""
    from mlflow.server import handlers
    from mlflow.tracking._model_registry import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", store)
        patch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", store)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        patch.setattr(handlers, "_tracking_store", None)
        patch.setattr(handlers, "_model_registry_store", None)
        # The first use of a store makes it this process' own: now, not in the middle of a test, and it is taken back.
        patch.setattr(utils, "_registry_uri", utils._registry_uri)
        patch.setenv("MLFLOW_REGISTRY_URI", store)
        handlers._get_tracking_store()
        handlers._get_model_registry_store()
        utils._registry_uri = None
        os.environ.pop("MLFLOW_REGISTRY_URI", None)
        server = Flaky()
        try:
            yield server
        finally:
            server.close()
