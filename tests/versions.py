"""Registered versions with the tags that a training gives them, without the minutes of a training."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import mlflow
import pytest
import training
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from socratic_mlflow import cli

NAME = "socratic-gemma"


def add(style: float, *, name: str = NAME, hollow: float = 0.0, questions: str = "these", **tags: str) -> str:
    """A new version that stands nowhere yet; returns its number."""
    client = MlflowClient()
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name)
    with mlflow.start_run() as run:
        mlflow.log_param("evaluation.metric_for_best_model", "socratic_style")
    given = {
        "run_id": run.info.run_id,
        "questions_digest": questions,
        "style_profile_digest": "profile",
        "max_new_tokens": "6",
        "step": "40",
        "eval.socratic_style": str(style),
        "eval.socratic_tone": "0.5",
        "eval.hollow_share": str(hollow),
    }
    return add_foreign(name, run, {key: value for key, value in (given | tags).items() if value})


def add_foreign(name: str, run: Any, tags: dict[str, str]) -> str:
    """A version with just these tags."""
    source = f"{run.info.artifact_uri}/adapter"
    return str(MlflowClient().create_model_version(name, source, run.info.run_id, tags=tags).version)


def standing(name: str = NAME) -> dict[int, tuple[str, list[str]]]:
    """{version: (stage, aliases)} as the registry has them."""
    client = MlflowClient()
    found = client.search_model_versions(f"name='{name}'")
    return {int(each.version): (each.current_stage, client.get_model_version(name, each.version).aliases) for each in found}


def command(folder: Any, *given: str) -> str:
    """What `socratic-mlflow` printed; it must have ended well."""
    code, printed = training.command(folder, list(given))
    assert code == 0, printed
    return printed


def refusal(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    """The one line with which `socratic-mlflow` refuses; it must end with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in given])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("socratic-mlflow: error: ")


def listed(folder: Any, *given: str) -> Any:
    """What `models --json` says."""
    return json.loads(command(folder, "models", *given, "--json"))
