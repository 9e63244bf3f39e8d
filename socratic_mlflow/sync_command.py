"""`socratic-mlflow sync`: what MLflow missed of a training is delivered from its journal, and its model registered."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from socratic_mlflow.lock import hold
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.quiet import quiet

JOURNALS = "journal*/records.jsonl"
_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def sync(folder: str | None, new_run: bool = False) -> int:
    """Deliver the journals in `folder`, or those of all trainings in outputs/; returns the exit code: 1 where MLflow is
    away, 2 where one could not be delivered at all. With `new_run` everything in `folder` goes into a new run.

    ValueError (one line) where there is no journal.
    """
    quiet()
    from socratic_mlflow.quiet import quiet_transformers
    from socratic_mlflow.run_lifecycle import be_brief

    quiet_transformers()
    be_brief()
    folders = [Path(folder)] if folder else sorted(path.parent.parent for path in Path("outputs").glob(f"*/{JOURNALS}"))
    if not any(next(each.glob(JOURNALS), None) for each in folders):
        raise ValueError(f"{folder or 'outputs'}: holds no journal; give the output_dir of a training")
    if new_run and not folder:
        raise ValueError("--new-run needs the OUTPUT_DIR whose run is gone")
    # Before anything else sets it: what a person has chosen.
    chosen = "MLFLOW_TRACKING_URI" in os.environ
    if folder:
        return _sync_locked(OutputDir(Path(folder)), chosen, new_run)
    return max(_sync_or_say(OutputDir(each), chosen) for each in dict.fromkeys(folders))


def sync_one(output: OutputDir, chosen: bool = True, new_run: bool = False) -> int:
    """Deliver the journals of one output folder, which this process holds; returns the exit code.

    `chosen` says that MLflow's present store is a person's choice; else each journal's own is taken.
    """
    from socratic_mlflow.progress import say
    from socratic_mlflow.publishing import finish
    from socratic_mlflow.run_lifecycle import how_to_deliver, open_tracker

    code = 0
    for file in sorted(output.folder.glob(JOURNALS)):
        if not chosen:
            _use_store_of(file.parent)
        with hold(file.parent), open_tracker(file.parent, say, new_run=new_run) as tracker:
            if file.parent == output.journal:
                if new_run:
                    _forget_run(output)
                code = max(code, 0 if finish(output, tracker) else 1)
            elif tracker.drain():
                say(f"MLflow has everything of {file.parent}")
            else:
                say(f"warning: {how_to_deliver(tracker, output.folder)}")
                code = 1
    return code


def _forget_run(output: OutputDir) -> None:
    """The output folder's training belongs to MLflow's present store, and to a run that is yet to be made."""
    import mlflow

    from socratic_mlflow.options import build_config
    from socratic_mlflow.redaction import without_credentials
    from socratic_mlflow.tracking import absolute

    store = absolute(without_credentials(mlflow.get_tracking_uri()))
    output.record(build_config({}, str(output.config_file)), tracking_uri=store, run_id=None, model=None)


def _use_store_of(journal: Path) -> None:
    """Deliver to where the training was logged; ValueError (one line) where that would send a secret to a server that
    only the journal names."""
    import mlflow

    from socratic_mlflow.tracking import store_of

    uri = store_of(journal)
    if uri.startswith(("http:", "https:")) and any(os.environ.get(name) for name in _CREDENTIALS):
        raise ValueError(f"{journal} belongs to {uri}; set MLFLOW_TRACKING_URI to it if your credentials may go there")
    mlflow.set_tracking_uri(uri or None)


def _sync_or_say(output: OutputDir, chosen: bool) -> int:
    """One of many: what is in its way must not keep the others from being delivered."""
    from socratic_mlflow.progress import say

    try:
        return _sync_locked(output, chosen)
    except ValueError as error:
        say(f"warning: {output.folder}: not delivered: {error}")
        return 2


def close_left_running(output: OutputDir) -> None:
    """End the run that a killed process has left running in `output`, as far as that can be done now."""
    from socratic_mlflow.progress import say
    from socratic_mlflow.run_lifecycle import left_running, open_tracker

    with contextlib.suppress(ValueError, OSError):
        if left_running(output.journal):
            with hold(output.folder), open_tracker(output.journal, say) as tracker:
                tracker.drain()


def _sync_locked(output: OutputDir, chosen: bool, new_run: bool = False) -> int:
    with hold(output.folder):
        return sync_one(output, chosen, new_run)
