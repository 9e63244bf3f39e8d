"""`socratic-mlflow evaluate`: ask any model the questions that a training asks, log it, and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.bootstrap import Interval, paired_difference
from socratic_mlflow.config import Config
from socratic_mlflow.options import as_params, parse_values
from socratic_mlflow.quality import collapse
from socratic_mlflow.quiet import quiet, quiet_transformers
from socratic_mlflow.style_profile import read_profile

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel

# What is printed of an evaluation, and in which words.
_SHOWN = {
    "socratic_style": "style",
    "socratic_tone": "tone",
    "hollow_share": "hollow replies (share)",
    "identical_share": "identical replies (share)",
    "loop_share": "loops (share)",
    "empty_share": "empty (share)",
    "cut_off_share": "cut off at the token limit (share)",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "repetition": "repetition within a reply",
    "reply_chars": "length (characters)",
    "question_overlap": "overlap with the question",
    "question_overlap_chance": "overlap by chance",
}
COMPARED = ("socratic_style", "socratic_tone")


@dataclass(frozen=True)
class Evaluated:
    """One model's replies to the questions: metrics and rows as `evaluation.judge` gives them, and the run they are in."""

    name: str
    config: Config
    metrics: dict[str, float]
    rows: list[dict[str, Any]]
    run_id: str


def evaluate(model: str, against: str | None, given: Mapping[str, Any]) -> int:
    """Evaluate `model`, and `against` on the same questions where given; returns the exit code."""
    quiet()
    fields = parse_values(given)
    questions = read_asked(fields)
    read_profile(fields.get("evaluation.style_profile", Config().evaluation.style_profile))
    from socratic_mlflow.named_model import check
    from socratic_mlflow.tracking import check_store

    quiet_transformers()
    check_store()
    # Both names before the first model is asked: that may take minutes.
    for name in (model, against or model):
        check(name)
    ours = _evaluate_one(model, fields, questions)
    _show(ours, len(questions))
    if against is None:
        return 0
    # Equal conditions: the other model gets the limits that the first was asked under.
    limits = {f"evaluation.{name}": getattr(ours.config.evaluation, name) for name in ("max_new_tokens", "style_profile")}
    theirs = _evaluate_one(against, {**limits, **fields}, questions)
    _show(theirs, len(questions))
    differences = compare(ours, theirs)
    _show_differences(ours, theirs, differences)
    _log_comparison(ours, theirs, differences)
    return 0


def read_asked(fields: Mapping[str, Any]) -> list[str]:
    """The questions that `fields` name, at most `max_samples`; ValueError (one line) for a file that holds none."""
    from socratic_mlflow.corpus import evenly
    from socratic_mlflow.dialogues import read_questions

    default = Config().evaluation
    file = fields.get("evaluation.questions", default.questions)
    if file == "heldout":
        raise ValueError("questions 'heldout' belong to a training; give a file: dialogues, or one question a line")
    return evenly(read_questions(file)[0], fields.get("evaluation.max_samples", default.max_samples))


def compare(ours: Evaluated, theirs: Evaluated) -> dict[str, Interval]:
    """For each score the mean of ours minus theirs, question by question, with its 95% bootstrap interval."""
    return {
        name: paired_difference([row[name] for row in ours.rows], [row[name] for row in theirs.rows]) for name in COMPARED
    }


def verdict(name: str, ours: Evaluated, theirs: Evaluated, difference: Interval) -> str:
    """One sentence: which model is better by the score `name`, and whether that is more than the choice of questions."""
    word = _SHOWN[name]
    figures = f"{difference.mean:+.3f}, 95% interval {difference.low:+.3f} to {difference.high:+.3f}"
    if not difference.excludes_zero:
        return f"{word}: no real difference ({figures}); other questions could turn it round"
    better = ours if difference.mean > 0 else theirs
    return f"{word}: {better.name} is better, and the difference is real ({figures})"


def _evaluate_one(name: str, fields: Mapping[str, Any], questions: Sequence[str]) -> Evaluated:
    from socratic_mlflow.evaluation import Sampling, StyleEvaluator
    from socratic_mlflow.named_model import load, with_evaluation
    from socratic_mlflow.progress import say
    from socratic_mlflow.tracking import open_run

    say(f"loading {name} ...")
    named = load(name, fields)
    config = with_evaluation(named.config, fields)
    limits = config.evaluation
    profile = read_profile(limits.style_profile)
    say(f"asking {len(questions)} questions ...")
    sampling = Sampling(max_new_tokens=limits.max_new_tokens)
    evaluator = StyleEvaluator(named.chat, questions, sampling, limits.generation_batch_size, profile)
    with open_run() as tracker:
        metrics, rows = evaluator(named.model)
        _log(tracker, named, config, questions, metrics, rows)
    return Evaluated(name, config, metrics, rows, tracker.run_id)


def _log(
    tracker: Any,
    named: NamedModel,
    config: Config,
    questions: Sequence[str],
    metrics: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """The run: what was asked of what, the metrics at step 0, the replies; on a version's page the scores as well."""
    from socratic_mlflow.callback import samples_file
    from socratic_mlflow.dialogues import text_digest

    digest, profile = text_digest(questions), read_profile(config.evaluation.style_profile)
    shown = {key: value for key, value in as_params(config).items() if key.split(".")[0] in ("model", "evaluation")}
    tracker.log_params(
        shown
        | {
            "evaluated_model": named.name,
            "evaluation.questions_digest": digest,
            "evaluation.questions_asked": len(questions),
            "evaluation.style_profile_name": profile.name,
            "evaluation.style_profile_digest": profile.digest(),
        }
    )
    tracker.set_tags({"mlflow.runName": f"evaluate {named.name}", "job": "evaluate", "style_profile": profile.name})
    if reason := collapse(metrics["hollow_share"]):
        tracker.set_tags({"collapsed": reason})
    tracker.log_metrics({f"eval/{name}": value for name, value in metrics.items()}, 0, named.model_id)
    tracker.log_table(rows, samples_file(0))
    if named.version is not None:
        tracker.set_tags({"evaluated_version": f"models:/{named.version.name}/{named.version.version}"})
        _tag_version(named, tracker.run_id, digest, metrics)


def _tag_version(named: NamedModel, run_id: str, digest: str, metrics: Mapping[str, float]) -> None:
    """The scores on the version's page, under the questions' digest: each set of questions has its own."""
    from mlflow import MlflowClient

    client, version = MlflowClient(), named.version
    scores = ", ".join(
        f"{_SHOWN[name]} {metrics[name]:.3f} ({metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f})"
        for name in COMPARED
    )
    client.set_model_version_tag(version.name, version.version, f"evaluated.{digest[:8]}", f"{scores}; run {run_id}")


def _log_comparison(ours: Evaluated, theirs: Evaluated, differences: Mapping[str, Interval]) -> None:
    from socratic_mlflow.tracking import Tracker

    tracker = Tracker(ours.run_id)
    metrics = {f"compare/{name}_difference": found.mean for name, found in differences.items()}
    metrics |= {f"compare/{name}_difference_low": found.low for name, found in differences.items()}
    metrics |= {f"compare/{name}_difference_high": found.high for name, found in differences.items()}
    tracker.log_metrics(metrics, 0)
    sentences = [verdict(name, ours, theirs, found) for name, found in differences.items()]
    tracker.set_tags({"compared_with": f"{theirs.name} (run {theirs.run_id})", "comparison": "; ".join(sentences)})
    rows = [
        {
            "question": mine["question"],
            ours.name: mine["reply"],
            theirs.name if theirs.name != ours.name else f"{theirs.name} (2)": other["reply"],
            **{f"{_SHOWN[name]} difference": round(mine[name] - other[name], 4) for name in COMPARED},
        }
        for mine, other in zip(ours.rows, theirs.rows, strict=True)
    ]
    tracker.log_table(rows, "comparison.json")


def _show(found: Evaluated, asked: int) -> None:
    from socratic_mlflow.progress import say

    say(f"{found.name} on {asked} questions (run {found.run_id})")
    for name, words in _SHOWN.items():
        low, high = found.metrics.get(f"{name}_low"), found.metrics.get(f"{name}_high")
        between = f"   95% interval {low:.3f} to {high:.3f}" if low is not None else ""
        say(f"  {words:36}{found.metrics[name]:8.3f}{between}")
    if reason := collapse(found.metrics["hollow_share"]):
        say(f"  collapsed: {reason}")


def _show_differences(ours: Evaluated, theirs: Evaluated, differences: Mapping[str, Interval]) -> None:
    from socratic_mlflow.progress import say

    say(f"{ours.name} minus {theirs.name}, on the same questions")
    for name, found in differences.items():
        say(f"  {verdict(name, ours, theirs, found)}")
