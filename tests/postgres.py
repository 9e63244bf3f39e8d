"""A real PostgreSQL server on loopback that can be stopped and started again, and an `mlflow server` in front of it."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import composed
import pytest
from servers import AnyServer, free_port, wait_until


def programs() -> Path:
    """The folder of PostgreSQL's server programs, which Debian keeps off the PATH; skips the test where there is none."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL's server programs (initdb, postgres) are not installed; on Debian: apt-get install postgresql")


def account() -> dict[str, Any]:
    """Who runs it, as subprocess takes it: PostgreSQL refuses to be run by root."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("the test runs as root, which PostgreSQL refuses, and there is no user postgres or nobody")


class Postgres:
    """A server with the database and the account that compose.yaml names, in `folder`, not started yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.password = folder, free_port(), secrets.token_hex(16)
        self._programs, self._account = programs(), account()
        self._process: subprocess.Popen[bytes] | None = None
        if self._account:
            os.chown(folder, self._account["user"], self._account["group"])
        said = composed.services(POSTGRES_PASSWORD=self.password)["postgres"]["environment"]
        self.user, self.database, arguments = said["POSTGRES_USER"], said["POSTGRES_DB"], said["POSTGRES_INITDB_ARGS"]
        (folder / "password").write_text(self.password)
        made = [self._programs / "initdb", "--pgdata", folder / "data", "--username", self.user, "--no-sync"]
        made += ["--pwfile", folder / "password", "--encoding=UTF8", "--locale=C", *arguments.split()]
        subprocess.run(made, cwd=folder, check=True, capture_output=True, **self._account)

    def start(self) -> None:
        """Returns when it takes connections."""
        command = [self._programs / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", self.folder]
        with (self.folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._account)
        wait_until(self._ready, f"PostgreSQL is up: {self.folder / 'postgres.log'}")

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends it in order, as `docker stop` does, SIGQUIT as a crash would; harmless where it is down."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def create_database(self) -> None:
        """The database that compose's image makes at its first start."""
        self.query(f"CREATE DATABASE {self.database}", "postgres")

    def query(self, statement: str, database: str = "") -> list[Any]:
        """The rows that `statement` gives."""
        import psycopg2

        names = {"user": self.user, "password": self.password, "dbname": database or self.database}
        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=self.port, **names)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []

    def _ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.folder / "postgres.log").read_text()
        asked = composed.services(POSTGRES_PASSWORD=self.password)["postgres"]["healthcheck"]["test"]
        command = [self._programs / asked[1], *asked[2:], f"--port={self.port}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class ComposedServer(AnyServer):
    """`mlflow server` as compose.yaml starts it, with other ports and folders."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        super().__init__(folder)
        self._service = composed.services(POSTGRES_PASSWORD=postgres.password)["mlflow"]
        self._here = {
            "=0.0.0.0": "=127.0.0.1",
            "=5000": f"={self.port}",
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
            "=/artifacts": f"={self.artifacts}",
        }

    @property
    def command(self) -> list[str]:
        """compose.yaml's command."""
        program, *words = self._service["command"]
        for there, here in self._here.items():
            assert sum(there in word for word in words) == 1, there
            words = [word.replace(there, here) for word in words]
        return [sys.executable, "-m", program, *words]

    @property
    def environment(self) -> dict[str, str]:
        """compose.yaml's environment."""
        return dict(self._service["environment"])

    def healthy(self) -> bool:
        """What compose.yaml's health check says."""
        _, program, *words = self._service["healthcheck"]["test"]
        assert program == "python"
        command = [sys.executable, *(word.replace(":5000/", f":{self.port}/") for word in words)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """A server with an empty database, in `folder`; gone at the end."""
    server = Postgres(folder)
    try:
        server.start()
        server.create_database()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
