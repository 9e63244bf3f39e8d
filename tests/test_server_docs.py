"""docs/server: a compose file that starts safely as it is, and pins what this project is tested with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import composed
import pytest
import yaml

PASSWORD = {"POSTGRES_PASSWORD": "planted"}


@pytest.fixture
def services() -> dict[str, Any]:
    return composed.services(**PASSWORD)


def test_it_does_not_start_without_a_password_and_holds_none() -> None:
    with pytest.raises(ValueError, match=r"put POSTGRES_PASSWORD=... into .env"):
        composed.services()
    text = (composed.FOLDER / "compose.yaml").read_text(encoding="utf-8")
    passwords = re.findall(r"^ +\w*PASSWORD: (.*)$", text, flags=re.MULTILINE)
    assert len(passwords) == 2
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in passwords)
    assert (composed.FOLDER / ".gitignore").read_text().split() == [".env"]


def test_only_this_machine_reaches_it_unless_told_otherwise(services: dict[str, Any]) -> None:
    assert "ports" not in services["postgres"]
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    told = composed.services(**PASSWORD, MLFLOW_ADDRESS="0.0.0.0", MLFLOW_PORT="8080")
    assert told["mlflow"]["ports"] == ["0.0.0.0:8080:5000"]


def test_the_data_outlives_the_containers(services: dict[str, Any]) -> None:
    declared = yaml.safe_load((composed.FOLDER / "compose.yaml").read_text(encoding="utf-8"))["volumes"]
    kept = dict(volume.split(":") for service in services.values() for volume in service["volumes"])
    assert kept == {"database": "/var/lib/postgresql/data", "artifacts": "/artifacts"}
    assert kept.keys() == declared.keys()
    assert "--artifacts-destination=/artifacts" in services["mlflow"]["command"]


def test_the_server_waits_for_a_database_that_is_ready(services: dict[str, Any]) -> None:
    assert services["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert all(service["healthcheck"]["test"][0] == "CMD" for service in services.values())
    assert all(service["restart"] == "unless-stopped" for service in services.values())


def test_it_has_the_mlflow_that_the_project_has(services: dict[str, Any], repository: Path) -> None:
    (pinned,) = re.findall(r"mlflow==(\S+)", (repository / "conda.yaml").read_text(encoding="utf-8"))
    dockerfile = (composed.FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert f"mlflow=={pinned} psycopg2-binary==" in dockerfile
    assert services["mlflow"]["image"] == f"socratic-mlflow-server:{pinned}"
    assert re.fullmatch(r"postgres:\d+-\w+", services["postgres"]["image"])


def test_every_variable_is_explained() -> None:
    text = (composed.FOLDER / "compose.yaml").read_text(encoding="utf-8")
    explained = (composed.FOLDER.parent / "server.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\$\{(\w+)", text))
    assert names == {"POSTGRES_PASSWORD", "MLFLOW_ADDRESS", "MLFLOW_PORT", "MLFLOW_ALLOWED_HOSTS"}
    assert [name for name in names if f"`{name}`" not in explained] == []
