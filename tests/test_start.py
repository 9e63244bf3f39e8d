"""What a start imports and holds: no library for commands that need none, no more than needed before the first step."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = ("torch", "numpy", "transformers", "mlflow", "pandas", "matplotlib", "scipy", "datasets", "peft", "yaml")


def printed_last(program: str, *arguments: Any, folder: Path | None = None) -> Any:
    """What `program`, run in a process of its own, printed as JSON in its last line."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LIGHT_COMMAND = f"""
import json, sys
from socratic_mlflow.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    assert not stopped.code
print(json.dumps([name for name in {LIBRARIES!r} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("train", "--help"),
        ("score", "では、君は正義について何を考えているのかね？"),
        ("score", "--json", "そうかね。"),
        ("score", "--file", "bundled"),
    ],
    ids=" ".join,
)
def test_help_and_score_import_no_library(arguments):
    assert printed_last(LIGHT_COMMAND, *arguments) == []


COLLECTOR = """
import gc, json, sys
{before}
from socratic_mlflow.importing import quick_imports
seen = []
try:
    with quick_imports():
        seen.append(gc.isenabled())
        import {library}
        {then}
except ValueError:
    pass
print(json.dumps(seen + [gc.isenabled(), gc.get_freeze_count() > 0]))
"""


@pytest.mark.parametrize("then", ["pass", "raise ValueError"])
def test_the_collector_waits_while_libraries_are_imported_and_leaves_them_alone(then):
    assert printed_last(COLLECTOR.format(before="", library="torch", then=then)) == [False, True, True]


@pytest.mark.parametrize(("before", "enabled"), [("import torch", True), ("gc.disable()", False)])
def test_the_collector_of_a_program_that_is_under_way_is_left_as_it_is(before, enabled):
    assert printed_last(COLLECTOR.format(before=before, library="json", then="pass")) == [enabled, enabled, False]


FIRST_FORWARD = """
import gc, json, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "socratic_mlflow.trainer":
            from torch.nn.modules.module import register_module_forward_pre_hook
            self.enabled_before = gc.isenabled()
            self.hook = register_module_forward_pre_hook(self.first)

    def first(self, module, inputs):
        self.hook.remove()
        self.loaded, self.frozen, self.enabled = set(sys.modules), gc.get_freeze_count(), gc.isenabled()

watch = Watch()
sys.meta_path.insert(0, watch)
from socratic_mlflow.cli import main
assert main(sys.argv[1:]) == 0
late = ["matplotlib", "scipy.stats", "sklearn", "IPython", "torchvision", "mlflow.transformers"]
print(json.dumps({
    "loaded": [name for name in late if name in watch.loaded],
    "collector while importing, at the first pass": [watch.enabled_before, watch.enabled],
    "frozen": watch.frozen,
}))
"""


def test_before_the_first_forward_pass_nothing_is_imported_that_it_does_not_need(training_inputs, tmp_path):
    import training

    given = training.arguments(training_inputs, max_steps=1, eval_steps=1)
    found = printed_last(FIRST_FORWARD, *given, folder=tmp_path)
    assert found["loaded"] == []
    assert found["collector while importing, at the first pass"] == [False, True]
    # The libraries alone are several hundred thousand objects.
    assert found["frozen"] > 300_000


ONE_BASE = """
import gc, json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
loaded = mlflow.pyfunc.load_model(sys.argv[2])
loaded.predict("正義とは？")
kind = type(loaded.unwrap_python_model().model.get_base_model())
print(json.dumps(sum(isinstance(found, kind) for found in gc.get_objects())))
"""


def test_a_loaded_version_is_one_object_of_its_bases_class(trained, tmp_path):
    import training

    assert printed_last(ONE_BASE, trained.store, f"models:/{training.MODEL}/1", folder=tmp_path) == 1


PEAK = """
import json, resource, sys
from types import SimpleNamespace
import psutil, socratic_mlflow.trainer
from socratic_mlflow.config import Config, with_values
from socratic_mlflow.model import base_revision, load_base, resolve_dtype
from socratic_mlflow.serving import SocraticModel
how, base, adapter = sys.argv[1:]
settings = {"model.base_model": base, "quantization.load_in_4bit": False}
config = resolve_dtype(with_values(Config(), settings))
settings["model.revision"] = base_revision(config.model)
before = psutil.Process().memory_info().rss
if how == "base":
    held = load_base(config.model, config.quantization)
else:
    held = SocraticModel()
    held.load_context(SimpleNamespace(model_config=settings, artifacts={"adapter": adapter}))
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_serving_holds_its_base_once(tmp_path):
    import tiny

    from socratic_mlflow.model import attach_adapter, load_base

    base = tiny.save_base(tmp_path / "base", width=1024, layers=4)
    config = tiny.config(base, quantization__load_in_4bit=False)
    attach_adapter(load_base(config.model, config.quantization), config).save_pretrained(tmp_path / "adapter")
    size = (base / "model.safetensors").stat().st_size
    assert size > 100e6
    alone, served = (printed_last(PEAK, how, base, tmp_path / "adapter") for how in ("base", "served"))
    assert alone > 0.8 * size
    assert served < alone + 0.5 * size


@pytest.mark.parametrize(
    ("first", "second"), [("version", "base"), ("version", "version"), ("adapter", "version"), ("base", "adapter")]
)
def test_of_two_models_that_are_compared_one_is_in_memory_at_a_time(trained, training_inputs, monkeypatch, first, second):
    import weakref

    import training

    from socratic_mlflow import named_model

    names = {"version": f"models:/{training.MODEL}/1", "adapter": str(trained.output / "best_adapter"), "base": "base"}
    load, loaded, left = named_model.load, [], []

    def watched(name, fields):
        left.extend(each() for each in loaded if each() is not None)
        named = load(name, fields)
        parts = [named.model, getattr(named.model, "get_base_model", lambda: named.model)()]
        loaded.extend(map(weakref.ref, parts))
        return named

    monkeypatch.setattr(named_model, "load", watched)
    given = ["evaluate", names[first], "--against", names[second], "--max_new_tokens", "4", "--max_samples", "2"]
    if "base" in (first, second):
        given += ["--preset", "embedded", "--base_model", str(training_inputs / "base")]
    # Whether the collector happens to run in between is not to decide.
    gc.disable()
    try:
        code, _ = training.command(trained.folder, given)
    finally:
        gc.enable()
    assert (code, len(loaded), left) == (0, 4, [])
