"""Ctrl-C, SIGTERM, a terminal that is closed: a training writes a checkpoint first; all else stops at once, as does a
second Ctrl-C."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from socratic_mlflow.progress import say
from socratic_mlflow.signals import listen, restore

_NOTICE = b"\nstopping: this step is finished and a checkpoint written first (Ctrl-C again stops at once)\n"


class Interruption:
    """While it is entered, this process stops with KeyboardInterrupt(NAME OF THE SIGNAL) where it is told to."""

    def __init__(self) -> None:
        self.reason = ""
        # Whether a checkpoint can be written, so that it is worth waiting.
        self.can_wait = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._before = listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._before)

    def no_more_waiting(self) -> None:
        """There is nothing left to save: stop from here on at once, and now where something was heard meanwhile."""
        self.can_wait = False
        if self.reason:
            raise KeyboardInterrupt(self.reason)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that loads data: Ctrl-C is for its parent, who ends it.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.reason and number != signal.SIGINT:
            # Only a second Ctrl-C is impatient: `mlflow run` sends SIGTERM a quarter of a second after the first.
            return
        again = bool(self.reason)
        self.reason = self.reason or signal.Signals(number).name
        if not self.can_wait or again:
            raise KeyboardInterrupt(self.reason)
        # A signal handler must not print by way of objects that it may have interrupted.
        os.write(2, _NOTICE)


class StopAtCheckpoint(TrainerCallback):
    """Once `interruption` has heard something, asks for a checkpoint, and stops the training when that is written."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """From the first step on there is something to save."""
        self._interruption.can_wait = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint."""
        control.should_save = control.should_save or bool(self._interruption.reason)
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """It is written, with all that this step logged: stop, as the signal would have."""
        if self._interruption.reason:
            say(f"stopped at step {state.global_step}, which is saved; the same command goes on from there")
            self._interruption.no_more_waiting()
