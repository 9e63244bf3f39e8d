"""What each command of the command line does, from its options to what it prints. Heavy imports stay inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from socratic_mlflow.config import Config, EvaluationConfig
from socratic_mlflow.dialogues import read_dialogues, read_questions, scan_dialogues, skip_counts
from socratic_mlflow.options import as_params, build_config, parse_values, read_yaml, to_yaml
from socratic_mlflow.presets import EMBEDDED
from socratic_mlflow.quiet import quiet, quiet_transformers
from socratic_mlflow.style_profile import StyleProfile, read_profile
from socratic_mlflow.style_profile import to_yaml as profile_yaml

if TYPE_CHECKING:
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.registry import Version
    from socratic_mlflow.tracking import Tracker
    from socratic_mlflow.trainer import Best, Prepared


def train(given: Mapping[str, Any], yaml_path: str | None) -> int:
    """Configure, train, register, and say where to look; returns the exit code."""
    quiet()
    from socratic_mlflow.model import cuda_available, resolve_dtype

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "started as several processes (WORLD_SIZE above 1); one process trains, start it without a launcher"
        )
    config = build_config(given, yaml_path, cuda_available)
    # What can be checked without torch is checked before it is loaded.
    digests = _digests(config)
    import mlflow

    from socratic_mlflow.output_dir import locate
    from socratic_mlflow.tracking import check_store, without_credentials

    quiet_transformers()
    store = without_credentials(mlflow.get_tracking_uri())
    config = resolve_dtype(config)
    output = locate(config, store, digests)
    output.check(config, store, digests)
    state = output.state()
    check_store(state.get("run_id"))
    if "model" in state:
        return _finished_already(state, output)
    return _run(config, _requested_preset(given, yaml_path), output, digests | {"tracking_uri": store})


def _digests(config: Config) -> dict[str, str]:
    """The contents of the data, by which a training is known again; ValueError (one line) where they are unusable."""
    digests = {"data_digest": read_dialogues(config.data.path).digest}
    digests["style_profile_digest"] = read_profile(config.evaluation.style_profile).digest()
    if config.evaluation.questions != "heldout":
        digests["questions_digest"] = read_questions(config.evaluation.questions)[1]
    return digests


def _finished_already(state: Mapping[str, str], output: OutputDir) -> int:
    from socratic_mlflow.progress import say
    from socratic_mlflow.registry import exists
    from socratic_mlflow.tracking import point_to

    if not exists(state["model"]):
        raise ValueError(
            f"{output.folder} holds a finished training, but its {state['model']} is no longer in the registry; "
            "choose another output_dir to train anew"
        )
    say(f"This training has finished already: {state['model']} (run {state['run_id']}, files in {output.folder}).")
    say("To train anew, change a field (seed, say) or give another output_dir.")
    point_to(state["run_id"])
    return 0


def _run(config: Config, requested: str, output: OutputDir, known: Mapping[str, str]) -> int:
    from socratic_mlflow.progress import say
    from socratic_mlflow.tracking import open_run, stop_on_sigterm
    from socratic_mlflow.trainer import environment_params, prepare
    from socratic_mlflow.trainer import train as run_training

    say(f"preset {config.run.preset}{' (chosen by auto)' if requested == 'auto' else ''}")
    say(f"loading {config.model.base_model} ...")
    prepared = prepare(config, output)
    _introduce(prepared, say)
    stop_on_sigterm()
    with open_run(output.state().get("run_id")) as tracker:
        output.record(config, run_id=tracker.run_id, **known)
        try:
            log_configuration(prepared, tracker, environment_params(requested))
            best = run_training(prepared, tracker)
            version = publish(prepared, best, tracker)
        except ValueError as error:
            # From here on it is no mistake in the command line: the traceback tells more than one line.
            raise RuntimeError("the training failed") from error
        output.record(config, model=f"models:/{version.name}/{version.version}")
    _conclude(prepared, best, version, tracker.run_id, say)
    return 0


def log_configuration(prepared: Prepared, tracker: Tracker, environment: Mapping[str, str]) -> None:
    """Params, config.yaml, description and dataset inputs: all that is known before the first step."""
    config, corpus = prepared.config, prepared.corpus
    tracker.log_params(as_params(config) | dict(environment) | corpus.params())
    tracker.log_text(to_yaml(config), "config.yaml")
    tracker.log_text(profile_yaml(corpus.profile), "style_profile.yaml")
    tracker.set_tags(
        {
            "mlflow.note.content": _description(prepared, f"models:/{config.registry.registered_model_name}/Production"),
            "preset": config.run.preset,
            "base_model": config.model.base_model,
            "style_profile": corpus.profile.name,
        }
    )
    for name, context, part in (("train", "training", corpus.train), ("held_out", "evaluation", corpus.held_out)):
        rows = [
            {"place": dialogue.place, "messages": json.dumps(dialogue.messages, ensure_ascii=False)} for dialogue in part
        ]
        tracker.log_dataset(rows, f"dialogues_{name}", context, config.data.path)
    tracker.log_dataset(
        [{"question": question} for question in corpus.questions],
        "questions",
        "evaluation",
        config.evaluation.questions,
    )
    if corpus.skipped:
        rows = [{"place": skip.place, "reason": skip.reason, "detail": skip.detail} for skip in corpus.skipped]
        tracker.log_table(rows, "data_not_used.json")


def publish(prepared: Prepared, best: Best, tracker: Tracker) -> Version:
    """Register the best adapter, and tell the run which version it became."""
    from socratic_mlflow.model import base_revision
    from socratic_mlflow.registry import Candidate, as_tags, register

    corpus, limits = prepared.corpus, prepared.config.evaluation
    candidate = Candidate(
        adapter=best.adapter,
        run_id=tracker.run_id,
        step=best.step,
        metrics=best.metrics,
        base_revision=base_revision(prepared.config.model),
        data_digest=corpus.digest,
        questions_digest=corpus.questions_digest,
        profile_digest=corpus.profile.digest(),
        max_new_tokens=limits.max_new_tokens,
    )
    version = register(candidate, prepared.config, lambda uri: measure(uri, corpus.questions, limits, corpus.profile))
    note = _description(prepared, f"models:/{version.name}/{version.version}")
    tracker.set_tags({**as_tags(version), "mlflow.note.content": note})
    log_before_and_after(tracker, best.step)
    return version


def log_before_and_after(tracker: Tracker, best_step: int) -> None:
    """One table of each question with the untrained base's reply and the best adapter's, side by side."""
    from socratic_mlflow.callback import samples_file

    before, after = tracker.read_table(samples_file(0)), tracker.read_table(samples_file(best_step))
    rows = [
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


def measure(uri: str, questions: list[str], limits: EvaluationConfig, profile: StyleProfile) -> dict[str, float]:
    """The metrics (`evaluation.judge`) of the registered model at `uri`, asked `questions` as a candidate was."""
    from socratic_mlflow.evaluation import evaluator_for
    from socratic_mlflow.named_model import load

    named = load(uri, {})
    metrics, _ = evaluator_for(named.chat, questions, limits, profile)(named.model)
    return metrics


def check_data(file: str, given: Mapping[str, Any], yaml_path: str | None) -> int:
    """Print each dialogue of `file` that a training would not use, with place and reason; ValueError if it uses none."""
    quiet()
    from socratic_mlflow.model import cuda_available, load_tokenizer

    config = build_config(dict(given) | {"data.path": file}, yaml_path, cuda_available)
    found = scan_dialogues(file)
    quiet_transformers()
    from socratic_mlflow.tokens import ChatFormat, encode_dialogues

    chat = ChatFormat(load_tokenizer(config.model))
    used, _, too_long = encode_dialogues(chat, found.dialogues, config.data.max_length)
    skipped = found.skipped + too_long
    for skip in skipped:
        print(f"{file}: {skip.place}: {skip.reason}: {skip.detail}")
    counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(skipped).items())
    if not used:
        raise ValueError(f"{file}: no usable dialogue ({counts or 'the file is empty'})")
    print(f"{file}: {len(used)} dialogues usable, {len(skipped)} not" + (f" ({counts})" if counts else ""))
    return 0


def _requested_preset(given: Mapping[str, Any], yaml_path: str | None) -> str:
    values = read_yaml(yaml_path) if yaml_path else {}
    return str((values | parse_values(given)).get("run.preset", Config().run.preset))


def _introduce(prepared: Prepared, say: Any) -> None:
    config, corpus = prepared.config, prepared.corpus
    trainable, total = prepared.model.get_nb_trainable_parameters()
    kind = f"{config.quantization.bnb_4bit_quant_type} 4-bit" if config.quantization.load_in_4bit else "not quantized"
    say(f"base   {config.model.base_model}: {total / 1e6:.1f}M parameters ({kind}), {trainable / 1e6:.2f}M of them trained")
    say(f"data   {config.data.path}: {len(corpus.train)} dialogues to train on, {len(corpus.held_out)} held out")
    if corpus.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(corpus.skipped).items())
        say(f"       {len(corpus.skipped)} not used ({counts}); 'socratic-mlflow check-data {config.data.path}' lists them")
    say(
        f"judge  {len(corpus.questions)} opening questions, style {corpus.profile.name}; the held-out replies themselves "
        f"score {corpus.reference_style:.3f} (tone {corpus.reference_tone:.3f})"
    )
    if prepared.chat.rewrites_history:
        say("chat   this base's chat template rewrites earlier turns, so only the last reply of each dialogue is learned")
    if config.run.preset == EMBEDDED and config.model.base_model != EMBEDDED:
        say("note   the preset's hyper-parameters suit a model of a few million parameters; see 'train --help' for others")
    checkpoint = prepared.output.newest_checkpoint()
    say(f"files  {prepared.output.folder}" + (f", going on from {checkpoint}" if checkpoint else ""))


def _description(prepared: Prepared, uri: str) -> str:
    """The run's description in Markdown: what is trained on what, and how to load it."""
    config, corpus = prepared.config, prepared.corpus
    return (
        f"QLoRA of `{config.model.base_model}` on `{config.data.path}` ({len(corpus.train)} dialogues, "
        f"{len(corpus.held_out)} held out), {config.training.epochs} epochs, learning rate "
        f"{config.training.learning_rate:g}, rank {config.lora.r}. "
        f"The best checkpoint is chosen by `eval/{config.evaluation.metric_for_best_model}` on generated replies.\n\n"
        f"```python\nimport mlflow\nmodel = mlflow.pyfunc.load_model('{uri}')\n"
        "print(model.predict('正義とは何でしょうか？'))\n```"
    )


def _conclude(prepared: Prepared, best: Best, version: Version, run_id: str, say: Any) -> None:
    corpus = prepared.corpus
    say(
        f"best   step {best.step}: style {best.metrics['socratic_style']:.3f}, tone {best.metrics['socratic_tone']:.3f} on "
        f"generated replies (held-out dialogues' own replies: {corpus.reference_style:.3f}, {corpus.reference_tone:.3f})"
    )
    place = f"{version.stage} and @{version.alias}" if version.alias else version.stage
    say(f"model  {version.name} version {version.version} is now {place}: {version.why}")
    say(f"look   mlflow ui   (run {run_id})")
    load = f"mlflow.pyfunc.load_model('models:/{version.name}/{version.stage}').predict('正義とは何でしょうか？')"
    say(f'ask    python -c "import mlflow; print({load})"')
