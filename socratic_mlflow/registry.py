"""The best adapter -> a version of the registered model, and which stage and alias it takes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from socratic_mlflow.config import Config
from socratic_mlflow.model import base_location

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Candidate:
    """The best adapter of a run: its folder, the step it comes from, and its scores on `questions_digest`.

    `base_revision` is the commit of a Hub base, or the SHA-256 of a local one.
    """

    adapter: Path
    run_id: str
    step: int
    style: float
    loss: float
    base_revision: str
    data_digest: str
    questions_digest: str


@dataclass(frozen=True)
class Version:
    """A registered version and where it stands; `why` says, in words, how that came about."""

    name: str
    version: str
    stage: str
    alias: str
    why: str


def register(candidate: Candidate, config: Config, champion_style: ChampionStyle) -> Version:
    """Store `candidate` as a new version with its tags, and give it stage and alias as `registry.promote` says.

    `champion_style` tells the present champion's style on the candidate's own questions.
    """
    from mlflow import MlflowClient

    name = config.registry.registered_model_name
    model_id = _log_model(candidate, config)
    client = MlflowClient()
    promoted, why = _decide(candidate, config, champion_style)
    tags = {
        "run_id": candidate.run_id,
        "base_model": config.model.base_model,
        "base_revision": candidate.base_revision,
        "data_digest": candidate.data_digest,
        "questions_digest": candidate.questions_digest,
        "step": candidate.step,
        "eval.socratic_style": candidate.style,
        "eval.loss": candidate.loss,
        "promotion": why,
    }
    version = _new_version(client, name, model_id, {key: str(value) for key, value in tags.items()})
    stage, alias = ("Production", "champion") if promoted else ("Staging", "challenger")
    client.transition_model_version_stage(name, version.version, stage, archive_existing_versions=promoted)
    client.set_registered_model_alias(name, alias, version.version)
    client.update_model_version(name, version.version, description=describe(candidate, config, stage, why))
    return Version(name, str(version.version), stage, alias, why)


def _new_version(client: Any, name: str, model_id: str, tags: dict[str, str]) -> Any:
    """`mlflow.register_model` without what it prints."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(name, f"models:/{model_id}", tags=tags, model_id=model_id)


class ChampionStyle:
    """The champion of a registered model and its style; subclassed nowhere, a value with a lookup.

    `measure(uri)` is asked only where the champion was judged by other questions than the candidate.
    """

    def __init__(self, measure: Any) -> None:
        self._measure = measure

    def __call__(self, name: str, questions_digest: str) -> tuple[str, float] | None:
        """(version, style on these questions) of the present champion, or None where there is none."""
        champion = find_champion(name)
        if champion is None:
            return None
        if champion.tags.get("questions_digest") == questions_digest and "eval.socratic_style" in champion.tags:
            return str(champion.version), float(champion.tags["eval.socratic_style"])
        return str(champion.version), float(self._measure(f"models:/{name}/{champion.version}"))


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


def _decide(candidate: Candidate, config: Config, champion_style: ChampionStyle) -> tuple[bool, str]:
    name, promote = config.registry.registered_model_name, config.registry.promote
    if promote != "if_better":
        return promote == "always", f"promote={promote}"
    try:
        champion = champion_style(name, candidate.questions_digest)
    except Exception as error:
        # Whatever is wrong with the champion (its base gone or gated, say) must not cost this training its version.
        return False, f"the champion could not be measured on these questions ({type(error).__name__}: {error})"[:500]
    if champion is None:
        return True, "there was no champion yet"
    version, style = champion
    better = candidate.style >= style
    relation = "at least" if better else "below"
    return (
        better,
        f"style {candidate.style:.3f} is {relation} the {style:.3f} of version {version} on the same questions",
    )


def describe(candidate: Candidate, config: Config, stage: str, why: str) -> str:
    """The version's description in Markdown: what it is, what it scored, how to load it."""
    name = config.registry.registered_model_name
    return (
        f"LoRA adapter for `{config.model.base_model}`, best of run `{candidate.run_id}` (step {candidate.step}): "
        f"style {candidate.style:.3f} on generated replies, held-out loss {candidate.loss:.3f}. {stage}: {why}.\n\n"
        f"```python\nmlflow.pyfunc.load_model('models:/{name}/{stage}').predict('正義とは何でしょうか？')\n```"
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
        {"summary/registered_style": candidate.style, "summary/registered_loss": candidate.loss},
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
