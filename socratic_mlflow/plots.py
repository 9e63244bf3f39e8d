"""History -> matplotlib figures. Labels are in English, so that no font lacks a glyph; knows nothing of MLflow.

Run as a program, it reads a history as JSON and writes the picture: so that a training's own process need not draw.
Imports nothing of this package for that reason.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Metric name -> [(step, value), ...]
History = Mapping[str, Sequence[tuple[int, float]]]

# Panel title, label of the y axis, and the metrics it draws with their names in the legend.
_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Loss", "cross-entropy (nats/token)", {"train/loss": "training", "eval/loss": "held-out dialogues"}),
    ("Learning rate", "learning rate", {"train/learning_rate": "learning rate"}),
    (
        "Style",
        "score (0 to 1)",
        {
            "eval/socratic_style": "style, generated replies (95% interval)",
            "eval/socratic_tone": "tone, generated replies (95% interval)",
            "eval/teacher_forced_style": "style, teacher-forced",
            "eval/reference_style": "style, held-out dialogues' own replies",
        },
    ),
    (
        "Memory",
        "memory (GiB)",
        {
            "memory/rss_gib": "process (resident)",
            "memory/cuda_allocated_gib": "GPU allocated",
            "memory/cuda_peak_gib": "GPU peak",
        },
    ),
)

# Every metric that is drawn: the lines, and the ends of their intervals.
DRAWN = frozenset(f"{name}{end}" for *_, lines in _PANELS for name in lines for end in ("", "_low", "_high"))
# Seconds that the other process may take. It needs less than one, but everything else comes before it.
_PATIENCE_S = 180.0


def draw(history: History) -> bytes:
    """The `training_progress` of `history` as a PNG file's bytes. ImportError and the like where matplotlib cannot."""
    return to_png(training_progress(history))


class NotNowError(BaseException):
    """Drawing was stopped. No Exception: a picture that is not drawn now is no picture that cannot be drawn."""


def draw_apart(history: History, stopping: threading.Event) -> bytes:
    """`draw`, by another process, so that the threads of this one go on; in this one where that fails.

    NotNowError as soon as `stopping` is set.
    """
    try:
        return _drawn_by(_another_process(), json.dumps(history).encode(), stopping)
    except (OSError, ValueError, subprocess.SubprocessError):
        return draw(history)


def _another_process() -> subprocess.Popen[bytes]:
    # -P: the files beside this one are no modules of that process. A session of its own: Ctrl-C is not for it.
    return subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def _drawn_by(process: subprocess.Popen[bytes], history: bytes, stopping: threading.Event) -> bytes:
    # What it is to read is given to `communicate` once.
    unsent: bytes | None = history
    deadline = time.monotonic() + _PATIENCE_S
    with process:
        try:
            while time.monotonic() < deadline:
                if stopping.is_set():
                    raise NotNowError
                with contextlib.suppress(subprocess.TimeoutExpired):
                    sending, unsent = unsent, None
                    picture, _ = process.communicate(sending, timeout=0.1)
                    if process.returncode:
                        raise subprocess.SubprocessError
                    return picture
            raise subprocess.SubprocessError
        finally:
            process.kill()


def training_progress(history: History) -> Figure:
    """Four panels over the optimizer step: loss, learning rate, style, memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), dpi=100)
    # matplotlib's own layouts find such margins by drawing everything twice.
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.07, top=0.955, wspace=0.2, hspace=0.32)
    for axes, (title, unit, lines) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _draw(axes, history, lines)
        axes.set(title=title, xlabel="optimizer step", ylabel=unit)
        axes.grid(alpha=0.25)
        # A learning rate's many zeros would take the margin.
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    return figure


def _draw(axes: Axes, history: History, lines: Mapping[str, str]) -> None:
    """The lines of one panel; few points get markers, and a level that never changes is drawn dashed."""
    for name, label in lines.items():
        points = history.get(name, ())
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        level = name == "eval/reference_style"
        (line,) = axes.plot(
            steps, values, label=label, linewidth=1.5 if len(points) < 500 else 0.7, linestyle="--" if level else "-",
            marker="o" if len(points) < 40 and not level else None, markersize=4,
        )  # fmt: skip
        _draw_interval(axes, history, name, line.get_color())
    # A training that diverged has no finite highest loss, and still gets its picture.
    drawn = [value for name in lines for end in ("", "_high") for _, value in history.get(f"{name}{end}", ())]
    highest = max(filter(math.isfinite, drawn), default=0.0)
    # Room above the lines for the legend.
    axes.set_ylim(0, 1.25 * highest or 1.0)
    if axes.has_data():
        axes.legend(fontsize="small")
    else:
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes, color="gray")


def _draw_interval(axes: Axes, history: History, name: str, color: str) -> None:
    """A band between NAME_low and NAME_high, where the history has them."""
    low, high = (dict(history.get(f"{name}_{end}", ())) for end in ("low", "high"))
    steps = [step for step, _ in history[name] if step in low and step in high]
    if steps:
        ends = [low[step] for step in steps], [high[step] for step in steps]
        axes.fill_between(steps, *ends, color=color, alpha=0.15, linewidth=0)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


if __name__ == "__main__":
    # The training comes first.
    os.nice(19)
    sys.stdout.buffer.write(draw(json.load(sys.stdin)))
