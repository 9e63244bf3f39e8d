"""A comparison of runs to look at: their curves as a figure, and table and figure as one HTML page (no scripts, no other
file), both in light and dark colours."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from socratic_mlflow.plots import to_png
from socratic_mlflow.run_table import NUMBERS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from socratic_mlflow.run_table import Compared

# Okabe and Ito's colours, which people with any colour vision tell apart, readable on white and on black.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_DASHES = ("-", "--", ":", "-.")
_INK = {False: ("#1f2328", "#ffffff", "#d0d7de"), True: ("#e6edf3", "#161b22", "#3d444d")}
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --ground: #ffffff; --line: #d0d7de; --soft: #f6f8fa; --mark: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --ground: #161b22; --line: #3d444d; --soft: #21262d; --mark: #e3b341; }
}
body { margin: 2rem auto; max-width: 88rem; padding: 0 1rem; color: var(--ink); background: var(--ground);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Hiragino Sans", "Yu Gothic UI", "Noto Sans CJK JP", "Noto Sans JP",
  sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p.when { margin: 0 0 1.25rem; opacity: .75; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { background: var(--soft); font-weight: 600; }
.n { text-align: right; }
td.id, td.status { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .9em; }
tr.best td { font-weight: 600; }
tr:not(.done) td.status { color: var(--mark); font-weight: 600; }
ul { margin: 1rem 0; padding-left: 1.25rem; }
img { display: block; width: 100%; min-width: 44rem; height: auto; margin-top: 1.5rem; }
"""


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
        _explain(figure, [_label(number, run) for number, run in enumerate(runs)])
        return to_png(figure)


def _explain(figure: Figure, labels: Sequence[str]) -> None:
    """One legend for both sides; a run may have only one of them."""
    drawn = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [label for label in labels if label in drawn]
    if shown:
        columns = min(len(shown), 4)
        # Legends are filled column by column, and read row by row.
        order = [label for start in range(columns) for label in shown[start::columns]]
        handles = [drawn[label] for label in order]
        figure.legend(handles, order, loc="outside lower center", ncols=columns, frameon=False)


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
        axes.plot(steps, values, linewidth=0.7, alpha=0.6, label=_label(number, run), **look)
        return
    # A style of 0 lies on the axis.
    look |= {"clip_on": False, "zorder": 3}
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
        axes.plot([run.best_step], [run.at_best(metric)], marker="o", markersize=9, markerfacecolor="none", **look)


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


def to_page(shown: pd.DataFrame, notes: Sequence[str], light: bytes, dark: bytes, when: str, where: str) -> str:
    """The whole page: `shown` has text in all cells, `light` and `dark` are PNG files of the curves."""
    remarks = f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Comparison of {len(shown)} runs</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Comparison of {len(shown)} runs</h1>\n<p class="when">{escape(where)}, {escape(when)}. The best style first; '
        "style, tone, loss and hollow share are those of the best checkpoint.</p>\n"
        f'<div class="wide">{_table(shown)}</div>\n{remarks}\n'
        f'<div class="wide">{_picture(light, dark)}</div>\n</body>\n</html>\n'
    )


def _table(shown: pd.DataFrame) -> str:
    heads = "".join(f"<th{_class(name)}>{escape(name)}</th>" for name in shown.columns)
    rows = []
    for place, cells in enumerate(shown.to_dict("records")):
        names = [*(["best"] if place == 0 and len(shown) > 1 else []), *(["done"] if cells["status"] == "finished" else [])]
        inside = "".join(f"<td{_class(name)}>{escape(str(cell))}</td>" for name, cell in cells.items())
        rows.append(f'<tr class="{" ".join(names)}">{inside}</tr>')
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>"


def _class(name: object) -> str:
    kind = "n" if name in NUMBERS else str(name) if name in ("id", "status") else ""
    return f' class="{kind}"' if kind else ""


def _picture(light: bytes, dark: bytes) -> str:
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img src="{_data(light)}" alt="Style and loss of each run over the optimizer steps"></picture>'
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
