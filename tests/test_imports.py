"""What `import` costs: whoever only reads a style score must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "transformers", "mlflow", "pandas", "yaml")
LIGHT_MODULES = ("", ".config", ".presets", ".options", ".dialogues", ".style", ".cli")
# What runs where a disk is full, or MLflow or memory is away, needs nothing that could be away as well.
STANDARD_LIBRARY_ONLY = ("journal", "records", "files", "checkpoints", "lock", "redaction", "failures")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_none_of_the_heavy_ones(module: str) -> None:
    program = f"import sys, socratic_mlflow{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_what_must_always_work_needs_the_standard_library_alone(module: str) -> None:
    program = (
        f"import sys; before = set(sys.modules); import socratic_mlflow.{module}; "
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(loaded - sys.stdlib_module_names))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['socratic_mlflow']"


def test_the_package_alone_loads_none_of_its_modules() -> None:
    program = "import sys, socratic_mlflow; print([name for name in sys.modules if name.startswith('socratic_mlflow.')])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
