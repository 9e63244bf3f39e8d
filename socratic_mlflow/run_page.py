"""The comparison of runs as one HTML page: no scripts, no other file, light or dark as the reader's system is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from socratic_mlflow.run_table import NUMBERS

if TYPE_CHECKING:
    import pandas as pd

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
