"""What a stored model says that it needs is what it imports; and a version of an older release still loads."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import pytest
import serving
import tiny
import training
import yaml

from socratic_mlflow.registry import requirements

URI = f"models:/{training.MODEL}/1"


def imports(file):
    """(modules of this package, other packages) that `file` imports anywhere, its functions included."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            (own.add(rest[0]) if top == "socratic_mlflow" and rest else others.add(top))
    return own, others - sys.stdlib_module_names


def reached_from(start, repository):
    """The packages that the module `start` and those of this package that it needs import."""
    waiting, seen, others = {start}, set(), set()
    while waiting:
        name = waiting.pop()
        file = repository / "socratic_mlflow" / f"{name}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        own, found = imports(file)
        waiting, others = waiting | own, others | found
    return others


def test_what_serving_imports_is_required(repository):
    needed = reached_from("serving_model", repository) - {"socratic_mlflow"}
    distributions = packages_distributions()
    required = {line.partition("==")[0].lower() for line in requirements()}
    assert {"torch", "transformers", "peft", "mlflow", "jinja2"} <= needed
    missing = {name for name in needed if not required & {each.lower() for each in distributions[name]}}
    assert not missing


def test_every_requirement_is_pinned_and_stored_with_the_model(trained):
    stored = Path(mlflow.pyfunc.get_model_dependencies(URI)).read_text().split()
    assert sorted(stored) == sorted(requirements())
    assert all("==" in line for line in stored)


@pytest.fixture
def older_model(trained, tmp_path):
    """The stored model as a release before params and bounds would have left it, without the source beside it."""
    folder = Path(mlflow.artifacts.download_artifacts(URI, dst_path=str(tmp_path / "older")))
    recipe = yaml.safe_load((folder / "MLmodel").read_text())
    recipe["signature"]["params"] = None
    flavor = recipe["flavors"]["python_function"]
    del flavor["config"]["serving.max_prompt_tokens"], flavor["code"]
    (folder / "MLmodel").write_text(yaml.safe_dump(recipe))
    shutil.rmtree(folder / "code")
    return folder


def test_a_version_of_an_older_release_loads_and_answers_the_same(older_model):
    expected = mlflow.pyfunc.load_model(URI).predict(tiny.QUESTIONS[:3])
    assert mlflow.pyfunc.load_model(str(older_model)).predict(tiny.QUESTIONS[:3]) == expected


@pytest.mark.parametrize("bound", [0, "many", True])
def test_a_wrong_bound_is_one_clear_line(trained, bound):
    with pytest.raises(Exception, match=r"serving\.max_prompt_tokens is .*; allowed: a whole number at least 1$"):
        mlflow.pyfunc.load_model(URI, model_config={"serving.max_prompt_tokens": bound})


def test_a_server_may_have_a_bound_of_its_own(trained):
    model = mlflow.pyfunc.load_model(URI, model_config={"serving.max_prompt_tokens": 3})
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"this server takes at most 3$"):
        model.predict("正義とは何か")


@pytest.mark.slow
def test_an_environment_of_its_own_requirements_alone_answers(trained, tmp_path, monkeypatch):
    """Minutes: installs the model's requirements from the package index that pip is set up for."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = Path(mlflow.artifacts.download_artifacts(URI, dst_path=str(tmp_path / "model")))
    venv.create(tmp_path / "clean", with_pip=True)
    python = str(tmp_path / "clean" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(folder / "requirements.txt")], check=True)
    command = ["-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "--host", "127.0.0.1"]
    with serving.started(command, tmp_path, trained.store, "/health", python) as site:
        connection = site.connect()
        status, body = serving.post(connection, "/invocations", {"inputs": tiny.QUESTIONS[:3]})
        connection.close()
    assert (status, json.loads(body)["predictions"]) == (200, mlflow.pyfunc.load_model(URI).predict(tiny.QUESTIONS[:3]))
