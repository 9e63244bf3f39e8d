"""How this project's Trainer differs from transformers': order of the dialogues, their division among processes, the loss
on replies alone, choice and safe keeping of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from socratic_mlflow import ranks
from socratic_mlflow.checkpoints import keep_adapter, rotate, seal
from socratic_mlflow.output_dir import OutputDir
from socratic_mlflow.packing import Features, Padded
from socratic_mlflow.reply_loss import ReplyLoss
from socratic_mlflow.selection import best_step
from socratic_mlflow.token_store import lengths
from socratic_mlflow.tokens import IGNORED

# (dialogues, tokens)
Rows = np.ndarray[Any, Any]


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


class RankShare:
    """This process' dialogues of each forward pass of all processes, a batch sampler; never any of them twice.

    What accelerate would do makes the shares equal by reading some dialogues again, which changes the last step of each
    epoch. Here a share can be smaller than the others, and even empty (`OrNothing`).
    """

    def __init__(self, order: EpochOrder, at_once: int) -> None:
        # The Trainer looks for `set_epoch` in the attribute of this name.
        self.batch_sampler, self._at_once = order, at_once

    def __len__(self) -> int:
        return math.ceil(len(self.batch_sampler) / self._at_once)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer where it goes on in the middle of an epoch."""
        self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.batch_sampler)
        for start in range(0, len(order), self._at_once):
            yield order[start : start + self._at_once][ranks.rank() :: ranks.count()]


@dataclass(frozen=True)
class OrNothing:
    """`collate`; of no dialogues it makes a row from which nothing is learned, so that all processes make each pass."""

    collate: Callable[[Sequence[Features]], dict[str, torch.Tensor]]
    pad_token_id: int

    def __call__(self, features: Sequence[Features]) -> dict[str, torch.Tensor]:
        """A batch."""
        nothing = {"input_ids": [self.pad_token_id] * 2, "labels": [IGNORED] * 2}
        return self.collate(features or [nothing])


class OrderedTrainer(Trainer):
    """A Trainer that reads the training dialogues in `EpochOrder` and takes the best checkpoint from `selection.py`.

    `reply_loss` computes loss and predictions, of which evaluation keeps one token id a position and no logits. Each
    checkpoint is sealed when it is whole, and only then are older ones deleted; the best one's adapter is copied to the
    output folder at once. Of several processes, the first one alone does that.
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
        if num_items_in_batch is None:
            return loss / len(targets)
        # All processes' tokens are counted; but the gradient that each one gets in the end is the mean over them.
        return loss * ranks.count() / num_items_in_batch

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mean loss, most likely token after each position that a reply token follows, labels); the latter two of shape
        (dialogues, length)."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs["labels"]
        with torch.no_grad(), self.accelerator.autocast():
            states, targets = self._reply_loss.states(model, inputs)
            summed, tokens = self._reply_loss.evaluated(states, targets)
            predicted = torch.full_like(labels, IGNORED)
            predicted[:, :-1][labels[:, 1:] != IGNORED] = tokens
        return summed / len(targets), predicted, labels

    def get_train_dataloader(self) -> Any:
        """With several processes, this one's share of each batch."""
        if ranks.count() == 1:
            return super().get_train_dataloader()
        args, dataset = self.args, self.train_dataset
        return DataLoader(
            self._remove_unused_columns(dataset),
            batch_sampler=RankShare(self._get_train_sampler(), args.train_batch_size * ranks.count()),
            collate_fn=OrNothing(self.data_collator, self.processing_class.pad_token_id),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Each dialogue in a row of its own, since each is scored."""
        padded = Padded(self.processing_class.pad_token_id)
        if ranks.count() > 1:
            return DataLoader(self.eval_dataset, batch_size=self.args.eval_batch_size, collate_fn=padded)
        packed: Any = self.data_collator  # type: ignore[has-type]
        self.data_collator = padded
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = packed

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """With several processes, each takes its share of the batches, and all get the numbers of all."""
        if ranks.count() == 1:
            return super().evaluation_loop(dataloader, description, *args, **kwargs)
        self.model.eval()
        losses, predicted, labels = zip(*ranks.spread(list(dataloader), self._evaluated), strict=True)
        # As one process has it: the mean loss of each batch counts for each of its dialogues.
        loss = np.concatenate([np.repeat(loss, len(rows)) for loss, rows in zip(losses, labels, strict=True)]).mean()
        found = EvalPrediction(predictions=_stacked(predicted), label_ids=_stacked(labels))
        metrics = {"loss": float(loss)} | (self.compute_metrics(found) if self.compute_metrics else {})
        named = {f"eval_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(found.predictions, found.label_ids, named, len(self.eval_dataset))

    def _evaluated(self, batches: Sequence[Any]) -> list[list[Rows]]:
        """Of each batch its loss, predictions and labels."""
        found = [self.prediction_step(self.model, inputs, prediction_loss_only=False) for inputs in batches]
        return [[part.cpu().numpy() for part in parts] for parts in found]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        limit = self.args.save_total_limit
        # Not by the Trainer itself, which would delete an older checkpoint before this one is known to be whole.
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        # Each process has put a file of its own into it.
        ranks.wait()
        if ranks.rank() == 0:
            self._keep(limit)

    def _keep(self, limit: int) -> None:
        """Seal the checkpoint of this step, copy the adapter if it is the best, and delete older checkpoints."""
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
        step = ranks.from_first(best_step(self.state.log_history, metric))
        is_new = bool(step == self.state.global_step)
        if is_new:
            self.state.best_global_step, self.state.best_metric = step, metrics[f"eval_{metric}"]
        return is_new

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        # Not of the dataset that is passed in, from which the Trainer has removed all that the model does not take.
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * ranks.count()
        return EpochOrder(together, lengths(self.train_dataset), self.args.seed)


def _stacked(arrays: Sequence[Rows]) -> Rows:
    """Rows of several batches in one array, IGNORED after the shorter ones."""
    width = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=IGNORED) for array in arrays]
    )


class StepsAsConfigured(TrainerCallback):
    """Evaluate and save as often as the configuration has it now: a checkpoint would bring along how often it was."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take eval_steps and save_steps from the arguments."""
        state.compute_steps(args, state.max_steps)
