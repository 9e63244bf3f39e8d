"""Which stage and alias a candidate takes, compared with the present champion on the same questions, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratic_mlflow.config import Config
from socratic_mlflow.quality import collapse
from socratic_mlflow.run_lifecycle import store_trouble
from socratic_mlflow.store_errors import is_missing, patiently

# What decides between two versions.
DECIDING = ("socratic_style", "socratic_tone", "hollow_share")

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


def decide(candidate: Candidate, config: Config, measure: Measure) -> tuple[bool, str]:
    """(whether `candidate` becomes the champion, why); a collapsed one never does over one that has not collapsed."""
    name, promote = config.registry.registered_model_name, config.registry.promote
    collapsed = collapse(candidate.metrics["hollow_share"])
    if promote == "never" or (promote == "always" and not collapsed):
        return promote == "always", f"promote={promote}"
    try:
        champion = patiently(lambda: champion_metrics(name, candidate, measure))
    except Exception as error:
        if store_trouble():
            # Not the champion's fault, and no ground for a decision that nobody would look at again.
            raise
        # Whatever is wrong with the champion (its base gone or gated, say) must not cost this training its version.
        return False, f"the champion could not be measured on these questions ({type(error).__name__}: {error})"[:500]
    if champion is None:
        return True, "there was no champion yet" + (f", though it has collapsed: {collapsed}" if collapsed else "")
    version, theirs = champion
    if promote == "always" and collapse(theirs["hollow_share"]):
        return True, f"promote=always; both it and version {version} have collapsed"
    return compare(candidate.metrics, version, theirs, config.evaluation.metric_for_best_model)


def compare(ours: Mapping[str, float], version: str, theirs: Mapping[str, float], metric: str) -> tuple[bool, str]:
    """(whether a model that scores `ours` may take the place of `version`, which scores `theirs`; why), both on the same
    questions; neither way do scores count where one of the two has collapsed."""
    collapsed, fallen = collapse(ours["hollow_share"]), collapse(theirs["hollow_share"])
    if collapsed and not fallen:
        return False, f"it has collapsed ({collapsed}) and version {version} has not"
    if fallen and not collapsed:
        return True, f"version {version} has collapsed ({fallen}) and it has not"
    our, their, word = rounded(ours[metric]), rounded(theirs[metric]), metric.removeprefix("socratic_")
    relation = "at least" if our >= their else "below"
    return our >= their, f"{word} {our:.3f} is {relation} the {their:.3f} of version {version} on the same questions"


def below_champion(name: str, candidate: Candidate) -> tuple[str, str]:
    """Stage and alias of a version that is not promoted: a collapsed one does not displace an honest challenger either."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if collapse(candidate.metrics["hollow_share"]):
        try:
            challenger = MlflowClient().get_model_version_by_alias(name, "challenger")
            if challenger.tags.get("collapsed", "no") == "no":
                return "Archived", ""
        except MlflowException as error:
            if not is_missing(error):
                raise
    return "Staging", "challenger"


def champion_metrics(name: str, candidate: Candidate, measure: Measure) -> tuple[str, Mapping[str, float]] | None:
    """(version, metrics as `candidate` was judged) of the present champion, or None where there is none."""
    champion = find_champion(name)
    if champion is None:
        return None
    known = {key.removeprefix("eval."): value for key, value in champion.tags.items() if key.startswith("eval.")}
    comparable = all(champion.tags.get(key) == value for key, value in candidate.judged_by.items())
    if comparable and all(metric in known for metric in DECIDING):
        return str(champion.version), {metric: float(known[metric]) for metric in DECIDING}
    return str(champion.version), measure(f"models:/{name}/{champion.version}")


def find_champion(name: str) -> Any:
    """The version with the alias `champion`, else the newest in stage Production, else None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        return client.get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if not is_missing(error):
            raise
        versions = [
            found for found in client.search_model_versions(f"name='{name}'") if found.current_stage == "Production"
        ]
        return max(versions, key=lambda found: int(found.version), default=None)


def rounded(score: float) -> float:
    """A score as a tag shows it, so that a version is compared with what stands there."""
    return round(score, 6)
