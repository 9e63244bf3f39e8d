"""Fit the weights of `socratic_tone` to a judge's ratings, and show how well both scores agree with them.

    python calibration/fit_tone.py ../shared/data/judged_replies_dev.jsonl            # print the tables
    python calibration/fit_tone.py FILE --write                                       # and write the constants
    python calibration/fit_tone.py FILE --docs docs/style.md --plot docs/images/calibration.png

FILE is JSONL of {"reply", "tone" (0 to 4), "question_id", "checkpoint"}. The model is linear regression of the rating on
the features that `socratic.py` names (present or not), with an L2 penalty and every weight bound to the direction that the
style asks for. Scores for agreement (Spearman's rank correlation) come from replies to questions that the fit has not seen:
each question is left out once. Intervals are percentiles over resampled questions, for replies to one question go together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import spearmanr

from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import explain, socratic_style, socratic_tone

CONSTANTS = Path(__file__).parent.parent / "socratic_mlflow" / "tone_weights.py"
UNTRAINED = "base_default"
LOWERS = {"polite", "asks_nothing", "markup", "literal_escape", "outer_quotes", "latin_debris"}
# In points of the rating. Penalties from 2 to 100 agree on left-out questions within 0.005. The least weight
# keeps every feature pointing its way where the ratings have too few examples to say anything.
PENALTY, LEAST_WEIGHT = 20.0, 0.03
NAMES = [feature.name for feature in SOCRATIC.tone]

Array = Any


def read(path: str) -> list[dict[str, Any]]:
    """The judged replies of a JSONL file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def features(replies: list[str]) -> Array:
    """Array of shape (replies, features): 1.0 where the reply has the feature."""
    found = [{part.name for part in explain(reply).tone_found} for reply in replies]
    return np.array([[float(name in names) for name in NAMES] for names in found])


def fit(x: Array, y: Array) -> Array:
    """Weights of shape (features,) in points of the rating; the intercept does not change an order and is left out."""
    ones = np.vstack([x - x.mean(0), np.sqrt(PENALTY) * np.eye(x.shape[1])])
    lowers = np.array([name in LOWERS for name in NAMES])
    low, high = np.where(lowers, -np.inf, LEAST_WEIGHT), np.where(lowers, -LEAST_WEIGHT, np.inf)
    return lsq_linear(ones, np.r_[y - y.mean(), np.zeros(x.shape[1])], (low, high)).x


def left_out_predictions(x: Array, y: Array, questions: Array) -> Array:
    """For each reply, the prediction of a fit that has seen no reply to its question."""
    predicted = np.zeros(len(y))
    for question in np.unique(questions):
        out = questions == question
        predicted[out] = x[out] @ fit(x[~out], y[~out])
    return predicted


def scaled(weights: Array) -> tuple[float, dict[str, float]]:
    """(base, weights) of a score in [0, 1]: 0 is a clean polite statement, 1 has everything that raises the score."""
    by_name = dict(zip(NAMES, weights, strict=True))
    zero = by_name["polite"] + by_name["asks_nothing"]
    span = sum(weight for weight in weights if weight > 0) - zero
    rounded = {name: round(float(weight / span), 3) for name, weight in by_name.items()}
    return round(1 - sum(weight for weight in rounded.values() if weight > 0), 3), rounded


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation; ties share their mean rank."""
    return float(spearmanr(a, b)[0])


def interval(score: Callable[[Array], float], questions: Array, times: int = 2000) -> tuple[float, float]:
    """95% interval of `score(indices)` over questions drawn with replacement."""
    rng, names = np.random.default_rng(0), np.unique(questions)
    rows = {name: np.flatnonzero(questions == name) for name in names}
    draws = [np.concatenate([rows[name] for name in rng.choice(names, len(names))]) for _ in range(times)]
    low, high = np.percentile([score(draw) for draw in draws], [2.5, 97.5])
    return float(low), float(high)


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that docs/style.md shows: agreement with intervals, and what each feature contributes."""
    replies = [row["reply"] for row in rows]
    y, questions = np.array([row["tone"] for row in rows]), np.array([row["question_id"] for row in rows])
    x = features(replies)
    weights = fit(x, y)
    unseen = left_out_predictions(x, y, questions)
    columns = {
        "socratic_style": np.array([socratic_style(reply) for reply in replies]),
        "socratic_tone, weights from the other questions": unseen,
        "socratic_tone, as it ships": np.array([socratic_tone(reply) for reply in replies]),
    }
    agreement = {
        name: (spearman(values, y), *interval(lambda draw, v=values: spearman(v[draw], y[draw]), questions))  # type: ignore[misc]
        for name, values in columns.items()
    }
    without = {}
    for column, name in enumerate(NAMES):
        fewer = x.copy()
        fewer[:, column] = 0.0
        without[name] = spearman(left_out_predictions(fewer, y, questions), y) - spearman(unseen, y)
    tuned = np.array([row["checkpoint"] != UNTRAINED for row in rows])
    checkpoints = np.array([row["checkpoint"] for row in rows])
    style, other = columns["socratic_style"], left_out_predictions(x, y, checkpoints)
    means = [np.array([v[checkpoints == name].mean() for name in np.unique(checkpoints)]) for v in (y, style, unseen)]
    subsets = {
        "all": (len(y), spearman(style, y), spearman(unseen, y)),
        "without the untrained model's": (tuned.sum(), spearman(style[tuned], y[tuned]), spearman(unseen[tuned], y[tuned])),
        "rated 3 or 4": (sum(y >= 3), spearman(style[y >= 3], y[y >= 3]), spearman(unseen[y >= 3], y[y >= 3])),
        "all; whole checkpoints left out instead of questions": (len(y), spearman(style, y), spearman(other, y)),
        "the mean of each checkpoint": (len(means[0]), spearman(means[1], means[0]), spearman(means[2], means[0])),
    }
    data = {"subsets": subsets, "x": x, "y": y, "questions": questions, "columns": columns}
    return data | {"agreement": agreement, "weights": weights, "without": without}


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The tables in Markdown. Weights are those of the package, which are the fitted ones after --write."""
    x, y = found["x"], found["y"]
    agreement = ["| score | Spearman with the judge | 95% interval |", "| --- | --- | --- |"]
    for name, (value, low, high) in found["agreement"].items():
        agreement.append(f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |")
    rows = ["| feature | weight | replies with it | their mean rating | the others' | change of agreement without it |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    rows.append(f"| base | {SOCRATIC.tone_base:.3f} | {len(y)} | {y.mean():.2f} | | |")
    for column, feature in enumerate(SOCRATIC.tone):
        has = x[:, column] > 0
        least = " (least)" if abs(found["weights"][column]) < LEAST_WEIGHT + 1e-4 else ""
        rated, others = (f"{y[group].mean():.2f}" if group.any() else "none" for group in (has, ~has))
        rows.append(
            f"| `{feature.name}`: {feature.what} | {feature.weight:+.3f}{least} | {has.sum()} | {rated} | {others} "
            f"| {round(found['without'][feature.name], 3) + 0.0:+.3f} |"
        )
    subsets = ["| replies | number | style | tone, left-out |", "| --- | --- | --- | --- |"]
    subsets += [f"| {name} | {n} | {style:.3f} | {tone:.3f} |" for name, (n, style, tone) in found["subsets"].items()]
    return {"agreement": "\n".join(agreement), "features": "\n".join(rows), "subsets": "\n".join(subsets)}


def show(found: dict[str, Any], docs: str | None) -> None:
    """Print the tables; into the file `docs` as well, between its comments <!-- NAME --> and <!-- end of NAME -->."""
    text = Path(docs).read_text(encoding="utf-8") if docs else ""
    for name, table in tables(found).items():
        print(f"{table}\n")
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if docs:
            before, after = text.split(begin)[0], text.split(end)[1]
            text = f"{before}{begin}{table}{end}{after}"
    if docs:
        Path(docs).write_text(text, encoding="utf-8")
    if scaled(found["weights"]) != (SOCRATIC.tone_base, {feature.name: feature.weight for feature in SOCRATIC.tone}):
        print("note: the package has other weights than this fit gives; run with --write, then once more", file=sys.stderr)


def write(base: float, weights: dict[str, float], count: int) -> None:
    """Write the constants that the package uses."""
    lines = "\n".join(f'    "{name}": {weight},' for name, weight in weights.items())
    CONSTANTS.write_text(
        f'"""Written by calibration/fit_tone.py from a judge\'s ratings of {count} replies; how is in docs/style.md. '
        f'Not edited by hand."""\n\nBASE = {base}\n\nWEIGHTS = {{\n{lines}\n}}\n',
        encoding="utf-8",
    )


def plot(found: dict[str, Any], path: str) -> None:
    """Both scores by the judge's rating: one dot a reply, and each rating's mean with its interval over questions."""
    from matplotlib.figure import Figure

    names = list(found["columns"])
    # What was left out is predicted in points and without an intercept: shift it to the ratings' mean.
    shown = {
        names[0]: ("socratic_style", "score, 0 to 1"),
        names[2]: ("socratic_tone, as it ships\n(its weights saw these ratings)", "score, 0 to 1"),
        names[1]: ("socratic_tone, weights fitted\nto the other questions", "predicted rating, points"),
    }
    figure = Figure(figsize=(12, 4.8), layout="constrained", dpi=110)
    rng, y, questions = np.random.default_rng(0), found["y"], found["questions"]
    figure.suptitle(f"Both scores against a judge's rating of the tone of {len(y)} replies", fontsize=12)
    for axes, (name, (title, unit)) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        values = found["columns"][name]
        if name == names[1]:
            values = values - values.mean() + y.mean()
        else:
            axes.set_ylim(-0.04, 1.04)
        axes.scatter(y + rng.uniform(-0.2, 0.2, len(y)), values, s=13, alpha=0.4, linewidths=0, label="a reply")
        for rating in np.unique(y):
            group = values[y == rating]
            low, high = interval(lambda draw, v=group: v[draw].mean(), questions[y == rating])  # type: ignore[misc]
            mean, first = group.mean(), rating == y.min()
            label = "mean and its 95% interval\n(questions resampled)" if first else None
            axes.errorbar(rating, mean, [[mean - low], [high - mean]], fmt="_k", ms=24, capsize=5, label=label)
        value, low, high = found["agreement"][name]
        axes.set_title(f"{title}\nSpearman {value:.2f} (95%: {low:.2f} to {high:.2f})", fontsize=10)
        ratings = {rating: f"{rating:g}\n{(y == rating).sum()} replies" for rating in np.unique(y)}
        axes.set_xticks(list(ratings), list(ratings.values()))
        axes.set(xlabel="judge's rating, points (0 to 4)", ylabel=unit, xlim=(y.min() - 0.5, y.max() + 0.5))
        axes.grid(alpha=0.25)
    figure.axes[0].legend(loc="upper left", fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Parse, fit, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--write", action="store_true", help=f"write the fitted constants to {CONSTANTS.name}")
    parser.add_argument("--docs", metavar="MD", help="put the tables into this file, between its comments")
    parser.add_argument("--plot", metavar="PNG")
    args = parser.parse_args()
    rows = read(args.file)
    found = report(rows)
    show(found, args.docs)
    if args.write:
        # The numbers above are of the constants as they were; run once more to see those of the new ones.
        write(*scaled(found["weights"]), len(rows))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
