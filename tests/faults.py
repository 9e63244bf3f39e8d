"""The small training as a real process that faults strike at a chosen moment, and how its outcome is compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stores
import training
from mlflow import MlflowClient
from servers import wait_until
from training import Training

from socratic_mlflow.journal import Journal

# A training that stops at gates until they are opened: before step N + 1 at 'N', and once it is done but not yet
# registered at 'done'. A gate named 'fail-N' raises there instead.
GATED = """
import os, sys, time
from pathlib import Path
import socratic_mlflow.publishing as publishing
from socratic_mlflow.callback import SocraticMlflowCallback
folder, gates = Path(sys.argv[1]), sys.argv[2].split(",")
def reach(name):
    if f"fail-{name}" in gates:
        raise RuntimeError(f"no access to http://me:{os.environ['HF_TOKEN']}@host/?token={os.environ['HF_TOKEN']}")
    if name in gates:
        (folder / f"at-{name}").touch()
        while not (folder / f"open-{name}").exists():
            time.sleep(0.02)
SocraticMlflowCallback.on_step_begin = lambda self, args, state, control, **_: reach(str(state.global_step))
announce = publishing.announce
publishing.announce = lambda *args: (announce(*args), reach("done"))
from socratic_mlflow.cli import main
sys.exit(main(sys.argv[3:]))
"""

# What differs between two trainings although nothing else does.
_MEASURED = ("memory/", "train/tokens_per_s", "eval/duration_s", "summary/duration_s", "summary/evaluation_share")


def hear_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, as do all its children: not those that are tested with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A command under way in `folder`, with gates and output of its own."""

    def __init__(self, command: Sequence[str], folder: Path, scratch: Path, env: dict[str, str]) -> None:
        self._scratch = scratch
        self._out, self._err = scratch / "stdout.txt", scratch / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                stdout=out,
                stderr=err,
                env=os.environ | env,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,
            )

    @property
    def printed(self) -> str:
        """Its standard output so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """Its standard error so far."""
        return self._err.read_text(encoding="utf-8")

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        """Return once `holds()` does; fails where the process ends before."""

        def check() -> bool:
            ended = self.popen.poll() is not None
            found = bool(holds())
            assert found or not ended, f"ended before {what}: {self.printed}{self.errors}"
            return found

        wait_until(check, what)

    def reach(self, gate: int | str) -> None:
        """Wait until it stands at `gate`."""
        self.wait_for((self._scratch / f"at-{gate}").exists, f"gate {gate}")

    def open(self, gate: int | str) -> None:
        """Let it go on from `gate`."""
        (self._scratch / f"open-{gate}").touch()

    def says(self, text: str) -> None:
        """Wait until it has printed `text`."""
        self.wait_for(lambda: text in self.printed + self.errors, f"it says {text!r}")

    def end(self) -> int:
        """Wait for its end, whatever it may be; its exit code."""
        return self.popen.wait(timeout=180)

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """kill -9 to it and all that it has started."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def started(
    folder: Path, given: Sequence[str], gates: Sequence[int | str] = (), command: Sequence[str] = (), **env: str
) -> Iterator[Process]:
    """`socratic-mlflow GIVEN` (or `command`) as a process in `folder`, with `gates`; it is gone at the end."""
    number = len(list(folder.glob("process-*")))
    scratch = folder / f"process-{number}"
    scratch.mkdir(parents=True)
    own = [sys.executable, "-c", GATED, str(scratch), ",".join(map(str, gates))] if gates else []
    process = Process([*(command or own or [sys.executable, "-m", "socratic_mlflow"]), *given], folder, scratch, env)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.kill()


def finished(folder: Path, given: Sequence[str], code: int = 0, **env: str) -> str:
    """What the command printed, both streams; fails where it ends with another exit code than `code`."""
    with started(folder, given, **env) as process:
        found = process.end()
        assert found == code, process.printed + process.errors
        assert "Traceback" not in process.errors
        return process.printed + process.errors


def steps_in_journal(output: Path) -> list[int]:
    """The steps whose loss stands in the journal of `output`."""
    records = [record for record, _ in Journal(output / "journal").records()]
    return [each["step"] for each in records if each["kind"] == "metrics" and "train/loss" in each["values"]]


def undelivered_bytes(output: Path) -> int:
    """How much of the journal of `output` MLflow has not acknowledged."""
    state = output / "journal" / "delivered.json"
    offset = json.loads(state.read_text())["offset"] if state.exists() else 0
    return (output / "journal" / "records.jsonl").stat().st_size - int(offset)


def points(client: MlflowClient, run_id: str) -> dict[tuple[str, int], list[Any]]:
    """{(metric, step): its values}; None for a value that depends on the machine's mood."""
    found: dict[tuple[str, int], list[Any]] = {}
    for name in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, name):
            value = None if name.startswith(_MEASURED) else point.value
            found.setdefault((name, point.step), []).append(value)
    return found


def check_whole(reference: Training, output: Path) -> Any:
    """The store in use holds one run, which tells of a training like `reference`: returns the run."""
    run = stores.only_run()
    run_id, old_id = run.info.run_id, reference.run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags.get("error") is None
    assert not (twice := stores.logged_twice(run_id)), twice
    known = MlflowClient(reference.store, reference.store)
    assert points(MlflowClient(), run_id) == points(known, old_id)
    with stores.used(reference.store):
        files, tables = plain_artifacts(old_id), sample_tables(old_id)
    assert stores.image_steps(run_id) == training.EVALUATED, stores.image_steps(run_id)
    assert plain_artifacts(run_id) == files
    assert sample_tables(run_id) == tables
    assert {tag for tag in run.data.tags if tag.startswith("changed.")} == set()
    places = [place for place, count in Counter(table_list(run)).items() if count > 1]
    assert places == []
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert (version.run_id, version.current_stage, version.status) == (run_id, "Production", "READY")
    assert MlflowClient().get_model_version_by_alias(training.MODEL, "champion").version == version.version
    check_same_adapters(reference, output)
    return run


def check_same_adapters(reference: Training, output: Path) -> None:
    """The last checkpoint's and the best one are equal byte for byte."""
    for name in (f"checkpoints/checkpoint-{training.MAX_STEPS}", "best_adapter"):
        file = f"{name}/adapter_model.safetensors"
        assert (output / file).read_bytes() == (reference.output / file).read_bytes(), name


def plain_artifacts(run_id: str) -> list[str]:
    """The run's artifacts except images, whose names hold a time, and what an earlier start failed with."""
    return sorted(path for path in stores.artifacts(run_id) if not path.startswith(("images/", "error.txt")))


def sample_tables(run_id: str) -> list[Any]:
    """What was said at each evaluation, and before and after."""
    files = [f"samples/step_{step:06d}.json" for step in training.EVALUATED] + ["before_and_after.json"]
    return [stores.table(run_id, file) for file in files]


def table_list(run: Any) -> list[str]:
    """The tables that the run's page shows."""
    return [table["path"] for table in json.loads(run.data.tags["mlflow.loggedArtifacts"])]


def bytes_with(secret: str, *folders: Path) -> list[Path]:
    """All files below `folders` that hold `secret`."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if secret.encode() in file.read_bytes()]
