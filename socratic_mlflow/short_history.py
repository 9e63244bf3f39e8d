"""The Trainer's own log, kept short: it is written into every checkpoint, and what happened at each step is in the journal.

Only for this project's training: in other people's Trainers the log is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ShortHistory(TrainerCallback):
    """Of the entries of single steps, `log_history` keeps the last one before each evaluation and the latest."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Shorten what a checkpoint of an earlier version brings along."""
        entries = state.log_history
        pairs = zip(entries, [*entries[1:], {}], strict=False)
        entries[:] = [entry for entry, following in pairs if not (_is_step(entry) and _is_step(following))]

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Forget the step before this one."""
        if len(state.log_history) > 1 and _is_step(state.log_history[-1]) and _is_step(state.log_history[-2]):
            del state.log_history[-2]


def _is_step(entry: Mapping[str, Any]) -> bool:
    return "loss" in entry
