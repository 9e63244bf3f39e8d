"""conda.yaml, pyproject.toml and MLproject must agree with each other and with the configuration."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import socratic_mlflow
from socratic_mlflow.cli import build_parser
from socratic_mlflow.config import Config, flatten
from socratic_mlflow.options import NOT_GIVEN, as_params, build_config, by_name

# What DESIGN.md promises to users: these flags have short names.
PROMISED_FLAGS = {
    "epochs", "preset", "base_model", "data", "learning_rate", "batch_size", "lora_r", "seed", "output_dir",
    "registered_model_name", "promote", "resume",
}  # fmt: skip
PROMISED_KEYS = {
    "training.learning_rate": "learning_rate",
    "lora.r": "lora_r",
    "quantization.bnb_4bit_quant_type": "bnb_4bit_quant_type",
    "model.base_model": "base_model",
    "data.path": "data",
}
# Entry point -> its command, and that one's own parameters.
COMMANDS = {"main": "train", "sweep": "sweep"}
OWN = {"main": {}, "sweep": {"n_trials": "int", "space": "string", "storage": "string"}}
MLFLOW_TYPES = {int: "int", float: "float", str: "string"}


@pytest.fixture(scope="module")
def mlproject(repository: Path) -> dict[str, Any]:
    """MLproject as YAML."""
    return dict(yaml.safe_load((repository / "MLproject").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    """pyproject.toml as a dictionary."""
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def conda(repository: Path) -> dict[str, Any]:
    """conda.yaml as YAML."""
    return dict(yaml.safe_load((repository / "conda.yaml").read_text(encoding="utf-8")))


def pins(conda: dict[str, Any]) -> list[Requirement]:
    (pip,) = (part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    return [Requirement(line) for line in pip]


def test_conda_pins_exact_versions(conda: dict[str, Any]) -> None:
    for pin in pins(conda):
        assert re.fullmatch(r"==\d+(\.\d+)+", str(pin.specifier)), f"{pin} is no exact version"


def test_conda_and_pyproject_name_the_same_packages_once(conda: dict[str, Any], pyproject: dict[str, Any]) -> None:
    pinned = [pin.name for pin in pins(conda)]
    ranged = [Requirement(line).name for line in pyproject["project"]["dependencies"]]
    assert sorted(pinned) == sorted(ranged)
    assert len(set(pinned)) == len(pinned)


def test_every_pin_lies_in_its_range(conda: dict[str, Any], pyproject: dict[str, Any]) -> None:
    ranges = {r.name: r.specifier for r in map(Requirement, pyproject["project"]["dependencies"])}
    for pin in pins(conda):
        (exact,) = pin.specifier
        assert Version(exact.version) in ranges[pin.name], f"{pin} is not in {ranges[pin.name]}"


def test_every_range_has_both_ends(pyproject: dict[str, Any]) -> None:
    for line in pyproject["project"]["dependencies"]:
        operators = {part.operator for part in Requirement(line).specifier}
        assert {">=", "<"} <= operators, line


def test_condas_python_is_one_that_pyproject_takes(conda: dict[str, Any], pyproject: dict[str, Any]) -> None:
    (python,) = (part for part in conda["dependencies"] if isinstance(part, str) and part.startswith("python="))
    required = Requirement(f"python{pyproject['project']['requires-python']}").specifier
    assert Version(python.removeprefix("python=")) in required
    assert str(required) == ">=3.11"


def test_package_version_is_declared_once(pyproject: dict[str, Any]) -> None:
    assert "version" in pyproject["project"]["dynamic"]
    assert Version(socratic_mlflow.__version__)


def test_console_script_and_package_data(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["scripts"] == {"socratic-mlflow": "socratic_mlflow.cli:main"}
    assert set(pyproject["tool"]["setuptools"]["package-data"]["socratic_mlflow"]) >= {"data/*", "base/*"}


def test_mlproject_names_an_environment_that_exists(mlproject: dict[str, Any], repository: Path) -> None:
    assert mlproject["name"] == "socratic-mlflow"
    assert mlproject["conda_env"] == "conda.yaml"
    assert (repository / mlproject["conda_env"]).is_file()
    assert list(mlproject["entry_points"]) == list(COMMANDS)


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_mlproject_parameters_are_fields_with_fitting_types(mlproject: dict[str, Any], entry_point: str) -> None:
    parameters = dict(mlproject["entry_points"][entry_point]["parameters"])
    assert parameters.keys() >= PROMISED_FLAGS
    assert {name: parameters.pop(name)["type"] for name in OWN[entry_point]} == OWN[entry_point]
    fields = by_name()
    for name, parameter in parameters.items():
        assert fields[name].flag == name
        assert parameter["type"] == MLFLOW_TYPES[fields[name].type], name


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_mlproject_has_no_default_of_its_own(mlproject: dict[str, Any], entry_point: str) -> None:
    parameters = mlproject["entry_points"][entry_point]["parameters"]
    assert {parameter["default"] for parameter in parameters.values()} == {NOT_GIVEN}
    given = {name: parameter["default"] for name, parameter in parameters.items() if name not in OWN[entry_point]}
    assert build_config({"preset": "gemma-2-2b-jpn-it"} | given, cuda_available=lambda: True) == build_config(
        {}, cuda_available=lambda: True
    )


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_mlproject_command_passes_each_parameter_once(mlproject: dict[str, Any], entry_point: str) -> None:
    main = mlproject["entry_points"][entry_point]
    passed = re.findall(r"--(\S+) \{(\w+)\}", main["command"])
    assert [flag for flag, _ in passed] == [name for _, name in passed]
    assert sorted(name for _, name in passed) == sorted(main["parameters"])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"epochs": "3"},
        {"preset": "embedded", "data": "my data/対話.json", "learning_rate": "1e-3"},
        {"weight_decay": "0.5", "training.warmup_ratio": "0.5", "load_in_4bit": "false"},
        {"style_profile": "my styles/武士.yaml", "metric_for_best_model": "socratic_tone"},
    ],
)
def test_mlflow_makes_a_command_of_it_that_gives_the_same_configuration(
    repository: Path, tmp_path: Path, given: dict[str, str], name: str
) -> None:
    from mlflow.projects._project_spec import load_project

    entry_point = load_project(str(repository)).get_entry_point(name)
    command = shlex.split(entry_point.compute_command(given, str(tmp_path)))
    assert command[:3] == ["python", "-m", "socratic_mlflow"]
    parsed = vars(build_parser().parse_args(command[3:]))
    seen = {key: value for key, value in parsed.items() if "." in key and value is not None}
    assert parsed["command"] == COMMANDS[name]
    assert build_config(seen) == build_config(given)


def test_promised_names_exist() -> None:
    fields = by_name()
    assert fields.keys() >= PROMISED_FLAGS
    assert {key: fields[key].flag for key in PROMISED_KEYS} == PROMISED_KEYS
    assert Config().registry.registered_model_name == "socratic-gemma"


def test_every_logged_configuration_key_is_dotted() -> None:
    keys = as_params(Config()).keys()
    assert keys == flatten(Config()).keys()
    # Dotted keys stay clear of the params that `mlflow run` logs under the bare names of MLproject's parameters.
    assert all(re.fullmatch(r"[a-z]+\.\w+", key) for key in keys)
