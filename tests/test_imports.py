"""What `import` costs: whoever only reads a style score must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "transformers", "mlflow", "pandas", "yaml")
LIGHT_MODULES = ("", ".config", ".presets", ".options", ".dialogues", ".style", ".cli")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_none_of_the_heavy_ones(module: str) -> None:
    program = f"import sys, socratic_mlflow{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_alone_loads_none_of_its_modules() -> None:
    program = "import sys, socratic_mlflow; print([name for name in sys.modules if name.startswith('socratic_mlflow.')])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
