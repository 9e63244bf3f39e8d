"""`socratic-mlflow evaluate`: ask any model the questions that a training asks, log it, and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratic_mlflow.comparison import COMPARED, Scored, differences, verdicts
from socratic_mlflow.config import Config, flatten
from socratic_mlflow.importing import quick_imports
from socratic_mlflow.model_names import BASE_FIELDS, check_base_fields, check_full, full_name
from socratic_mlflow.options import as_params, parse_values
from socratic_mlflow.quality import collapse
from socratic_mlflow.quiet import quiet, quiet_transformers
from socratic_mlflow.style_profile import StyleProfile, parse_profile, read_profile, to_yaml

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel
    from socratic_mlflow.tracking import Tracker

# What is printed of an evaluation, and in which words.
_SHOWN = {
    **COMPARED,
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


@dataclass(frozen=True)
class Evaluated(Scored):
    """One model's replies: with what it was asked, how it was scored, and the run that holds it all."""

    config: Config
    profile: StyleProfile
    run_id: str


def evaluate(model: str, against: str | None, given: Mapping[str, Any]) -> int:
    """Evaluate `model`, and `against` on the same questions where given; returns the exit code."""
    quiet()
    fields = parse_values(given)
    questions = read_asked(fields)
    name = fields.get("evaluation.style_profile")
    profile = read_profile(name) if name else None
    model, against = full_name(model), full_name(against) if against else None
    names = [model, against] if against else [model]
    with quick_imports():
        from socratic_mlflow.interruption import Interruption
        from socratic_mlflow.run_lifecycle import be_brief, store_trouble

        quiet_transformers()
        be_brief()
        # Before the first model is asked, which may take minutes, and before a store is made for the base's evaluation.
        check_base_fields(names, fields)
        for each in names:
            check_full(each)
        if trouble := store_trouble():
            raise ValueError(f"MLflow cannot be reached: {trouble}")
    with Interruption():
        ours = _evaluate_one(model, fields, questions, profile)
        if against:
            theirs = _evaluate_one(against, _equal_conditions(ours, against) | fields, questions, ours.profile)
            _conclude(ours, theirs)
    return 0


def read_asked(fields: Mapping[str, Any]) -> list[str]:
    """The questions that `fields` name, at most `max_samples`; ValueError (one line) for a file that holds none."""
    from socratic_mlflow.corpus import evenly
    from socratic_mlflow.dialogues import read_questions
    from socratic_mlflow.named_model import with_evaluation

    asked = with_evaluation(Config(), fields).evaluation
    if asked.questions == "heldout":
        raise ValueError("questions 'heldout' belong to a training; give a file: dialogues, or one question a line")
    return evenly(read_questions(asked.questions)[0], asked.max_samples)


def _equal_conditions(ours: Evaluated, against: str) -> dict[str, Any]:
    """The limit that the first model was asked under; and for `base` the very base that it has."""
    equal = {"evaluation.max_new_tokens": ours.config.evaluation.max_new_tokens}
    same = BASE_FIELDS[1:] if against == "base" else ()
    return equal | {key: value for key, value in flatten(ours.config).items() if key.startswith(same)}


def _evaluate_one(
    name: str, fields: Mapping[str, Any], questions: Sequence[str], profile: StyleProfile | None
) -> Evaluated:
    """Load, ask, log and print one model; without a `profile`, a version is scored by the one it was trained with."""
    from socratic_mlflow.corpus import check_questions
    from socratic_mlflow.evaluation import evaluator_for
    from socratic_mlflow.named_model import load, with_evaluation
    from socratic_mlflow.progress import say
    from socratic_mlflow.run_lifecycle import evaluation_run

    say(f"loading {name} ...")
    named = load(name, fields)
    # What is really asked, whatever the configuration beside an adapter says.
    file = fields.get("evaluation.questions", Config().evaluation.questions)
    check_questions(named.chat, questions, named.config.data.max_length, file)
    asked = {"evaluation.questions": file, "evaluation.max_samples": len(questions)}
    config = with_evaluation(named.config, {**fields, **asked})
    profile = profile or _own_profile(named)
    base = named.version.tags.get("base_model") if named.version else None
    say(f"asking {len(questions)} questions (base {_short(base or config.model.base_model)}, style {profile.name}) ...")
    with evaluation_run() as tracker:
        _log_asked(tracker, named, config, questions, profile)
        metrics, rows = evaluator_for(named.chat, questions, config.evaluation, profile)(named.model)
        found = Evaluated(name, metrics, rows, config, profile, tracker.run_id)
        _log_found(tracker, named, found)
    _show(found)
    return found


def _short(path: str) -> str:
    return path if len(path) <= 40 else f"...{path[-36:]}"


def _own_profile(named: NamedModel) -> StyleProfile:
    """The profile by which a version was chosen, from its training's run; for any other model the default."""
    import mlflow

    default = read_profile(Config().evaluation.style_profile)
    tags = named.version.tags if named.version else {}
    if tags.get("style_profile_digest", default.digest()) == default.digest():
        return default
    try:
        text = mlflow.artifacts.load_text(f"runs:/{tags['run_id']}/style_profile.yaml")
        return parse_profile(text, "style_profile.yaml")
    except Exception as error:
        raise ValueError(
            f"{named.name}: was chosen by another style profile than {default.name}, and its run does not hold it "
            f"({error}); give --style_profile"
        ) from None


def _log_asked(
    tracker: Tracker, named: NamedModel, config: Config, questions: Sequence[str], profile: StyleProfile
) -> None:
    """What is asked of what, before it is asked: a run that is interrupted says as much."""
    from socratic_mlflow.dialogues import text_digest

    shown = {key: value for key, value in as_params(config).items() if key.split(".")[0] in ("model", "evaluation")}
    digests = {
        "evaluation.questions_digest": text_digest(questions),
        "evaluation.questions_asked": len(questions),
        "evaluation.style_profile": profile.name,
        "evaluation.style_profile_name": profile.name,
        "evaluation.style_profile_digest": profile.digest(),
    }
    tracker.log_params(shown | digests | {"evaluated_model": named.name})
    tracker.log_text(to_yaml(profile), "style_profile.yaml")
    tracker.set_tags({"mlflow.runName": f"evaluate {named.name}", "job": "evaluate", "style_profile": profile.name})
    if named.version is not None:
        tracker.set_tags({"evaluated_version": f"models:/{named.version.name}/{named.version.version}"})


def _log_found(tracker: Tracker, named: NamedModel, found: Evaluated) -> None:
    """The metrics at step 0 and the replies; the scores of a version on its page as well."""
    from socratic_mlflow.callback import samples_file

    if reason := collapse(found.metrics["hollow_share"]):
        tracker.set_tags({"collapsed": reason})
    tracker.log_metrics({f"eval/{name}": value for name, value in found.metrics.items()}, 0, named.model_id)
    tracker.log_table(found.rows, samples_file(0))
    if named.version is not None:
        _tag_version(named, found)


def _tag_version(named: NamedModel, found: Evaluated) -> None:
    """One tag for each set of questions and style, with the scores and the run that has the rest."""
    from mlflow import MlflowClient

    from socratic_mlflow.dialogues import text_digest

    metrics, limit = found.metrics, found.config.evaluation.max_new_tokens
    digest = text_digest([str(row["question"]) for row in found.rows])
    scores = ", ".join(
        f"{word} {metrics[name]:.3f} ({metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f})"
        for name, word in COMPARED.items()
    )
    MlflowClient().set_model_version_tag(
        named.version.name,
        named.version.version,
        f"evaluated.{found.profile.name}.{digest[:8]}",
        f"{scores} on {len(found.rows)} questions, at most {limit} tokens; run {found.run_id}",
    )


def _conclude(ours: Evaluated, theirs: Evaluated) -> None:
    """Say which model is better, and log it in the first one's run."""
    from socratic_mlflow.progress import say
    from socratic_mlflow.run_lifecycle import evaluation_run

    say(f"{ours.name} minus {theirs.name}, on the same questions")
    for sentence in verdicts(ours, theirs):
        say(f"  {sentence}")
    found = differences(ours, theirs)
    metrics = {f"compare/{name}_difference": difference.mean for name, difference in found.items()}
    metrics |= {f"compare/{name}_difference_low": difference.low for name, difference in found.items()}
    metrics |= {f"compare/{name}_difference_high": difference.high for name, difference in found.items()}
    tags = {
        "compared_with": f"{theirs.name} (run {theirs.run_id})",
        "comparison": "; ".join(verdicts(ours, theirs)),
    }
    with evaluation_run(ours.run_id) as tracker:
        tracker.log_metrics(metrics, 0)
        tracker.set_tags(tags)
        tracker.log_table(_side_by_side(ours, theirs), "comparison.json")


def _side_by_side(ours: Evaluated, theirs: Evaluated) -> list[dict[str, Any]]:
    second = theirs.name if theirs.name != ours.name else f"{theirs.name} (2)"
    return [
        {
            "question": mine["question"],
            ours.name: mine["reply"],
            second: other["reply"],
            **{f"{word} difference": round(mine[name] - other[name], 4) for name, word in COMPARED.items()},
        }
        for mine, other in zip(ours.rows, theirs.rows, strict=True)
    ]


def _show(found: Evaluated) -> None:
    from socratic_mlflow.progress import say

    say(f"{found.name} on {len(found.rows)} questions (run {found.run_id})")
    for name, words in _SHOWN.items():
        low, high = found.metrics.get(f"{name}_low"), found.metrics.get(f"{name}_high")
        between = f"   95% interval {low:.3f} to {high:.3f}" if low is not None else ""
        say(f"  {words:36}{found.metrics[name]:8.3f}{between}")
    if reason := collapse(found.metrics["hollow_share"]):
        say(f"  collapsed: {reason}")
