"""How this project's Trainer differs from transformers': order of the dialogues, the loss on replies alone, choice and safe
keeping of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from socratic_mlflow.checkpoints import keep_adapter, rotate, seal
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.packing import Padded
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.selection import best_step
from socratic_mlflow.token_store import lengths
from socratic_mlflow.tokens import IGNORED


class EpochOrder(LengthGroupedSampler):
    """Dialogues of like length share a batch, so that little of it is padding; seed and epoch alone decide the order.

    The sampler that this one stands for draws from the global generator, whose state is another one where a training goes
    on in the middle of an epoch: it would skip other dialogues than it has seen.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Any:
        self.generator.manual_seed(self._seed + self._epoch)
        return super().__iter__()


class OrderedTrainer(Trainer):
    """A Trainer that reads the training dialogues in `EpochOrder` and takes the best checkpoint from `selection.py`.

    `reply_loss` computes loss and predictions, of which evaluation keeps one token id a position and no logits. Each
    checkpoint is sealed when it is whole, and only then are older ones deleted; the best one's adapter is copied to the
    output folder at once.
    """

    def __init__(
        self, *, reply_loss: ReplyLoss, output: OutputDir, training_id: str, flush: Callable[[], None], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._output, self._training_id, self._flush = output, training_id, flush
        self._reply_loss = reply_loss
        # The loss is the sum over an accumulated batch, divided by all its reply tokens, whatever the base's own does.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = self._loss_shifts_labels = True

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean cross-entropy (nats) of the reply tokens, over those of the whole accumulated batch."""
        with self.accelerator.autocast():
            states, targets = self._reply_loss.states(model, inputs)
            loss = self._reply_loss.summed(states, targets)
        return loss / (len(targets) if num_items_in_batch is None else num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mean loss, most likely token after each position that a reply token follows, labels); the latter two of shape
        (dialogues, length)."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs["labels"]
        with torch.no_grad(), self.accelerator.autocast():
            states, targets = self._reply_loss.states(model, inputs)
            loss = self._reply_loss.summed(states, targets) / len(targets)
            predicted = torch.full_like(labels, IGNORED)
            predicted[:, :-1][labels[:, 1:] != IGNORED] = self._reply_loss.predicted(states)
        return loss, predicted, labels

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Each dialogue in a row of its own, since each is scored."""
        packed: Any = self.data_collator  # type: ignore[has-type]
        self.data_collator = Padded(self.processing_class.pad_token_id)
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = packed

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        limit = self.args.save_total_limit
        # Not by the Trainer itself, which would delete an older checkpoint before this one is known to be whole.
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        step, best = self.state.global_step, self.state.best_global_step
        checkpoint = self._output.checkpoints / f"checkpoint-{step}"
        # What was logged on the way here must be as safe as the checkpoint from which a continuation will not log it again.
        self._flush()
        seal(checkpoint, self._training_id)
        if step == best:
            keep_adapter(checkpoint, self._output.best_adapter, self._training_id)
        rotate(self._output.checkpoints, limit, best)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        metric = str(self.args.metric_for_best_model)
        step = best_step(self.state.log_history, metric)
        is_new = bool(step == self.state.global_step)
        if is_new:
            self.state.best_global_step, self.state.best_metric = step, metrics[f"eval_{metric}"]
        return is_new

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        # Not of the dataset that is passed in, from which the Trainer has removed all that the model does not take.
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochOrder(together, lengths(self.train_dataset), self.args.seed)


class StepsAsConfigured(TrainerCallback):
    """Evaluate and save as often as the configuration has it now: a checkpoint would bring along how often it was."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take eval_steps and save_steps from the arguments."""
        state.compute_steps(args, state.max_steps)
