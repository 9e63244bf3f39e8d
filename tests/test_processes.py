"""Several processes for one training: the steps of one process, one MLflow run, and all of them end together."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import psutil
import pytest
import stores
import torch
import training
from mlflow import MlflowClient
from safetensors.torch import load_file
from training import Training

from socratic_mlflow.accelerate_file import accelerate_settings
from socratic_mlflow.companions import _fate
from socratic_mlflow.config import Config, with_values
from socratic_mlflow.launching import _see_own_gpu
from socratic_mlflow.ranks import split_batch
from socratic_mlflow.trainer import training_arguments

# Without dropout, whose noise is each process' own. An epoch is a step of ten dialogues and one of a single one, of which
# the second process gets nothing.
SAME = {"lora_dropout": 0, "batch_size": 2, "gradient_accumulation_steps": 5, "gradient_checkpointing": True}
STEPS = ("train/loss", "train/grad_norm", "train/learning_rate", "train/epoch", "eval/loss", "eval/teacher_forced_style")


def given(inputs: Path, processes: int, output: str = "out", **changes: Any) -> list[str]:
    return training.arguments(inputs, output, **SAME | {"num_processes": processes} | changes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, training_inputs: Path, empty_database: Path) -> Training:
    """The training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    uri = stores.make(folder, "sqlite", empty_database)
    with stores.used(uri):
        code, printed = training.command(folder, given(training_inputs, 1))
        assert code == 0, printed
        return Training(folder, [], printed, uri, stores.only_run())


@pytest.fixture
def out(sqlite_store: str, tmp_path: Path) -> Iterator[Path]:
    """An output folder, not made yet; MLflow's store is in use."""
    return tmp_path / "out"


def history(run: Any, name: str, store: str | None = None) -> dict[int, float]:
    points = MlflowClient(store).get_metric_history(run.info.run_id, name)
    assert len({point.step for point in points}) == len(points), name
    return {point.step: point.value for point in points}


def tokens_seen(out: Path) -> int:
    """How many tokens all steps have read, which is what train/tokens_per_s counts."""
    state = json.loads((out / "checkpoints" / f"checkpoint-{training.MAX_STEPS}" / "trainer_state.json").read_text())
    return int(state["num_input_tokens_seen"])


def check_same(alone: Training, out: Path) -> Any:
    """The one run of the store in use has the curves, replies, version and adapter of the training `alone`."""
    run = stores.only_run()
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() == alone.run.data.metrics.keys()
    for name in STEPS:
        assert history(run, name) == pytest.approx(history(alone.run, name, alone.store), rel=2e-3, abs=1e-6), name
    assert tokens_seen(out) == tokens_seen(alone.output)
    with stores.used(alone.store):
        tables = faults.sample_tables(alone.run.info.run_id)
    assert faults.sample_tables(run.info.run_id) == tables
    assert run.data.metrics["summary/best_style"] == alone.run.data.metrics["summary/best_style"]
    assert len(MlflowClient().search_model_versions(f"name='{training.MODEL}'")) == 1
    mine, other = (load_file(folder / "best_adapter" / "adapter_model.safetensors") for folder in (out, alone.output))
    # AdamW's step hardly depends on a gradient's size, so rounding shows where a gradient is nearly zero.
    assert all((mine[name] - weight).abs().max() < 0.02 for name, weight in other.items())
    return run


def companions(process: faults.Process) -> list[psutil.Process]:
    return [each for each in psutil.Process(process.popen.pid).children() if each.cmdline()[-1:] == ["train"]]


def test_two_processes_make_the_steps_of_one_in_one_run_and_say_what_one_says(
    alone: Training, training_inputs: Path, tmp_path: Path, out: Path
) -> None:
    printed = faults.finished(tmp_path, given(training_inputs, 2))
    run = check_same(alone, out)
    assert run.data.params["run.num_processes"] == "2"
    assert run.data.params | {"run.num_processes": "1", "environment.device": ""} == alone.run.data.params | {
        "environment.device": ""
    }
    assert stores.image_steps(run.info.run_id) == training.EVALUATED
    changing = r"about .* left|run \w{32}"
    assert re.sub(changing, "", printed) == re.sub(changing, "", alone.printed)


@pytest.mark.faults
def test_sigterm_ends_all_at_one_checkpoint_and_they_go_on_from_it_in_the_middle_of_an_epoch(
    alone: Training, training_inputs: Path, tmp_path: Path, out: Path
) -> None:
    with faults.started(tmp_path, given(training_inputs, 2), gates=[2]) as process:
        process.reach(2)
        (companion,) = companions(process)
        os.killpg(process.popen.pid, signal.SIGTERM)
        process.says("a checkpoint written first")
        process.open(2)
        assert process.end() == 130
        assert process.errors.splitlines()[-1] == "socratic-mlflow: interrupted"
        assert "Traceback" not in process.errors
        assert not companion.is_running()
    assert stores.only_run().info.status == "KILLED"
    assert "going on from out/checkpoints/checkpoint-3" in faults.finished(tmp_path, given(training_inputs, 2))
    check_same(alone, out)


@pytest.mark.faults
def test_a_process_that_is_killed_ends_all_with_one_line_and_one_process_goes_on(
    alone: Training, training_inputs: Path, tmp_path: Path, out: Path
) -> None:
    with faults.started(tmp_path, given(training_inputs, 2), gates=[5]) as process:
        process.reach(5)
        (companion,) = companions(process)
        companion.kill()
        process.open(5)
        assert process.end() == 1
        line = "process 2 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint"
        assert process.errors.splitlines()[-1] == f"socratic-mlflow: error: {line}"
        assert "Traceback" not in process.errors
    run = stores.only_run()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", f"ConnectionError: {line}")
    assert "going on from out/checkpoints/checkpoint-4" in faults.finished(tmp_path, given(training_inputs, 1))
    assert check_same(alone, out).data.tags["changed.run.num_processes"] == "2 -> 1"


@pytest.mark.faults
def test_the_others_end_when_the_first_one_is_killed(training_inputs: Path, tmp_path: Path, out: Path) -> None:
    with faults.started(tmp_path, given(training_inputs, 2), gates=[1]) as process:
        process.reach(1)
        (companion,) = companions(process)
        process.popen.kill()
        _, alive = psutil.wait_procs([companion], timeout=20)
        assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_processes_that_torchrun_has_started_train_together_too(
    alone: Training, training_inputs: Path, tmp_path: Path, out: Path, again: bool
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "socratic_mlflow"]
    command = [sys.executable, *launcher]
    fields = [field for field in given(training_inputs, 1) if not field.startswith("--num_processes")]
    with faults.started(tmp_path, fields, command=command) as process:
        assert process.end() == 0, process.errors
    assert check_same(alone, out).data.params["run.num_processes"] == "2"
    if again:
        with faults.started(tmp_path, fields, command=command) as process:
            assert process.end() == 0, process.errors
            assert process.printed.count("This training has finished already") == 1


@pytest.mark.slow
def test_mlflow_run_takes_the_number_of_processes(
    alone: Training, training_inputs: Path, tmp_path: Path, out: Path, repository: Path
) -> None:
    command = [sys.executable, "-m", "mlflow", "run", str(repository), "--env-manager", "local"]
    fields = given(training_inputs, 2, str(out))[1:]
    options = [part for field in fields for part in ("-P", field.removeprefix("--"))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with faults.started(tmp_path, options, command=command, PATH=path) as process:
        assert process.end() == 0, process.errors
    check_same(alone, out)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "each"),
    [
        (4, 8, 1, (4, 8)),
        (4, 8, 2, (4, 4)),
        (4, 8, 8, (4, 1)),
        (4, 8, 32, (1, 1)),
        (16, 1, 2, (8, 1)),
        (6, 3, 9, (2, 1)),
        (10, 6, 4, (5, 3)),
    ],
)
def test_a_step_has_as_many_dialogues_whatever_the_number_of_processes(
    batch_size: int, accumulation: int, processes: int, each: tuple[int, int]
) -> None:
    assert split_batch(batch_size, accumulation, processes) == each
    assert each[0] * each[1] * processes == batch_size * accumulation


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        (
            {"num_processes": 3},
            {},
            "num_processes 3 does not divide batch_size 2 x gradient_accumulation_steps 5, the dialogues of one optimizer "
            "step; change one of the three",
        ),
        ({"num_processes": 0}, {}, "run.num_processes is 0; allowed: at least 1 and at most 1024"),
        (
            {"num_processes": 5},
            {"WORLD_SIZE": "2", "RANK": "0"},
            "num_processes is 5, but this was launched as 2 processes; leave it out",
        ),
        ({}, {"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is ''; start it by accelerate launch or torchrun"),
    ],
)
def test_what_cannot_be_is_one_line(
    training_inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, int],
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        training.command(tmp_path, given(training_inputs, 1, **changes))
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"socratic-mlflow: error: {said}\n"
    assert not (tmp_path / "out").exists()


FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP, fsdp_state_dict_type: FULL_STATE_DICT}
mixed_precision: bf16
num_machines: 1
num_processes: 2
use_cpu: false
"""


def test_an_accelerate_config_says_how_a_model_is_shared_and_nothing_of_what_is_computed(tmp_path: Path) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text(FSDP)
    found, note = accelerate_settings(str(file), 2)
    assert found["ACCELERATE_USE_FSDP"] == "true"
    assert found["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert found["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert {name for name in found if not name.startswith("FSDP_")} == {"ACCELERATE_USE_FSDP"}
    assert note == (
        f"note   accelerate_config {file}: mixed_precision bf16 is not used; bnb_4bit_compute_dtype says how to compute"
    )
    file.write_text(FSDP.replace("bf16", "'no'"))
    assert accelerate_settings(str(file), 2) == (found, "")


def test_the_precision_that_accelerate_launch_asks_for_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = with_values(Config(), {"quantization.bnb_4bit_compute_dtype": "float32"})
    assert training_arguments(config, tmp_path, fresh=True).mixed_precision == "no"


@pytest.mark.parametrize("kind", ["DEEPSPEED", "MEGATRON_LM"])
def test_an_accelerate_config_for_another_way_to_share_a_model_is_one_line(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(FSDP.replace("FSDP", kind, 1))
    with pytest.raises(ValueError) as caught:
        accelerate_settings(str(file), 2)
    assert str(caught.value) == f"accelerate_config {file}: {kind} cannot be used here; give MULTI_GPU or FSDP"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fsdp_without_a_gpu_is_one_line(
    training_inputs: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fsdp.yaml").write_text(FSDP)
    with pytest.raises(SystemExit):
        training.command(tmp_path, given(training_inputs, 2, accelerate_config=tmp_path / "fsdp.yaml"))
    said = "FSDP needs GPUs, and this machine has none; leave it out"
    assert capsys.readouterr().err == f"socratic-mlflow: error: accelerate_config {tmp_path}/fsdp.yaml: {said}\n"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SystemExit):
        training.command(tmp_path, given(training_inputs, 2))
    assert capsys.readouterr().err == f"socratic-mlflow: error: ACCELERATE_USE_FSDP: {said}\n"


@pytest.mark.parametrize("text", [None, "distributed_type: [", "no_such_field: 1\n", "- 1\n"])
def test_an_accelerate_config_that_accelerate_does_not_take_is_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=rf"^accelerate_config {file}: .+") as caught:
        accelerate_settings(str(file), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (-9, "", "was killed (SIGKILL)"),
        (-200, "", "was killed (signal 200)"),
        (1, "", "failed (exit code 1)"),
        (1, "a warning\nsocratic-mlflow: error: out of memory (8 GiB)\n", "failed (out of memory (8 GiB))"),
        (1, "Traceback\n  in it\nRuntimeError: 言葉\n", "failed (RuntimeError: 言葉)"),
    ],
)
def test_what_a_process_said_last_is_passed_on(code: int, words: str, said: str) -> None:
    assert _fate(code, io.BytesIO(words.encode())) == said


@pytest.mark.parametrize(
    ("seen", "number", "own", "its_number"),
    [
        (None, 1, "1", "0"),
        ("0,1", 1, "1", "0"),
        ("2,5", 1, "5", "0"),
        ("GPU-a,GPU-b", 0, "GPU-a", "0"),
        ("", 1, "", "1"),
        ("-1", 1, "-1", "1"),
    ],
)
def test_each_process_sees_one_gpu_which_is_its_first_and_none_where_they_are_hidden(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, number: int, own: str, its_number: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen or "")
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("LOCAL_RANK", str(number))
    _see_own_gpu()
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["LOCAL_RANK"]) == (own, its_number)
