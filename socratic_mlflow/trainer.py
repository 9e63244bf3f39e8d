"""Assemble and run one training: its verbs are `prepare` and `train`. Checkpoints and resume belong here.

Knows where files lie and in which order things happen; what is logged is in `callback.py`, what a version is in
`registry.py`.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    EvalPrediction,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from socratic_mlflow import __version__, ranks
from socratic_mlflow.agreed_stop import StopTogether
from socratic_mlflow.callback import SocraticMlflowCallback
from socratic_mlflow.checkpoints import ensure_adapter, set_aside
from socratic_mlflow.config import Config
from socratic_mlflow.corpus import Corpus, load_corpus
from socratic_mlflow.evaluation import StyleEvaluator, evaluator_for
from socratic_mlflow.identity import identity
from socratic_mlflow.interruption import Interruption
from socratic_mlflow.model import attach_adapter, device, load_base, load_tokenizer
from socratic_mlflow.ordered_trainer import OrderedTrainer, StepsAsConfigured
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.packing import Packed, Padded
from socratic_mlflow.progress import ProgressLines, say
from socratic_mlflow.quality import mean
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.short_history import ShortHistory
from socratic_mlflow.shortcuts import can_pack, has_known_head
from socratic_mlflow.style import socratic_style
from socratic_mlflow.style_profile import StyleProfile
from socratic_mlflow.tokens import IGNORED, ChatFormat, Encoded
from socratic_mlflow.tracking import Tracker


@dataclass(frozen=True)
class Prepared:
    """All that a training needs, loaded and checked, before MLflow hears of it."""

    config: Config
    chat: ChatFormat
    corpus: Corpus
    model: Any
    output: OutputDir


@dataclass(frozen=True)
class Best:
    """The best checkpoint: its adapter's folder, its step, and all `eval/...` metrics there, named without `eval/`."""

    adapter: Path
    step: int
    metrics: dict[str, float]


def prepare(config: Config, output: OutputDir) -> Prepared:
    """Read the data and load base and adapter; ValueError (one line) for whatever a user can mend."""
    set_seed(config.training.seed)
    chat = ChatFormat(load_tokenizer(config.model))
    corpus = load_corpus(config, chat)
    base = load_base(config.model, config.quantization)
    # Seeded again: loading a base may or may not have drawn random numbers, and the adapter starts from them.
    set_seed(config.training.seed)
    return Prepared(config, chat, corpus, attach_adapter(base, config), output)


def train(prepared: Prepared, tracker: Tracker, interruption: Interruption) -> Best:
    """Train from the newest whole checkpoint or from the start; the best adapter is saved in the output folder.

    The folder's config.yaml and run.yaml are those of this training. KeyboardInterrupt, once a checkpoint is written,
    where `interruption` hears something.
    """
    corpus, output = prepared.corpus, prepared.output
    training_id = identity(prepared.config, output.state())
    checkpoint = _resume_point(output, training_id)
    ranks.from_first((training_id, checkpoint))
    reference = {"reference_style": corpus.reference_style, "reference_tone": corpus.reference_tone}
    recorder = SocraticMlflowCallback(_evaluator(prepared), tracker, reference)
    callbacks = [recorder, ShortHistory(), StepsAsConfigured(), ProgressLines(), StopTogether(interruption)]
    trainer = assemble(prepared, callbacks, checkpoint is None, training_id, tracker.flush)
    if state := _nothing_left(prepared, checkpoint):
        # Only what comes after the last step is left to do; `Trainer.train` would make one step more.
        trainer.state = state
        recorder.on_train_begin(trainer.args, state, trainer.control)
        recorder.on_train_end(trainer.args, state, trainer.control)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    return _best(trainer.state, output, training_id, recorder)


def train_along(prepared: Prepared) -> None:
    """What each process but the first does while that one is in `train`: compute its share, write nothing, say nothing."""
    training_id, checkpoint = ranks.from_first(("", None))
    # Its scores choose the best checkpoint in each process.
    scores = SocraticMlflowCallback(_evaluator(prepared))
    callbacks = [scores, ShortHistory(), StepsAsConfigured(), StopTogether(Interruption())]
    trainer = assemble(prepared, callbacks, checkpoint is None, training_id, lambda: None)
    # Noise of its own, so that dropout is not the same in all processes.
    torch.manual_seed(prepared.config.training.seed + ranks.rank())
    if not _nothing_left(prepared, checkpoint):
        trainer.train(resume_from_checkpoint=checkpoint)


def _evaluator(prepared: Prepared) -> StyleEvaluator:
    corpus = prepared.corpus
    return evaluator_for(prepared.chat, corpus.questions, prepared.config.evaluation, corpus.profile, ranks.spread)


def _nothing_left(prepared: Prepared, checkpoint: str | None) -> TrainerState | None:
    """The state of a checkpoint at which all steps are made, else None."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json")
    return state if state.global_step >= total_steps(prepared.config, len(prepared.corpus.train)) else None


def assemble(
    prepared: Prepared, callbacks: list[TrainerCallback], fresh: bool, training_id: str, flush: Callable[[], None]
) -> OrderedTrainer:
    """The Trainer of `prepared`, silent but for its `callbacks`; `flush` is called before a checkpoint counts as whole."""
    corpus, tokenizer = prepared.corpus, prepared.chat.tokenizer
    trainer = OrderedTrainer(
        model=prepared.model,
        args=training_arguments(prepared.config, prepared.output.checkpoints, fresh),
        train_dataset=corpus.train.select_columns(["input_ids", "labels", "length"]),
        eval_dataset=_dataset(corpus.held_out_encoded),
        processing_class=tokenizer,
        data_collator=_collator(prepared),
        compute_metrics=teacher_forced_style(prepared.chat, corpus.profile),
        callbacks=callbacks,
        reply_loss=_reply_loss(prepared.model.get_base_model()),
        output=prepared.output,
        training_id=training_id,
        flush=flush,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _resume_point(output: OutputDir, training_id: str) -> str | None:
    """The newest whole checkpoint's folder, or None; those that are not whole get another name, so that none is lost."""
    checkpoint, passed_over = output.resume_point(training_id)
    for path, reason in passed_over:
        try:
            say(f"warning: {path} is passed over: {reason}; it is kept as {set_aside(path).name}")
        except OSError as error:
            raise ValueError(f"{path} ({reason}) cannot be renamed: {error.strerror}") from None
    return str(checkpoint) if checkpoint else None


def total_steps(config: Config, dialogues: int) -> int:
    """The optimizer steps of a whole training on so many `dialogues`, as the Trainer counts them."""
    part = config.training
    batches = math.ceil(dialogues / part.batch_size)
    return part.max_steps or part.epochs * math.ceil(batches / part.gradient_accumulation_steps)


def training_arguments(config: Config, folder: Path, fresh: bool) -> TrainingArguments:
    """The configuration in transformers' words; a `fresh` training begins with an evaluation of the untrained base."""
    part, on_cpu = config.training, device().type == "cpu"
    dtype = config.quantization.bnb_4bit_compute_dtype
    batch_size, accumulation = ranks.split_batch(part.batch_size, part.gradient_accumulation_steps, ranks.count())
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=part.epochs,
        max_steps=part.max_steps or -1,
        learning_rate=part.learning_rate,
        weight_decay=part.weight_decay,
        warmup_steps=part.warmup_ratio,
        lr_scheduler_type=part.lr_scheduler_type,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=part.eval_batch_size,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=part.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if part.gradient_checkpointing else None,
        max_grad_norm=part.max_grad_norm,
        optim=part.optim,
        eval_strategy="steps",
        eval_steps=part.eval_steps,
        eval_on_start=fresh,
        save_strategy="steps",
        save_steps=part.eval_steps,
        save_total_limit=part.save_total_limit,
        metric_for_best_model=config.evaluation.metric_for_best_model,
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=1,
        include_num_input_tokens_seen="non_padding",
        dataloader_num_workers=part.dataloader_num_workers,
        dataloader_pin_memory=part.dataloader_pin_memory and not on_cpu,
        torch_empty_cache_steps=part.empty_cache_steps or None,
        bf16=not on_cpu and dtype == "bfloat16",
        fp16=not on_cpu and dtype == "float16",
        use_cpu=on_cpu,
        # Every weight that trains gets a gradient in every pass, and no buffer changes: neither is worth asking.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        seed=part.seed,
        report_to="none",
        log_on_each_node=False,
        disable_tqdm=True,
    )
    # One process trains on one GPU: with more in sight the Trainer would count each loss once for every one of them.
    arguments._n_gpu = min(1, arguments.n_gpu)
    # Not what accelerate's launcher has put into the environment.
    arguments.mixed_precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "no"
    return arguments


def teacher_forced_style(chat: ChatFormat, profile: StyleProfile) -> Any:
    """compute_metrics: the style of the reply tokens that the model predicts when it is shown the true ones before each."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        ids, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        # What is predicted at position i is token i + 1.
        rows = zip(ids[:, :-1], labels[:, 1:] != IGNORED, strict=True)
        return {"teacher_forced_style": mean([socratic_style(chat.text(row[mask]), profile) for row, mask in rows])}

    return compute


def environment_params(preset_requested: str) -> dict[str, str]:
    """Library versions, git commit, device and the preset that was asked for, as params."""
    libraries = ("mlflow", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets")
    place = device()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    return {f"environment.{library}": version(library) for library in libraries} | {
        "environment.socratic_mlflow": __version__,
        "environment.device": name,
        "environment.git_commit": _git_commit(),
        "run.preset_requested": preset_requested,
    }


def _git_commit() -> str:
    """The commit of the source folder, or 'unknown' where it is no checkout or there is no git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _collator(prepared: Prepared) -> Packed | Padded:
    """How a batch's dialogues lie in rows: packed, where the configuration wants it and the base can tell them apart."""
    model, pad = prepared.config.model, prepared.chat.tokenizer.pad_token_id
    # Flash attention tells dialogues apart in a single row only, and there padding would be pure loss.
    packed = Packed(pad, one_row=model.attn_implementation == "flash_attention_2")
    if not prepared.config.training.packing:
        return Padded(pad)
    if can_pack(prepared.model.get_base_model(), packed):
        return packed
    say(f"note   {model.base_model} mixes up dialogues that share a row, so each gets a row of its own, padded")
    return Padded(pad)


def _reply_loss(causal: Any) -> ReplyLoss:
    if ranks.are_weights_divided():
        # The head's weights are whole only within the model's own forward pass.
        return ReplyLoss(causal, split_head=False)
    if split_head := has_known_head(causal):
        return ReplyLoss(causal, split_head)
    say("note   this base's head is not known here, so it computes logits at all positions, which takes more memory")
    return ReplyLoss(causal, split_head)


def _dataset(encoded: list[Encoded]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [tokens.input_ids for tokens in encoded], "labels": [tokens.labels for tokens in encoded]}
    )


def _best(state: TrainerState, output: OutputDir, training_id: str, recorder: SocraticMlflowCallback) -> Best:
    """The best adapter in its folder; RuntimeError where neither it nor its checkpoint is whole any more."""
    step = int(state.best_global_step or state.global_step)
    ensure_adapter(output.checkpoints / f"checkpoint-{step}", output.best_adapter, training_id)
    history = {name: dict(points) for name, points in recorder.history.items() if name.startswith("eval/")}
    metrics = {name.removeprefix("eval/"): points[step] for name, points in history.items() if step in points}
    return Best(adapter=output.best_adapter, step=step, metrics=metrics)
