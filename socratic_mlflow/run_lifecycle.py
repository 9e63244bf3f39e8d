"""How an MLflow run begins and ends: taken up or left, FINISHED, FAILED or KILLED, also where a process was killed."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from socratic_mlflow.journal import Journal
from socratic_mlflow.records import training_of
from socratic_mlflow.redaction import redact, without_credentials
from socratic_mlflow.store_errors import is_missing, one_line, why
from socratic_mlflow.tracking import Tracker

# Lines of a traceback that the artifact error.txt holds.
_LAST_LINES = 100


def be_brief() -> None:
    """Let MLflow's client give up on a request soon, unless a person has said how soon: the journal tries again anyway."""
    # MLflow would repeat a request whose answer was lost, blindly, and so make a second run or version.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def run_of(journal: Path) -> str:
    """The run that the next start with the journal in that folder goes on with; '' where it is a new one."""
    made_for_us = os.environ.get("MLFLOW_RUN_ID", "")
    return str(Journal(journal).delivered().get("run_id", "") or training_of(Journal(journal)).get("run_id", made_for_us))


def store_trouble(run_id: str = "") -> str:
    """Why MLflow's server does not answer, or '' if it does; ValueError (one line) where trying again would not help, or
    where it does not have the run `run_id` (any more)."""
    import mlflow

    uri = without_credentials(mlflow.get_tracking_uri())
    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    # Of a local database, whatever its driver raises.
    except Exception as error:
        away = getattr(error, "error_code", "") in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
        if uri.startswith(("http://", "https://")) and away and type(error).__name__ != "InvalidUrlException":
            return why(error)
        raise ValueError(f"MLflow's tracking store {uri} cannot be used: {one_line(error, 1000)}") from None
    if run_id:
        _check_run(run_id)
    return ""


def _check_run(run_id: str) -> None:
    """ValueError (one line, with the way out) where the run is deleted, or MLflow does not have it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    new_run = "let 'socratic-mlflow sync OUTPUT_DIR --new-run' put the training into a new one"
    try:
        stage = MlflowClient().get_run(run_id).info.lifecycle_stage
    except MlflowException as error:
        if is_missing(error):
            raise ValueError(
                f"MLflow has no run {run_id}; correct or unset MLFLOW_RUN_ID, or where its database has lost it, {new_run}"
            ) from None
        # It has just gone away, which is no reason to stop.
        return
    if stage != "active":
        raise ValueError(
            f"run {run_id}, which holds this training, is deleted; restore it, {new_run}, or choose another output_dir"
        )


@contextmanager
def training_run(folder: Path, say: Callable[[str], None]) -> Iterator[Tracker]:
    """The run whose journal lies in `folder`, else the one that `mlflow run` made for this process, else a new one.

    It is left FAILED on an exception (with its last line as the tag `error`, and its last lines as the artifact
    error.txt) and KILLED on Ctrl-C and SIGTERM; what leaves it FINISHED is the registration of its model.
    """
    made_for_us = os.environ.get("MLFLOW_RUN_ID", "")
    with open_tracker(folder, say, made_for_us) as tracker:
        tracker.start(made_for_us)
        try:
            yield tracker
        except BaseException as error:
            end_badly(tracker, error)
            if text := undelivered(tracker, folder.parent):
                say(f"warning: {text}")
            raise


@contextmanager
def evaluation_run(run_id: str = "") -> Iterator[Tracker]:
    """The run `run_id`, or a new one, for something short: at the end all is delivered, else ConnectionError (one line)."""
    from socratic_mlflow.progress import say

    with (
        tempfile.TemporaryDirectory() as folder,
        open_tracker(Path(folder), say, run_id or os.environ.get("MLFLOW_RUN_ID", "")) as tracker,
    ):
        tracker.start()
        deliver(tracker)
        tracker.ship()
        try:
            yield tracker
        except BaseException as error:
            end_badly(tracker, error)
            raise
        tracker.end("FINISHED")
        deliver(tracker)


def deliver(tracker: Tracker) -> None:
    """Deliver everything; ConnectionError (one line) where MLflow is away and stays away for half a minute."""
    for wait_s in (1, 2, 4, 8, 15, 0):
        if tracker.drain():
            return
        time.sleep(wait_s)
    raise ConnectionError(f"MLflow cannot be reached ({tracker.trouble}), so what was found is not logged")


@contextmanager
def open_tracker(folder: Path, say: Callable[[str], None], run_id: str = "", new_run: bool = False) -> Iterator[Tracker]:
    """The tracker of the journal in `folder`; where its last process was killed, its run is closed."""
    tracker = Tracker(folder, say, run_id, new_run)
    try:
        if left := left_running(folder):
            tracker.end_orphan(left)
        yield tracker
    finally:
        tracker.close()


def left_running(folder: Path) -> str:
    """'process PID on HOST' where the last process that wrote the journal in `folder` never ended its run, else ''."""
    last = None
    # A training that is done, and whose model waits to be registered, was not killed.
    for record, _ in Journal(folder).records(kinds=("start", "end", "register")):
        last = record
    return f"process {last.get('pid')} on {last.get('host')}" if last and last["kind"] == "start" else ""


def end_badly(tracker: Tracker, error: BaseException) -> None:
    """End the run as `error` has it: KILLED where a person or the machine stopped it, else FAILED."""
    tags = {"error": redact(f"{type(error).__name__}: {error}")[:500]}
    if isinstance(error, KeyboardInterrupt | SystemExit):
        # Who stops a process may not wait long: Kubernetes gives it half a minute.
        tracker.end("KILLED", tags, patience_s=5)
    else:
        lines = "".join(traceback.format_exception(error)).splitlines()
        tracker.end("FAILED", tags, "\n".join(lines[-_LAST_LINES:]))


def point_to(run_id: str) -> None:
    """Let the run that `mlflow run` made for this process, if any, lead to the one that holds the training."""
    made_for_us = os.environ.get("MLFLOW_RUN_ID")
    if made_for_us and made_for_us != run_id:
        from mlflow import MlflowClient

        # Not worth an error: it is a convenience, and MLflow may be away.
        with contextlib.suppress(Exception):
            MlflowClient().set_tag(made_for_us, "see_run", run_id)


def undelivered(tracker: Tracker, folder: Path) -> str:
    """What to say of a journal that MLflow does not have in full; '' where it has."""
    return how_to_deliver(tracker, folder) if tracker.trouble else ""


def how_to_deliver(tracker: Tracker, folder: Path) -> str:
    """What a person does about a journal in `folder` that MLflow does not have in full."""
    if tracker.is_gone:
        return (
            f"MLflow no longer has this run ({tracker.trouble}); everything is in {tracker.folder}. Restore the run in "
            f"MLflow, or let 'socratic-mlflow sync {folder} --new-run' put it into a new one"
        )
    return (
        f"MLflow has not received everything; all of it is in {tracker.folder}. Once MLflow can be reached, "
        f"'socratic-mlflow sync {folder}' delivers it"
    )
