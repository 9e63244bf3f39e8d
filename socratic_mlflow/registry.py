"""The best adapter -> a version of the registered model, and which stage and alias it takes."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from socratic_mlflow.config import Config
from socratic_mlflow.model import base_location
from socratic_mlflow.promotion import DECIDING, Candidate, Measure, below_champion, decide, rounded
from socratic_mlflow.quality import collapse
from socratic_mlflow.standing import move
from socratic_mlflow.store_errors import is_missing

PACKAGE = Path(__file__).parent

# What of a candidate's metrics its version shows as tags `eval.NAME`.
_TAGGED = ("socratic_style", "socratic_tone", "loss", "hollow_share", "identical_share", "loop_share", "distinct_2")


@dataclass(frozen=True)
class Version:
    """A registered version and where it stands (`alias` may be empty); `why` says, in words, how that came about.

    `model_id` is the logged model's that it was made of.
    """

    name: str
    version: str
    stage: str
    alias: str
    why: str
    model_id: str


def register(candidate: Candidate, config: Config, measure: Measure) -> Version:
    """Store `candidate` as a new version with its tags, and give it stage and alias as `registry.promote` says.

    `measure(uri)` gives a champion's metrics where it was judged by other questions or another style than the candidate.
    """
    from mlflow import MlflowClient

    name = config.registry.registered_model_name
    client, version = MlflowClient(), _find(name, candidate)
    # One that has its alias was decided on already, and nobody learned of it.
    decided = version is not None and bool({"champion", "challenger"} & set(version.aliases))
    promoted, why = (
        ("champion" in version.aliases, version.tags["promotion"]) if decided else decide(candidate, config, measure)
    )
    tags = {
        "run_id": candidate.run_id,
        "base_model": config.model.base_model,
        "base_revision": candidate.base_revision,
        "data_digest": candidate.data_digest,
        **candidate.judged_by,
        "step": candidate.step,
        **{f"eval.{metric}": rounded(candidate.metrics[metric]) for metric in _TAGGED if metric in candidate.metrics},
        "collapsed": collapse(candidate.metrics["hollow_share"]) or "no",
        "promotion": why,
    }
    version = version or _new_version(name, _log_model(candidate, config), {key: str(tags[key]) for key in tags})
    stage, alias = ("Production", "champion") if promoted else below_champion(name, candidate)
    uri = f"models:/{name}/{version.version}"
    client.update_model_version(name, version.version, description=describe(candidate, config, uri))
    move(name, str(version.version), stage, "training", why)
    return Version(name, str(version.version), stage, alias, why, str(version.source).removeprefix("models:/"))


def _find(name: str, candidate: Candidate) -> Any:
    """The version that was made of `candidate` already, or None."""
    from mlflow import MlflowClient

    for found in MlflowClient().search_model_versions(f"name='{name}'"):
        if (found.tags.get("run_id"), found.tags.get("step")) == (candidate.run_id, str(candidate.step)):
            return MlflowClient().get_model_version(name, found.version)
    return None


def _new_version(name: str, model_id: str, tags: dict[str, str]) -> Any:
    """`mlflow.register_model`, which also leads from the logged model's page to the version, without what it prints."""
    import mlflow

    with contextlib.redirect_stderr(io.StringIO()):
        return mlflow.register_model(f"models:/{model_id}", name, tags=tags)


def is_deleted(uri: str) -> bool:
    """Whether the registry answers that it has no `models:/NAME/VERSION`; one that does not answer says nothing."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    name, version = uri.removeprefix("models:/").rsplit("/", 1)
    try:
        MlflowClient().get_model_version(name, version)
    except MlflowException as error:
        return is_missing(error)
    return False


def describe(candidate: Candidate, config: Config, uri: str) -> str:
    """The version's description in Markdown, which stays true wherever it is moved: what it is, what it scored, how to load
    it."""
    scores = candidate.metrics
    return (
        f"LoRA adapter for `{config.model.base_model}`, best of run `{candidate.run_id}` (step {candidate.step}): "
        f"style {scores['socratic_style']:.3f} and tone {scores['socratic_tone']:.3f} on generated replies, held-out loss "
        f"{scores['loss']:.3f}. The tag `promotion` says why it stands where it stands.\n\n"
        f"```python\nmlflow.pyfunc.load_model('{uri}').predict('正義とは何でしょうか？')\n```"
    )


def _log_model(candidate: Candidate, config: Config) -> str:
    """Store adapter, source and (where it is a small local folder of this package) base; returns the logged model's id."""
    import mlflow

    from socratic_mlflow.serving import input_example, serving_settings

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
            input_example=input_example(config),
            pip_requirements=requirements(),
            step=_model_step(candidate.step),
        )
    return str(logged.model_id)


def registered_metrics(candidate: Candidate) -> dict[str, float]:
    """What `candidate` scored, under names of its own: the run has eval/... at that step already, and a metric that is
    tied to a model goes to the run too."""
    return {f"summary/registered_{name.removeprefix('socratic_')}": candidate.metrics[name] for name in (*DECIDING, "loss")}


def _model_step(step: int) -> int:
    """`step` where the store is a database, else a step that no metric has.

    `log_model` logs the run's metrics of its step once more, tied to the model: a database knows such rows again, MLflow's
    file store would hold each of them twice, and behind a server may be either.
    """
    import mlflow

    scheme = urlsplit(mlflow.get_tracking_uri()).scheme
    return step if scheme.startswith(("sqlite", "postgresql", "mysql", "mssql")) else -1


def requirements() -> list[str]:
    """What the stored model needs to answer, at the versions installed here."""
    from importlib.metadata import version

    needed = (
        "mlflow",
        "torch",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "peft",
        "bitsandbytes",
        "accelerate",
        "pandas",
        "safetensors",
        "pyyaml",
        # Chat templates are written in it; transformers itself does not require it.
        "jinja2",
        # MLflow's server is made of it, and `scoring_guard` knows its errors.
        "starlette",
    )
    return [f"{name}=={version(name).partition('+')[0]}" for name in needed]


def as_tags(version: Version) -> Mapping[str, str]:
    """Tags for the run, so that its page leads to the version; where that stands may change, what was decided does not."""
    return {"registered_model": f"models:/{version.name}/{version.version}", "promotion": version.why}
