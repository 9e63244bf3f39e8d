"""What each command of the command line does, from its options to what it prints. Heavy imports stay inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from socratic_mlflow import torch_settings
from socratic_mlflow.accelerate_file import accelerate_settings, check_divisible
from socratic_mlflow.companions import Companions
from socratic_mlflow.config import Config, with_values
from socratic_mlflow.dialogues import DialogueStream, Skip, dialogues_digest, read_questions, skip_counts
from socratic_mlflow.importing import quick_imports
from socratic_mlflow.launching import check as check_processes
from socratic_mlflow.launching import is_first, launched
from socratic_mlflow.lock import hold
from socratic_mlflow.options import as_params, build_config, parse_values, read_yaml, to_yaml
from socratic_mlflow.presets import EMBEDDED
from socratic_mlflow.quiet import quiet, quiet_transformers
from socratic_mlflow.style_profile import read_profile
from socratic_mlflow.style_profile import to_yaml as profile_yaml

if TYPE_CHECKING:
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.promotion import Candidate
    from socratic_mlflow.tracking import Tracker
    from socratic_mlflow.trainer import Best, Prepared


def train(given: Mapping[str, Any], yaml_path: str | None) -> int:
    """Configure, train, register, and say where to look; returns the exit code."""
    quiet()
    if not is_first():
        from socratic_mlflow.train_along import train_along

        return train_along()
    torch_settings.apply()
    companions = Companions()
    with quick_imports():
        config, output, digests, store = _check_in(given, yaml_path)
        # All that is imported before the first step.
        import socratic_mlflow.trainer  # noqa: F401
    with hold(output.folder):
        # Once more: another process may have been at work here until now.
        output.check(config, store, digests)
        known = digests | {"tracking_uri": store}
        code = _begin_or_go_on(config, _requested_preset(given, yaml_path), output, known, companions)
    companions.dismiss()
    return code


def _check_in(given: Mapping[str, Any], yaml_path: str | None) -> tuple[Config, OutputDir, dict[str, str], str]:
    """(configuration, output folder, digests of the data, MLflow's store); ValueError (one line) for whatever is wrong
    that can be told before the data and the base are loaded."""
    from socratic_mlflow.model import cuda_available, resolve_dtype

    config = build_config(given, yaml_path, cuda_available)
    if config.run.num_processes == 1:
        config = with_values(config, {"run.num_processes": launched()})
    check_processes(config.run.num_processes, config.training.batch_size, config.training.gradient_accumulation_steps)
    # What can be checked without torch is checked before it is loaded.
    digests = _digests(config)
    import mlflow

    from socratic_mlflow.output_dir import locate
    from socratic_mlflow.redaction import without_credentials
    from socratic_mlflow.run_lifecycle import be_brief, run_of, store_trouble
    from socratic_mlflow.tracking import absolute

    quiet_transformers()
    be_brief()
    store = absolute(without_credentials(mlflow.get_tracking_uri()))
    config = resolve_dtype(config)
    output = locate(config, store, digests)
    _check(output, config, store, digests)
    trouble = store_trouble(run_of(output.journal))
    if trouble and config.run.require_tracking:
        raise ValueError(f"require_tracking=true, but MLflow at {store} cannot be reached: {trouble}")
    return config, output, digests, store


def _check(output: OutputDir, config: Config, store: str, digests: Mapping[str, str]) -> None:
    """`OutputDir.check`; where it refuses, a run that a killed process has left running is closed at least."""
    from socratic_mlflow.sync_command import close_left_running

    try:
        output.check(config, store, digests)
    except ValueError:
        close_left_running(output)
        raise


def _begin_or_go_on(
    config: Config, requested: str, output: OutputDir, known: Mapping[str, str], companions: Companions
) -> int:
    from socratic_mlflow.publishing import pending
    from socratic_mlflow.sync_command import sync_one

    state = output.state()
    if not _lengthened(config, output):
        if "model" in state:
            return _finished_already(state, output)
        if pending(output):
            # What may have changed since is where the model goes.
            output.record(config)
            return sync_one(output)
    with companions.together(config.run.num_processes, _settings(config), (config, output.folder)):
        return _run(config, requested, output, known, companions)


def _settings(config: Config) -> dict[str, str]:
    """What an accelerate_config adds to the environment; ValueError (one line) where it cannot be used."""
    file, processes = config.run.accelerate_config, config.run.num_processes
    if file == "none":
        return {}
    if processes == 1:
        raise ValueError(f"accelerate_config {file} is for several processes; give num_processes as well")
    settings, note = accelerate_settings(file, processes)
    check_divisible(settings, f"accelerate_config {file}")
    if note:
        from socratic_mlflow.progress import say

        say(note)
    return settings


def _digests(config: Config) -> dict[str, str]:
    """The contents of the data, by which a training is known again; ValueError (one line) where they are unusable."""
    digests = {"data_digest": dialogues_digest(config.data.path)}
    digests["style_profile_digest"] = read_profile(config.evaluation.style_profile).digest()
    if config.evaluation.questions != "heldout":
        digests["questions_digest"] = read_questions(config.evaluation.questions)[1]
    return digests


def _lengthened(config: Config, output: OutputDir) -> set[str]:
    """The fields by which the training in `output` is given another length, longer than it has got so far."""
    return output.changes(config).keys() & {"training.epochs", "training.max_steps"}


def _finished_already(state: Mapping[str, str], output: OutputDir) -> int:
    from socratic_mlflow.progress import say
    from socratic_mlflow.registry import is_deleted
    from socratic_mlflow.run_lifecycle import point_to

    if is_deleted(state["model"]):
        raise ValueError(
            f"{output.folder} holds a finished training, but its {state['model']} is no longer in the registry; "
            "choose another output_dir to train anew"
        )
    run_id = state.get("run_id", "")
    say(f"This training has finished already: {state['model']} (run {run_id}, files in {output.folder}).")
    say("To train anew, change a field (seed, say) or give another output_dir.")
    point_to(run_id)
    return 0


def _run(config: Config, requested: str, output: OutputDir, known: Mapping[str, str], companions: Companions) -> int:
    from socratic_mlflow.identity import identity
    from socratic_mlflow.interruption import Interruption
    from socratic_mlflow.progress import say
    from socratic_mlflow.publishing import announce, finish
    from socratic_mlflow.run_lifecycle import end_badly, training_run
    from socratic_mlflow.trainer import environment_params, prepare
    from socratic_mlflow.trainer import train as run_training

    say(f"preset {config.run.preset}{' (chosen by auto)' if requested == 'auto' else ''}")
    say(f"loading {config.model.base_model} ...")
    prepared = prepare(config, output)
    _introduce(prepared, say)
    longer = bool(_lengthened(config, output))
    # One that is made longer has no model yet.
    output.record(config, model=None, **known)
    with Interruption() as interruption, training_run(output.journal, say) as tracker:
        try:
            if longer:
                tracker.write({"kind": "longer"})
            log_configuration(prepared, tracker, environment_params(requested))
            with companions.training(partial(end_badly, tracker)):
                best = run_training(prepared, tracker, interruption)
            interruption.no_more_waiting()
            announce(tracker, _candidate(prepared, best), prepared.corpus, config, identity(config, known))
            _say_best(prepared, best, say)
            finish(output, tracker)
            return 0
        except ValueError as error:
            # From here on it is no mistake in the command line.
            raise RuntimeError(f"the training failed: {error}") from error


def log_configuration(prepared: Prepared, tracker: Tracker, environment: Mapping[str, str]) -> None:
    """Params, config.yaml, description and dataset inputs: all that is known before the first step."""
    from socratic_mlflow.publishing import describe_run

    config, corpus = prepared.config, prepared.corpus
    uri = f"models:/{config.registry.registered_model_name}/Production"
    tracker.log_params(as_params(config) | dict(environment) | corpus.params())
    tracker.log_text(to_yaml(config), "config.yaml")
    tracker.log_text(profile_yaml(corpus.profile), "style_profile.yaml")
    tracker.set_tags(
        {
            "mlflow.note.content": describe_run(config, len(corpus.train), len(corpus.held_out), uri),
            "preset": config.run.preset,
            "base_model": config.model.base_model,
            "style_profile": corpus.profile.name,
        }
    )
    tracker.log_dataset(corpus.train.select_columns(["place", "messages"]), "dialogues_train", "training", config.data.path)
    held_out = [
        {"place": dialogue.place, "messages": json.dumps(dialogue.messages, ensure_ascii=False)}
        for dialogue in corpus.held_out
    ]
    tracker.log_dataset(held_out, "dialogues_held_out", "evaluation", config.data.path)
    tracker.log_dataset(
        [{"question": question} for question in corpus.questions],
        "questions",
        "evaluation",
        config.evaluation.questions,
    )
    if corpus.skipped:
        rows = [{"place": skip.place, "reason": skip.reason, "detail": skip.detail} for skip in corpus.skipped]
        tracker.log_table(rows, "data_not_used.json")


def _candidate(prepared: Prepared, best: Best) -> Candidate:
    from socratic_mlflow.model import base_revision
    from socratic_mlflow.promotion import Candidate

    corpus = prepared.corpus
    return Candidate(
        adapter=best.adapter,
        run_id="",
        step=best.step,
        metrics=best.metrics,
        base_revision=base_revision(prepared.config.model),
        data_digest=corpus.digest,
        questions_digest=corpus.questions_digest,
        profile_digest=corpus.profile.digest(),
        max_new_tokens=prepared.config.evaluation.max_new_tokens,
    )


def check_data(file: str, given: Mapping[str, Any], yaml_path: str | None) -> int:
    """Print each dialogue of `file` that a training would not use, with place and reason; ValueError if it uses none."""
    quiet()
    from socratic_mlflow.model import cuda_available, load_tokenizer

    config = build_config(dict(given) | {"data.path": file}, yaml_path, cuda_available)
    stream, left_out = DialogueStream(file), list[Skip]()
    quiet_transformers()
    from socratic_mlflow.tokens import ChatFormat, encode_each

    chat = ChatFormat(load_tokenizer(config.model))
    used = sum(1 for _ in encode_each(chat, stream, config.data.max_length, left_out))
    skipped = stream.skipped + left_out
    for skip in skipped:
        print(f"{file}: {skip.place}: {skip.reason}: {skip.detail}")
    counts = ", ".join(f"{count} {reason}" for reason, count in skip_counts(skipped).items())
    if not used:
        raise ValueError(f"{file}: no usable dialogue ({counts or 'the file is empty'})")
    print(f"{file}: {used} dialogues usable, {len(skipped)} not" + (f" ({counts})" if counts else ""))
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


def _say_best(prepared: Prepared, best: Best, say: Any) -> None:
    corpus = prepared.corpus
    say(
        f"best   step {best.step}: style {best.metrics['socratic_style']:.3f}, tone {best.metrics['socratic_tone']:.3f} on "
        f"generated replies (held-out dialogues' own replies: {corpus.reference_style:.3f}, {corpus.reference_tone:.3f})"
    )
