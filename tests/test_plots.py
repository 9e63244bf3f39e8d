"""The training_progress figure: what it draws, and that it can be drawn without a warning."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from socratic_mlflow.plots import to_png, training_progress

# A missing glyph is a warning of matplotlib's.
pytestmark = pytest.mark.filterwarnings("error")

STEPS = range(1, 61)
HISTORY = {
    "train/loss": [(step, 3.0 / step) for step in STEPS],
    "train/learning_rate": [(step, step * 1e-5) for step in STEPS],
    "eval/loss": [(0, 4.0), (20, 2.0), (40, 1.5), (60, 1.4)],
    "eval/socratic_style": [(0, 0.02), (20, 0.1), (40, 0.3), (60, 0.28)],
    "eval/socratic_style_low": [(0, 0.0), (20, 0.05), (40, 0.2), (60, 0.2)],
    "eval/socratic_style_high": [(0, 0.1), (20, 0.2), (40, 0.6), (60, 0.5)],
    "eval/socratic_tone": [(0, 0.2), (20, 0.25), (40, 0.35), (60, 0.4)],
    "eval/teacher_forced_style": [(0, 0.0), (20, 0.2), (40, 0.3), (60, 0.3)],
    "eval/reference_style": [(0, 0.4), (20, 0.4), (40, 0.4), (60, 0.4)],
    "memory/rss_gib": [(step, 1.0) for step in STEPS],
}
GPU = {"memory/cuda_allocated_gib": [(1, 2.0), (2, 2.5)], "memory/cuda_peak_gib": [(1, 3.0), (2, 3.5)]}


def test_four_panels_with_named_axes_and_units():
    panels = training_progress(HISTORY).axes
    assert [panel.get_title() for panel in panels] == ["Loss", "Learning rate", "Style", "Memory"]
    assert {panel.get_xlabel() for panel in panels} == {"optimizer step"}
    labels = [panel.get_ylabel() for panel in panels]
    assert labels == ["cross-entropy (nats/token)", "learning rate", "score (0 to 1)", "memory (GiB)"]


def test_every_series_is_drawn_at_its_own_points():
    drawn = {}
    for panel in training_progress(HISTORY | GPU).axes:
        for line in panel.get_lines():
            drawn[panel.get_title(), line.get_label()] = list(zip(*line.get_data(), strict=True))
    assert drawn == {
        ("Loss", "training"): HISTORY["train/loss"],
        ("Loss", "held-out dialogues"): HISTORY["eval/loss"],
        ("Learning rate", "learning rate"): HISTORY["train/learning_rate"],
        ("Style", "style, generated replies (95% interval)"): HISTORY["eval/socratic_style"],
        ("Style", "tone, generated replies (95% interval)"): HISTORY["eval/socratic_tone"],
        ("Style", "style, teacher-forced"): HISTORY["eval/teacher_forced_style"],
        ("Style", "style, held-out dialogues' own replies"): HISTORY["eval/reference_style"],
        ("Memory", "process (resident)"): HISTORY["memory/rss_gib"],
        ("Memory", "GPU allocated"): GPU["memory/cuda_allocated_gib"],
        ("Memory", "GPU peak"): GPU["memory/cuda_peak_gib"],
    }


def test_a_legend_names_every_line():
    legends = [[text.get_text() for text in panel.get_legend().get_texts()] for panel in training_progress(HISTORY).axes]
    assert [len(names) for names in legends] == [2, 1, 4, 1]
    assert legends[0] == ["training", "held-out dialogues"]


def test_axes_begin_at_zero_and_hold_every_value():
    for panel in training_progress(HISTORY).axes:
        low, high = panel.get_ylim()
        assert low == 0
        assert high > max(max(line.get_ydata()) for line in panel.get_lines())
        assert all(high > band.get_paths()[0].vertices[:, 1].max() for band in panel.collections)


def test_a_score_has_its_interval_as_a_band_of_its_color():
    panel = training_progress(HISTORY).axes[2]
    (band,) = panel.collections
    corners = {(step, round(value, 6)) for step, value in band.get_paths()[0].vertices.tolist()}
    assert corners == {*HISTORY["eval/socratic_style_low"], *HISTORY["eval/socratic_style_high"]}
    (line,) = (line for line in panel.get_lines() if line.get_label().startswith("style, generated"))
    assert to_hex(band.get_facecolor()[0]) == to_hex(line.get_color())


def test_a_band_ends_where_the_history_has_no_interval():
    history = HISTORY | {"eval/socratic_style_high": HISTORY["eval/socratic_style_high"][:3]}
    (band,) = training_progress(history).axes[2].collections
    assert {step for step, _ in band.get_paths()[0].vertices.tolist()} == {0, 20, 40}
    assert not training_progress(HISTORY | {"eval/socratic_style_low": []}).axes[2].collections


def test_single_points_are_visible():
    figure = training_progress({"train/loss": [(1, 2.0)], "eval/socratic_style": [(0, 0.0)]})
    assert all(line.get_marker() == "o" for panel in figure.axes for line in panel.get_lines())


def test_an_empty_history_says_so_in_every_panel():
    panels = training_progress({}).axes
    assert [[text.get_text() for text in panel.texts] for panel in panels] == [["no values yet"]] * 4
    assert not any(panel.get_lines() for panel in panels)


@pytest.mark.parametrize(
    "history",
    [HISTORY, HISTORY | GPU, {}, {"train/loss": [(1, float("nan")), (2, float("inf"))], "eval/loss": [(0, float("nan"))]}],
    ids=["whole", "with GPU", "empty", "diverged"],
)
def test_the_figure_becomes_a_picture_without_a_warning(history):
    picture = np.asarray(Image.open(io.BytesIO(to_png(training_progress(history)))).convert("RGB"))
    assert picture.dtype == np.uint8
    assert picture.shape == (750, 1100, 3)
    assert picture.min() < 100
    assert (picture[0, 0] == 255).all()


def test_two_histories_give_two_pictures():
    assert to_png(training_progress(HISTORY)) != to_png(training_progress({}))
