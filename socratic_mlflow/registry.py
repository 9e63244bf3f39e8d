"""The best adapter -> a version of the registered model, and which stage and alias it takes."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from socratic_mlflow.config import Config
from socratic_mlflow.model import base_location
from socratic_mlflow.quality import collapse

PACKAGE = Path(__file__).parent

# What of a candidate's metrics its version shows as tags `eval.NAME`, and what decides between two versions.
_TAGGED = ("socratic_style", "socratic_tone", "loss", "hollow_share", "identical_share", "loop_share", "distinct_2")
_DECIDING = ("socratic_style", "socratic_tone", "hollow_share")

# URI of a version -> its metrics on the candidate's questions, under the candidate's style profile.
Measure = Callable[[str], Mapping[str, float]]


@dataclass(frozen=True)
class Candidate:
    """The best adapter of a run: its folder, the step it comes from, and its `metrics` on the questions of that digest,
    under the style profile of that digest, with replies of at most `max_new_tokens`.

    `base_revision` is the commit of a Hub base, or the SHA-256 of a local one.
    """

    adapter: Path
    run_id: str
    step: int
    metrics: Mapping[str, float]
    base_revision: str
    data_digest: str
    questions_digest: str
    profile_digest: str
    max_new_tokens: int

    @property
    def judged_by(self) -> dict[str, str]:
        """What must be equal for the scores of two versions to be comparable."""
        return {
            "questions_digest": self.questions_digest,
            "style_profile_digest": self.profile_digest,
            "max_new_tokens": str(self.max_new_tokens),
        }


@dataclass(frozen=True)
class Version:
    """A registered version and where it stands (`alias` may be empty); `why` says, in words, how that came about."""

    name: str
    version: str
    stage: str
    alias: str
    why: str


def register(candidate: Candidate, config: Config, measure: Measure) -> Version:
    """Store `candidate` as a new version with its tags, and give it stage and alias as `registry.promote` says.

    `measure(uri)` gives a champion's metrics where it was judged by other questions or another style than the candidate.
    """
    from mlflow import MlflowClient

    name = config.registry.registered_model_name
    model_id = _log_model(candidate, config)
    client = MlflowClient()
    promoted, why = _decide(candidate, config, measure)
    tags = {
        "run_id": candidate.run_id,
        "base_model": config.model.base_model,
        "base_revision": candidate.base_revision,
        "data_digest": candidate.data_digest,
        **candidate.judged_by,
        "step": candidate.step,
        **{f"eval.{metric}": _rounded(candidate.metrics[metric]) for metric in _TAGGED if metric in candidate.metrics},
        "collapsed": collapse(candidate.metrics["hollow_share"]) or "no",
        "promotion": why,
    }
    version = _new_version(name, model_id, {key: str(value) for key, value in tags.items()})
    stage, alias = ("Production", "champion") if promoted else _below_champion(name, candidate)
    client.transition_model_version_stage(name, version.version, stage, archive_existing_versions=promoted)
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    uri = f"models:/{name}/{stage if alias else version.version}"
    client.update_model_version(name, version.version, description=describe(candidate, config, uri, f"{stage}: {why}"))
    return Version(name, str(version.version), stage, alias, why)


def _below_champion(name: str, candidate: Candidate) -> tuple[str, str]:
    """Stage and alias of a version that is not promoted: a collapsed one does not displace an honest challenger either."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if collapse(candidate.metrics["hollow_share"]):
        with contextlib.suppress(MlflowException):
            challenger = MlflowClient().get_model_version_by_alias(name, "challenger")
            if challenger.tags.get("collapsed", "no") == "no":
                return "Archived", ""
    return "Staging", "challenger"


def _new_version(name: str, model_id: str, tags: dict[str, str]) -> Any:
    """`mlflow.register_model`, which also leads from the logged model's page to the version, without what it prints."""
    import mlflow

    with contextlib.redirect_stderr(io.StringIO()):
        return mlflow.register_model(f"models:/{model_id}", name, tags=tags)


def champion_metrics(name: str, candidate: Candidate, measure: Measure) -> tuple[str, Mapping[str, float]] | None:
    """(version, metrics as `candidate` was judged) of the present champion, or None where there is none."""
    champion = find_champion(name)
    if champion is None:
        return None
    known = {key.removeprefix("eval."): value for key, value in champion.tags.items() if key.startswith("eval.")}
    comparable = all(champion.tags.get(key) == value for key, value in candidate.judged_by.items())
    if comparable and all(metric in known for metric in _DECIDING):
        return str(champion.version), {metric: float(known[metric]) for metric in _DECIDING}
    return str(champion.version), measure(f"models:/{name}/{champion.version}")


def find_champion(name: str) -> Any:
    """The version with the alias `champion`, else the newest in stage Production, else None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        return client.get_model_version_by_alias(name, "champion")
    except MlflowException:
        versions = [
            found for found in client.search_model_versions(f"name='{name}'") if found.current_stage == "Production"
        ]
        return max(versions, key=lambda found: int(found.version), default=None)


def exists(uri: str) -> bool:
    """Whether the registry holds `models:/NAME/VERSION`."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    name, version = uri.removeprefix("models:/").rsplit("/", 1)
    try:
        MlflowClient().get_model_version(name, version)
    except MlflowException:
        return False
    return True


def _decide(candidate: Candidate, config: Config, measure: Measure) -> tuple[bool, str]:
    """(whether `candidate` becomes the champion, why); a collapsed one never does over one that has not collapsed."""
    name, promote = config.registry.registered_model_name, config.registry.promote
    collapsed = collapse(candidate.metrics["hollow_share"])
    if promote == "never" or (promote == "always" and not collapsed):
        return promote == "always", f"promote={promote}"
    try:
        champion = champion_metrics(name, candidate, measure)
    except Exception as error:
        # Whatever is wrong with the champion (its base gone or gated, say) must not cost this training its version.
        return False, f"the champion could not be measured on these questions ({type(error).__name__}: {error})"[:500]
    if champion is None:
        return True, "there was no champion yet" + (f", though it has collapsed: {collapsed}" if collapsed else "")
    version, theirs = champion
    fallen = collapse(theirs["hollow_share"])
    if collapsed and not fallen:
        return False, f"it has collapsed ({collapsed}) and version {version} has not"
    if promote == "always":
        return True, f"promote=always; both it and version {version} have collapsed"
    if fallen and not collapsed:
        return True, f"version {version} has collapsed ({fallen}) and it has not"
    return _compare(candidate, version, theirs, config.evaluation.metric_for_best_model)


def _compare(candidate: Candidate, version: str, theirs: Mapping[str, float], metric: str) -> tuple[bool, str]:
    ours, champions, word = _rounded(candidate.metrics[metric]), _rounded(theirs[metric]), metric.removeprefix("socratic_")
    relation = "at least" if ours >= champions else "below"
    return (
        ours >= champions,
        f"{word} {ours:.3f} is {relation} the {champions:.3f} of version {version} on the same questions",
    )


def _rounded(score: float) -> float:
    """A score as a tag shows it, so that a version is compared with what stands there."""
    return round(score, 6)


def describe(candidate: Candidate, config: Config, uri: str, why: str) -> str:
    """The version's description in Markdown: what it is, what it scored, how to load it."""
    scores = candidate.metrics
    return (
        f"LoRA adapter for `{config.model.base_model}`, best of run `{candidate.run_id}` (step {candidate.step}): "
        f"style {scores['socratic_style']:.3f} and tone {scores['socratic_tone']:.3f} on generated replies, held-out loss "
        f"{scores['loss']:.3f}. {why}.\n\n"
        f"```python\nmlflow.pyfunc.load_model('{uri}').predict('正義とは何でしょうか？')\n```"
    )


def _log_model(candidate: Candidate, config: Config) -> str:
    """Store adapter, source and (where it is a small local folder of this package) base; returns the logged model's id."""
    import mlflow

    from socratic_mlflow.serving import INPUT_EXAMPLE, serving_settings

    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / "socratic_mlflow"
        code.mkdir()
        for source in PACKAGE.glob("*.py"):
            shutil.copy(source, code)
        artifacts = {"adapter": str(candidate.adapter)}
        if config.model.base_model == "embedded":
            # The base travels along: a later release may ship another one, under which this adapter means nothing.
            artifacts["base"] = base_location("embedded")
        logged = mlflow.pyfunc.log_model(
            name="adapter",
            python_model=str(PACKAGE / "serving_model.py"),
            code_paths=[str(code)],
            artifacts=artifacts,
            model_config=serving_settings(config, candidate.base_revision),
            input_example=INPUT_EXAMPLE,
            pip_requirements=requirements(),
            step=_model_step(candidate.step),
        )
    # Under names of their own: the run has eval/... at this step already, and metrics tied to a model go to the run too.
    mlflow.log_metrics(
        {f"summary/registered_{name.removeprefix('socratic_')}": candidate.metrics[name] for name in (*_DECIDING, "loss")},
        step=candidate.step,
        model_id=logged.model_id,
    )
    return str(logged.model_id)


def _model_step(step: int) -> int:
    """`step`, or on MLflow's file store a step that no metric has.

    `log_model` logs the run's metrics of its step once more, tied to the model: a database knows such rows again, the file
    store would hold each of them twice.
    """
    import mlflow

    return -1 if urlsplit(mlflow.get_tracking_uri()).scheme in ("", "file") else step


def requirements() -> list[str]:
    """What the stored model needs to answer, at the versions installed here."""
    from importlib.metadata import version

    needed = (
        "mlflow",
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "accelerate",
        "pandas",
        "safetensors",
        "pyyaml",
    )
    return [f"{name}=={version(name).partition('+')[0]}" for name in needed]


def as_tags(version: Version) -> Mapping[str, str]:
    """Tags for the run, so that its page leads to the version."""
    return {
        "registered_model": f"models:/{version.name}/{version.version}",
        "registered_stage": version.stage,
        "promotion": version.why,
    }
