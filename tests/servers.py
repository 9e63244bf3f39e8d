"""A real `mlflow server` on loopback that can be killed, paused and started again; and two that misbehave, in its place."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

DEADLINE_S = 120.0


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Return once `holds()` does; fails, naming `what`, where it never does."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class AnyServer:
    """An `mlflow server` that keeps its log and artifacts in `folder`, not started yet; its port stays the same."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def artifacts(self) -> Path:
        """Where it keeps artifacts."""
        return self.folder / "artifacts"

    @property
    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        """What it wants of the environment."""
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it answers."""
        # Its own process group, so that its workers are killed and paused with it.
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_until(self._answers, f"the server is up: {self.folder / 'server.log'}")

    def kill(self) -> None:
        """kill -9; harmless where it does not run."""
        if self._process:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: requests that it got while paused are carried out, whether anybody still waits or not."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Server(AnyServer):
    """One with a store of its own in `folder`."""

    def __init__(self, folder: Path, empty_database: Path, kind: str = "sqlite", port: int = 0) -> None:
        super().__init__(folder, port)
        self.backend = f"sqlite:///{folder}/mlflow.db" if kind == "sqlite" else f"file://{folder}/mlruns"
        if kind == "sqlite":
            shutil.copy(empty_database, folder / "mlflow.db")
            with sqlite3.connect(folder / "mlflow.db") as database:
                database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")

    @property
    def command(self) -> list[str]:
        """What starts it."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.backend, "--artifacts-destination", str(self.artifacts)]
        return [*command, "--workers", "1"]

    @property
    def environment(self) -> dict[str, str]:
        """What it wants of the environment."""
        return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ALLOW_FILE_STORE": "true"}

    def content(self) -> str:
        """Everything that it has been told, as text that differs wherever a single value or byte does."""
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            rows = "\n".join(database.iterdump())
        files = sorted(path for path in self.artifacts.rglob("*") if path.is_file())
        return rows + "".join(f"\n{path}: {path.read_bytes().hex()}" for path in files)


Started = TypeVar("Started", bound=AnyServer)


@contextmanager
def running(server: Started) -> Iterator[Started]:
    """`server`, started; killed at the end."""
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def failing(port: int) -> Iterator[list[str]]:
    """A server on `port` that answers 500 to everything; the list grows by the path of each request."""

    class Fails(_Handler):
        def answer(self, body: bytes) -> None:
            asked.append(self.path)
            self.reply(500, {"Content-Type": "application/json"}, b'{"error_code": "INTERNAL_ERROR", "message": "broken"}')

    asked: list[str] = []
    with _serving(port, Fails):
        yield asked


@contextmanager
def forgetful(port: int, server: Server) -> Iterator[list[str]]:
    """What stands before `server` on `port` and loses the answer to the first request that writes, of each kind.

    The request is carried out, and the connection broken off: the client cannot know. The list grows by what was lost.
    """

    class Forgets(_Handler):
        def answer(self, body: bytes) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            reads = self.command == "GET" or self.path.endswith(("/search", "/search-versions"))
            kind = "mlflow-artifacts" if "mlflow-artifacts" in self.path else re.sub("m-[0-9a-f]{32}", "ID", self.path)
            if not reads and kind not in lost:
                lost.append(kind)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            kept = {name: value for name, value in answer.getheaders() if name.lower() in ("content-type",)}
            self.reply(answer.status, kept, content)

    lost: list[str] = []
    with _serving(port, Forgets):
        yield lost


class _Handler(BaseHTTPRequestHandler):
    """Takes any request whole, then calls `answer(body)`."""

    def answer(self, body: bytes) -> None:
        raise NotImplementedError

    def handle_any(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 (names of the standard library)

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _serving(port: int, handler: type[_Handler]) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
