"""Ctrl-C and SIGTERM where several processes train together: all of them stop at the same checkpoint, or none does."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from socratic_mlflow import ranks
from socratic_mlflow.interruption import StopAtCheckpoint


class StopTogether(StopAtCheckpoint):
    """`StopAtCheckpoint` that asks the first process, which alone hears signals; the others never stop by themselves."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint where the first process was told to stop."""
        if ranks.first_says(bool(self._interruption.reason)):
            self._interruption.reason = self._interruption.reason or "the first process"
        return super().on_step_end(args, state, control, **kwargs)
