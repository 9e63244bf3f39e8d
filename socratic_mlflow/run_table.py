"""MLflow runs -> what each one's parameters were and what came out, as a pandas table, the best style first."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.config import Config, flatten
from socratic_mlflow.known_scores import JUDGED_BY
from socratic_mlflow.options import options
from socratic_mlflow.plain_table import safe
from socratic_mlflow.quality import collapse
from socratic_mlflow.selection import rank

if TYPE_CHECKING:
    import pandas as pd

    from socratic_mlflow.plots import History

# What comes out, as the columns are called; the others are parameters.
RESULTS = ("style", "tone", "loss", "hollow", "best step", "duration", "version")
NUMBERS = ("#", *RESULTS[:-1])
_CURVES = ("eval/socratic_style", "eval/socratic_tone", "eval/loss", "eval/hollow_share", "train/loss")
# Where files lie and what happens around a training: no part of what is compared.
_ASIDE = ("run.output_dir", "run.resume", "run.require_tracking", "registry.promote")
_LONGEST = 28
_STATES = {
    "running": "is still running",
    "scheduled": "has not begun",
    "failed": "has failed",
    "killed": "was stopped or killed",
}


@dataclass(frozen=True)
class Compared:
    """One run: its configuration, the curves of its metrics over the optimizer step, and its best step, if any."""

    run_id: str
    name: str
    experiment: str
    status: str
    params: Mapping[str, str]
    history: History
    best_step: int | None
    duration_s: float
    version: str

    def at_best(self, metric: str) -> float:
        """What the best checkpoint scored; NaN where that is not known."""
        return dict(self.history.get(metric, ())).get(-1 if self.best_step is None else self.best_step, math.nan)

    @property
    def collapsed(self) -> str:
        """In words that the best checkpoint's replies have collapsed, or ''."""
        share = self.at_best("eval/hollow_share")
        return "" if math.isnan(share) else collapse(share)

    @property
    def order(self) -> tuple[bool, float, float]:
        """Sorts the best first: not collapsed, then the higher style, then the lower loss; who has none of it last."""
        style, loss = self.at_best("eval/socratic_style"), self.at_best("eval/loss")
        return bool(self.collapsed), -style if math.isfinite(style) else math.inf, math.inf if math.isnan(loss) else loss


def read_run(run: Any, experiment: str) -> Compared:
    """What MLflow has of a run in the experiment of that name; five requests at most."""
    from mlflow import MlflowClient

    client, params = MlflowClient(), _params(run)
    history = {name: _curve(client, run.info.run_id, name) for name in _CURVES if name in run.data.metrics}
    return Compared(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        status=run.info.status.lower(),
        params=params,
        history=history,
        best_step=_best_step(history, params.get("evaluation.metric_for_best_model", "socratic_style")),
        duration_s=_duration(run),
        version=run.data.tags.get("registered_model", "").removeprefix("models:/"),
    )


def _params(run: Any) -> dict[str, str]:
    """The run's params; of those that a later start has changed, the present value."""
    changed = {
        name.removeprefix("changed."): value.rpartition(" -> ")[2]
        for name, value in run.data.tags.items()
        if name.startswith("changed.")
    }
    return {**run.data.params, **changed}


def _curve(client: Any, run_id: str, metric: str) -> list[tuple[int, float]]:
    """One value a step, in the order of the steps; of several at a step the last."""
    points = sorted(client.get_metric_history(run_id, metric), key=lambda point: (point.step, point.timestamp))
    # A database keeps an infinite value as the largest there is.
    return list({point.step: math.inf if point.value > 1e300 else point.value for point in points}.items())


def _best_step(history: History, metric: str) -> int | None:
    """The step that a training would choose; step 0, the untrained base, only where there is no other."""
    by_step = {name.removeprefix("eval/"): dict(points) for name, points in history.items()}
    scored = [step for step, value in by_step.get(metric, {}).items() if math.isfinite(value)]
    steps = [step for step in scored if step > 0] or scored
    ranks = {step: rank({name: at[step] for name, at in by_step.items() if step in at}, metric) for step in steps}
    return max(ranks, key=ranks.__getitem__, default=None)


def _duration(run: Any) -> float:
    """Seconds of the last start as the training has measured them, else from the run's begin to its end, or to now."""
    end_ms = run.info.end_time or time.time() * 1000
    return float(run.data.metrics.get("summary/duration_s", (end_ms - run.info.start_time) / 1000))


def differing(runs: Sequence[Compared]) -> dict[str, str]:
    """{dotted key: short name} of the configuration fields of which the runs have different values."""
    short = {option.key: option.flag for option in options()}
    found = {}
    for key in flatten(Config()):
        values = {run.params[key] for run in runs if key in run.params}
        if key not in _ASIDE and len(values) > 1:
            found[key] = short[key]
    return found


def to_table(runs: Sequence[Compared]) -> pd.DataFrame:
    """One row a run, in the given order: number, name, id, experiment (where they are of several), status, what differed,
    and `RESULTS` (duration in seconds)."""
    import pandas as pd

    short, several = differing(runs), len({run.experiment for run in runs}) > 1
    rows = [
        {
            "#": number,
            "run": run.name,
            "id": run.run_id,
            **({"experiment": run.experiment} if several else {}),
            "status": run.status,
            **{name: run.params.get(key, "") for key, name in short.items()},
            "style": run.at_best("eval/socratic_style"),
            "tone": run.at_best("eval/socratic_tone"),
            "loss": run.at_best("eval/loss"),
            "hollow": run.at_best("eval/hollow_share"),
            "best step": run.best_step,
            "duration": run.duration_s,
            "version": run.version,
        }
        for number, run in enumerate(runs, 1)
    ]
    return pd.DataFrame(rows).astype({"best step": "Int64"})


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every cell as a person reads it, in one line, what is not printable escaped."""
    import pandas as pd

    shown = table.copy().astype(object)
    for name in ("style", "tone", "loss", "hollow"):
        shown[name] = [_number(value) for value in table[name]]
    shown["id"] = table["id"].str[:8]
    shown["best step"] = ["-" if pd.isna(step) else str(step) for step in table["best step"]]
    shown["duration"] = [_duration_text(value) for value in table["duration"]]
    return shown.map(lambda cell: safe(cell) or "-")


def shortened(shown: pd.DataFrame) -> pd.DataFrame:
    """The text table with long cells cut, but for those that would look the same as another one of their column."""
    return shown.apply(_shorten)


def _shorten(column: pd.Series[str]) -> pd.Series[str]:
    cut = column.map(_short)
    differ = column.groupby(cut).transform("nunique") > 1
    return cut.where(~differ, column)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _short(text: str) -> str:
    # The end of a path says more than its beginning.
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def remarks(runs: Sequence[Compared]) -> list[str]:
    """Sentences: what keeps the scores from being compared, which runs are not done, which have collapsed."""
    found = []
    if _differ(runs, [f"evaluation.{name}" for name in JUDGED_BY]):
        found.append("not all of these runs had the same questions, style profile and token limit: styles do not compare")
    if _differ(runs, ["data.digest"]):
        found.append("not all of these runs had the same dialogues")
    for number, run in enumerate(runs, 1):
        if run.status != "finished":
            state = _STATES.get(run.status, run.status)
            found.append(f"#{number} {state}: its numbers are those so far")
        if run.collapsed:
            found.append(f"#{number} has collapsed ({run.collapsed}): its style means nothing")
    return found


def _differ(runs: Sequence[Compared], keys: Sequence[str]) -> bool:
    """Whether runs that say what it was had different values."""
    known = {tuple(run.params[key] for key in keys) for run in runs if all(key in run.params for key in keys)}
    return len(known) > 1
