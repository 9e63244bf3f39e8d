"""Style and loss of several runs over the optimizer step, as a matplotlib figure in light or dark colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from socratic_mlflow.plots import to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from socratic_mlflow.run_table import Compared

# Okabe and Ito's colours, which people with any colour vision tell apart, readable on white and on black.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_DASHES = ("-", "--", ":", "-.")
_INK = {False: ("#1f2328", "#ffffff", "#d0d7de"), True: ("#e6edf3", "#161b22", "#3d444d")}


def draw_runs(runs: Sequence[Compared], dark: bool = False) -> bytes:
    """A PNG file: left the style of generated replies, right the held-out loss (and thin, that of training).

    Runs bear their number in the given order; the best checkpoint of each has a ring around it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink, ground, line = _INK[dark]
    colors = {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.titlecolor": ink}
    grounds = {"figure.facecolor": ground, "axes.facecolor": ground, "axes.edgecolor": line, "grid.color": line}
    with mpl.rc_context({**colors, **grounds, "legend.labelcolor": ink}):
        figure = Figure(figsize=(11, 4.6), layout="constrained", dpi=150)
        left, right = figure.subplots(1, 2)
        for number, run in enumerate(runs):
            _draw(left, number, run, "eval/socratic_style")
            _draw(right, number, run, "train/loss", thin=True)
            _draw(right, number, run, "eval/loss")
        left.set_ylim(bottom=0)
        _finish(left, "Style of generated replies", "style (0 to 1)")
        _finish(right, "Loss on held-out dialogues (thin: training)", "cross-entropy (nats/token)")
        handles, labels = left.get_legend_handles_labels()
        if not handles:
            handles, labels = right.get_legend_handles_labels()
        if handles:
            columns = min(len(labels), 4)
            # Legends are filled column by column, and read row by row.
            order = [place for start in range(columns) for place in range(start, len(labels), columns)]
            rows = [handles[place] for place in order], [labels[place] for place in order]
            figure.legend(*rows, loc="outside lower center", ncols=columns, frameon=False)
        return to_png(figure)


def _draw(axes: Axes, number: int, run: Compared, metric: str, thin: bool = False) -> None:
    points = run.history.get(metric, ())
    if not points:
        return
    steps = [step for step, _ in points]
    # What is not finite is a gap.
    values = [value if math.isfinite(value) else math.nan for _, value in points]
    look: dict[str, Any] = {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)],
    }
    if thin:
        axes.plot(steps, values, linewidth=0.7, alpha=0.45, **look)
        return
    axes.plot(
        steps,
        values,
        linewidth=1.8,
        marker="o" if len(points) < 40 else None,
        markersize=3.5,
        label=_label(number, run),
        **look,
    )
    if run.best_step in steps and math.isfinite(run.at_best(metric)):
        axes.plot([run.best_step], [run.at_best(metric)], "o", markersize=9, markerfacecolor="none", color=look["color"])


def _label(number: int, run: Compared) -> str:
    """The number in the table, and the name where the font that comes with matplotlib has its letters."""
    # A dollar sign would begin a formula.
    name = run.name if run.name.isascii() and run.name.isprintable() and len(run.name) <= 24 and "$" not in run.name else ""
    mark = "" if run.status == "finished" else f" ({run.status})"
    return f"#{number + 1} {name or run.run_id[:8]}{mark}"


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="optimizer step", ylabel=unit)
    axes.grid(alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not axes.has_data():
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes, alpha=0.6)
