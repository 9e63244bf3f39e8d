"""The study as pictures: history, importance of the fields, parallel coordinates. Optuna draws them, with matplotlib.

PNG files rather than Optuna's plotly pages: any viewer shows them, and plotly would be one more dependency of tens
of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from socratic_mlflow.plots import to_png

# Importance and parallels of fewer complete trials say nothing.
_FEWEST = 2


def pictures(study: Any, score: str) -> dict[str, bytes]:
    """{name: PNG} of all that the study's complete trials are enough for."""
    import matplotlib

    # Optuna draws by way of pyplot, which would look for a window system.
    matplotlib.use("Agg")
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as drawn

    complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    found: dict[str, bytes] = {}
    if complete:
        found["optimization_history"] = _png(lambda: _history(drawn.plot_optimization_history(study, target_name=score)))
    if complete >= _FEWEST:
        found["parallel_coordinate"] = _png(lambda: _parallels(drawn.plot_parallel_coordinate(study, target_name=score)))
        found["parameter_importance"] = _png(lambda: drawn.plot_param_importances(study, target_name=score))
    return found


def _png(draw: Callable[[], Any]) -> bytes:
    import matplotlib
    from matplotlib import pyplot

    # Optuna changes the style of all pictures that come after.
    with matplotlib.rc_context():
        figure = draw().figure
        try:
            figure.set_size_inches(11, 6)
            figure.set_dpi(100)
            figure.tight_layout()
            return to_png(figure)
        finally:
            pyplot.close(figure)


def _history(axes: Any) -> Any:
    """There is no trial 0.5."""
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def _parallels(axes: Any) -> Any:
    """Optuna's blues fade into the background, and its numbers lie under the lines."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes.collections[0].set(cmap="viridis_r", linewidth=1.8, alpha=0.8)
    for each in axes.figure.axes:
        if each.get_yscale() == "log":
            each.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            each.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            each.yaxis.set_minor_formatter(NullFormatter())
        for label in each.get_yticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
    return axes
