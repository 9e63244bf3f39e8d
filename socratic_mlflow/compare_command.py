"""`socratic-mlflow compare`: trainings side by side, as a table, a figure, a page, and a run of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.cli_compare import LAST
from socratic_mlflow.plain_table import safe, table, write
from socratic_mlflow.present_store import present_store

if TYPE_CHECKING:
    import pandas as pd

    from socratic_mlflow.run_table import Compared


def compare(
    names: Sequence[str], last: int | None, experiment: str | None, html: str | None, figure: str | None, log: bool
) -> int:
    """Compare the runs called `names`, else the last ones; returns the exit code. ValueError (one line) where a name means
    no run or several, or where a file is in the way."""
    if names and last:
        raise ValueError("give RUNs or --last N, not both")
    _check_files(html, figure)
    with present_store():
        from socratic_mlflow.run_table import NUMBERS, as_text, remarks, shortened, to_table

        inside, runs = _read(names, last, experiment)
        found, notes = to_table(runs), remarks(runs)
        shown = as_text(found)
        code = write(table(list(shown.columns), shortened(shown).to_numpy().tolist(), NUMBERS), *map(_note, notes))
        if html or figure or log:
            _keep(runs, found, shown, notes, inside, html, figure, log)
    return code


def _check_files(html: str | None, figure: str | None) -> None:
    """ValueError (one line) for a file that cannot be written, before anything is read."""
    if figure and not figure.lower().endswith(".png"):
        raise ValueError(f"--figure {figure}: give a name that ends in .png")
    if html and figure and Path(html).absolute() == Path(figure).absolute():
        raise ValueError(f"--html and --figure are both {html}; give two names")
    for file in filter(None, (html, figure)):
        if Path(file).exists() or Path(file).is_symlink():
            raise ValueError(f"{file} is there already and is not written over; give another name")
        if not Path(file).absolute().parent.is_dir():
            raise ValueError(f"{file}: there is no folder {Path(file).parent}")


def _read(names: Sequence[str], last: int | None, experiment: str | None) -> tuple[Any, list[Compared]]:
    """The experiment that was looked in, else the first run's, and the runs, the best first."""
    from mlflow import MlflowClient

    from socratic_mlflow.find_runs import find_experiment, find_run, last_trainings
    from socratic_mlflow.run_table import read_run

    # A run that is named is found wherever it is, unless an experiment is named too.
    inside = find_experiment(experiment) if experiment or not names else None
    named = [find_run(name, inside) for name in names] or last_trainings(inside, last or LAST)
    runs = {run.info.run_id: run for run in named}
    homes = {number: MlflowClient().get_experiment(number) for number in {run.info.experiment_id for run in named}}
    found = [read_run(run, homes[run.info.experiment_id].name) for run in runs.values()]
    return inside or homes[named[0].info.experiment_id], sorted(found, key=lambda run: run.order)


def _note(text: str) -> str:
    return f"note   {safe(text)}"


def _keep(
    runs: Sequence[Compared],
    found: pd.DataFrame,
    shown: pd.DataFrame,
    notes: Sequence[str],
    experiment: Any,
    html: str | None,
    figure: str | None,
    log: bool,
) -> None:
    """Write the files and log the run that were asked for."""
    from socratic_mlflow.run_report import draw_runs, to_page

    png = draw_runs(runs)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    where = ", ".join(sorted({safe(run.experiment) for run in runs}))
    page = to_page(shown, notes, png, draw_runs(runs, dark=True), when, f"Experiment {where}")
    if figure:
        _write(figure, png)
    if html:
        _write(html, page.encode("utf-8", "replace"))
    if log:
        write(f"logged {_log(found, png, page, experiment.experiment_id)}")


def _write(file: str, data: bytes) -> None:
    """A new file; ValueError (one line) where it cannot be made. Nothing half-written stays."""
    try:
        with Path(file).open("xb") as opened:
            try:
                opened.write(data)
            except OSError:
                Path(file).unlink()
                raise
    except OSError as error:
        raise ValueError(f"{file}: cannot be written ({error.strerror})") from None
    write(f"wrote  {file}")


def _log(found: pd.DataFrame, png: bytes, page: str, experiment_id: str) -> str:
    """A new run `comparison` with table, figure and page; returns its id. It is left FAILED where that is cut off."""
    import tempfile

    from mlflow import MlflowClient

    client = MlflowClient()
    # A tag takes 8,000 characters: 100 ids of 32 and what stands between them are far fewer.
    tags = {"job": "compare", "compared_runs": ",".join(found["id"])}
    run_id = str(client.create_run(experiment_id, tags=tags, run_name="comparison").info.run_id)
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "comparison.png").write_bytes(png)
            client.log_artifacts(run_id, folder)
        client.log_table(run_id, found.astype(object).where(found.notna(), None), "comparison.json")
        client.log_text(run_id, page, "comparison.html")
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return f"into run {run_id} (comparison.html, comparison.png, comparison.json)"
