"""What a person sees while a training runs: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from socratic_mlflow.quality import collapse


def say(text: str) -> None:
    """One line to the person at the terminal (stdout, unbuffered); a progress bar in the way is moved down."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds as '42 s', '3 min 05 s' or '2 h 10 min'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _judged(metrics: dict[str, float]) -> str:
    """Style with its interval, and tone, where an evaluation has them."""
    if "eval_socratic_style" not in metrics:
        return ""
    style, low, high, tone = (metrics.get(f"eval_socratic_{name}") for name in ("style", "style_low", "style_high", "tone"))
    between = f" (95%: {low:.2f} to {high:.2f})" if low is not None else ""
    return f"style {style:.3f}{between}, " + (f"tone {tone:.3f}, " if tone is not None else "")


class ProgressLines(TrainerCallback):
    """A bar on a terminal; elsewhere a line at every tenth of the way. A line at every evaluation on both."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._started = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the bar and the clock."""
        self._started, self._first_step = time.monotonic(), state.global_step
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Move the bar on, or print a line now and then."""
        if not logs or "loss" not in logs:
            return
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", lr=f"{logs['learning_rate']:.1e}")
        elif state.global_step % max(1, state.max_steps // 10) == 0:
            spent = time.monotonic() - self._started
            left = spent / (state.global_step - self._first_step) * (state.max_steps - state.global_step)
            say(f"  step {state.global_step}/{state.max_steps}: loss {logs['loss']:.3f}, about {duration(left)} left")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """The numbers by which a checkpoint is judged, after `SocraticMlflowCallback` has added them."""
        metrics = metrics or {}
        name = "untrained base" if state.global_step == 0 else f"step {state.global_step}/{state.max_steps}"
        say(f"  evaluation, {name}: {_judged(metrics)}loss {metrics.get('eval_loss', float('nan')):.3f}")
        if reason := collapse(metrics.get("eval_hollow_share", 0.0)):
            # The base is no checkpoint that could be taken.
            taken = "; it will not be taken over a checkpoint that has not collapsed" if state.global_step else ""
            say(f"    collapsed: {reason}{taken}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
