"""From the journal's word that a training is done, to the registered version: now, or when MLflow can be reached again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from socratic_mlflow.checkpoints import ensure_adapter
from socratic_mlflow.config import Config, EvaluationConfig
from socratic_mlflow.journal import Journal, Record
from socratic_mlflow.options import build_config
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.progress import say
from socratic_mlflow.promotion import Candidate
from socratic_mlflow.records import is_well_formed
from socratic_mlflow.registry import Version, as_tags, register, registered_metrics
from socratic_mlflow.run_lifecycle import how_to_deliver
from socratic_mlflow.store_errors import is_outage, patiently
from socratic_mlflow.style_profile import StyleProfile, parse_profile, to_yaml
from socratic_mlflow.tracking import Tracker

if TYPE_CHECKING:
    from socratic_mlflow.corpus import Corpus


def announce(tracker: Tracker, candidate: Candidate, corpus: Corpus, config: Config, training_id: str) -> None:
    """Put into the journal all that registering takes, so that it can be done without the training's process.

    `training_id` is the identity (`output_dir.py`) under which the candidate's checkpoint is sealed.
    """
    plain = {name: value for name, value in asdict(candidate).items() if name not in ("adapter", "run_id")}
    tracker.write(
        {
            "kind": "register",
            "training_id": training_id,
            "candidate": plain,
            "questions": corpus.questions,
            "profile": to_yaml(corpus.profile),
            "description": describe_run(config, len(corpus.train), len(corpus.held_out), "{uri}"),
        }
    )
    tracker.flush()


def pending(output: OutputDir) -> Record | None:
    """What `announce` wrote last and nobody has registered yet; None where there is nothing to do.

    Once a training has been made longer, what was announced before no longer counts; in a new run it counts again.
    """
    announced, registered = None, False
    for record, _ in Journal(output.journal).records():
        kind = record["kind"]
        if kind == "register" and is_well_formed(record):
            announced, registered = record, False
        elif kind in ("training", "registered"):
            registered = kind == "registered"
        elif kind == "longer":
            announced = None
    return None if registered else announced


def finish(output: OutputDir, tracker: Tracker) -> bool:
    """Deliver everything, register the model that waits for it, and say how it stands; False where MLflow is away."""
    announced = pending(output)
    if announced and not build_config({}, str(output.config_file)).registry.register:
        return _leave_unregistered(output, tracker, announced)
    done = tracker.drain()
    if done and announced:
        done = tracker.check() and _publish_patiently(output, tracker, announced)
    if not done:
        say(f"warning: {how_to_deliver(tracker, output.folder)}" + (" and registers the model" if announced else ""))
    elif not announced:
        say(f"MLflow has everything of {output.folder} (run {tracker.run_id})")
    return done


def _leave_unregistered(output: OutputDir, tracker: Tracker, announced: Record) -> bool:
    """End the run, whose model is to stay in the output folder; False where MLflow is away."""
    last = [record["kind"] for record, _ in Journal(output.journal).records() if record["kind"] in ("register", "end")][-1]
    if last == "register":
        _say_or_log_before_and_after(tracker, announced["candidate"].get("step", 0))
        done = tracker.end("FINISHED")
        output.record(build_config({}, str(output.config_file)), run_id=tracker.run_id)
    else:
        done = tracker.drain()
    if done:
        say(f"adapter {output.best_adapter}, not registered (register=false; run {tracker.run_id})")
    else:
        say(f"warning: {how_to_deliver(tracker, output.folder)}")
    return done


def _publish_patiently(output: OutputDir, tracker: Tracker, announced: Record) -> bool:
    """`publish`, tried again where MLflow goes in the middle of it; False where it stays away."""
    try:
        version = patiently(lambda: publish(output, tracker, announced))
    except Exception as error:
        if not is_outage(error):
            raise
        return False
    _say_version(version, tracker.run_id)
    return tracker.drain()


def publish(output: OutputDir, tracker: Tracker, announced: Record) -> Version:
    """Register the best adapter, tell the run which version it became, and end the run. Done twice, it changes nothing."""
    import mlflow

    config, profile = build_config({}, str(output.config_file)), parse_profile(announced["profile"], "style profile")
    try:
        candidate = Candidate(**announced["candidate"], adapter=output.best_adapter, run_id=tracker.run_id)
    except TypeError:
        raise ValueError(f"{tracker.folder}: does not say what is to be registered; its records are damaged") from None
    checkpoint = output.checkpoints / f"checkpoint-{candidate.step}"
    ensure_adapter(checkpoint, output.best_adapter, announced["training_id"])
    with mlflow.start_run(run_id=tracker.run_id):
        version = register(candidate, config, lambda uri: measure(uri, announced["questions"], config.evaluation, profile))
    uri = f"models:/{version.name}/{version.version}"
    tracker.set_tags({**as_tags(version), "mlflow.note.content": announced["description"].replace("{uri}", uri)})
    tracker.log_metrics(registered_metrics(candidate), candidate.step, version.model_id)
    _say_or_log_before_and_after(tracker, candidate.step)
    tracker.write({"kind": "registered", "model": uri})
    tracker.end("FINISHED")
    output.record(config, model=uri, run_id=tracker.run_id)
    return version


def _say_version(version: Version, run_id: str) -> None:
    place = f"{version.stage} and @{version.alias}" if version.alias else version.stage
    say(f"model  {version.name} version {version.version} is now {place}: {version.why}")
    say(f"look   mlflow ui   (run {run_id})")
    load = f"mlflow.pyfunc.load_model('models:/{version.name}/{version.stage}').predict('正義とは何でしょうか？')"
    say(f'ask    python -c "import mlflow; print({load})"')


def measure(uri: str, questions: list[str], limits: EvaluationConfig, profile: StyleProfile) -> Mapping[str, float]:
    """The metrics (`evaluation.judge`) of the registered model at `uri`, asked `questions` as a candidate was."""
    from socratic_mlflow.evaluation import evaluator_for
    from socratic_mlflow.named_model import load

    named = load(uri, {})
    metrics, _ = evaluator_for(named.chat, questions, limits, profile)(named.model)
    return metrics


def describe_run(config: Config, train: int, held_out: int, uri: str) -> str:
    """The run's description in Markdown: what is trained on what (numbers of dialogues), and how to load it from `uri`."""
    return (
        f"QLoRA of `{config.model.base_model}` on `{config.data.path}` ({train} dialogues, {held_out} held out), "
        f"{config.training.epochs} epochs, learning rate {config.training.learning_rate:g}, rank {config.lora.r}. "
        f"The best checkpoint is chosen by `eval/{config.evaluation.metric_for_best_model}` on generated replies.\n\n"
        f"```python\nimport mlflow\nmodel = mlflow.pyfunc.load_model('{uri}')\n"
        "print(model.predict('正義とは何でしょうか？'))\n```"
    )


def _say_or_log_before_and_after(tracker: Tracker, best_step: int) -> None:
    try:
        _log_before_and_after(tracker, best_step)
    except ValueError as error:
        # A file that the disk has damaged must not keep a training from its end.
        say(f"warning: no before_and_after.json: {error}")


def _log_before_and_after(tracker: Tracker, best_step: int) -> None:
    """One table of each question with the untrained base's reply and the best adapter's, side by side."""
    from socratic_mlflow.callback import samples_file

    before, after = tracker.read_table(samples_file(0)), tracker.read_table(samples_file(best_step))
    rows: list[dict[str, Any]] = [
        {
            "question": old["question"],
            "before (base)": old["reply"],
            "after (best adapter)": new["reply"],
            "style before": old["socratic_style"],
            "style after": new["socratic_style"],
            "tone before": old["socratic_tone"],
            "tone after": new["socratic_tone"],
        }
        for old, new in zip(before, after, strict=True)
    ]
    tracker.log_table(rows, "before_and_after.json")
