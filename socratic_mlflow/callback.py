"""A `transformers` callback that puts every step into MLflow. It works alone in anybody's Trainer:

    Trainer(..., callbacks=[SocraticMlflowCallback()])

What is logged where: `train/...` and `memory/...` in `on_log`, `eval/...`, sample tables and the `training_progress` image
in `on_evaluate`, `summary/...` in `on_train_end`. The step of every metric is the optimizer step. All of it goes into a
journal, from which it is shipped to MLflow in the background: no step waits for a server.
"""

from __future__ import annotations

import atexit
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from socratic_mlflow.curves import Curves
from socratic_mlflow.lock import hold
from socratic_mlflow.memory import memory_metrics
from socratic_mlflow.quality import collapse
from socratic_mlflow.run_lifecycle import undelivered
from socratic_mlflow.selection import best_step
from socratic_mlflow.tracking import Tracker

# model -> (metrics, one row a question); `evaluation.StyleEvaluator` is one.
Evaluator = Callable[[Any], tuple[dict[str, float], list[dict[str, Any]]]]

# Characters that MLflow refuses in the name of a metric.
_REFUSED = re.compile(r"[^-/\w. ]")
_SPEEDS = ("_runtime", "_per_second", "_time")
# The Trainer's own names for what is logged as train/NAME at every step.
_TRAIN_METRICS = ("loss", "grad_norm", "learning_rate", "epoch")


class SocraticMlflowCallback(TrainerCallback):
    """Logs loss, learning rate, gradient norm, speed, memory, plots and generated replies of a Trainer to MLflow.

    Without `tracker` it writes to the active MLflow run, or opens one for the training and ends it, by way of a journal in
    the Trainer's output_dir ('socratic-mlflow sync' delivers it where MLflow was away to the end). `evaluator`, where
    given, generates and scores replies at every evaluation; its metrics are added to the Trainer's own under `eval_NAME`,
    so that `metric_for_best_model="socratic_style"` works. Which checkpoint is the best is the Trainer's own choice: only
    this project's training (`selection.py`) never takes one that has collapsed. `eval_constants` are logged as they are.
    """

    def __init__(
        self,
        evaluator: Evaluator | None = None,
        tracker: Tracker | None = None,
        eval_constants: dict[str, float] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.tracker = tracker
        self.eval_constants = eval_constants or {}
        # Of the evaluations, `eval/...`: what is logged at every step is in the journal only.
        self.history: dict[str, list[tuple[int, float]]] = {}
        self._last_loss: float | None = None
        # The tracker that this callback opened, and whether the run is its own as well.
        self._own: Tracker | None = None
        self._owns_run = False
        self._held = ExitStack()
        self._tokens = 0.0
        self._clock = time.monotonic()
        self._started = time.monotonic()
        self._evaluating_s = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Find the run to write to; on resume, take up the history where the checkpoint left it."""
        self._started = self._clock = time.monotonic()
        self._evaluating_s = 0.0
        self._tokens = state.num_input_tokens_seen
        if args.include_num_input_tokens_seen == "no":
            # The Trainer counts tokens only where it is asked to, and without a count there is no speed to log.
            args.include_num_input_tokens_seen = "non_padding"
        self._leave_own("FAILED")
        if self.tracker is None and state.is_world_process_zero:
            self._open(Path(args.output_dir), state)
        self.history, self._last_loss = {}, None
        for entry in state.log_history:
            self._remember(_train_metrics(entry) | _eval_metrics(entry), entry["step"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """One optimizer step (or `logging_steps` of them): train/... and memory/... ."""
        if not logs or "loss" not in logs:
            return
        values = _train_metrics(logs) | self._speed(state)
        values |= {f"memory/{name}": value for name, value in memory_metrics().items()}
        self._log(state, values)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """One evaluation: eval/..., the table of replies, and the plot."""
        metrics = {} if metrics is None else metrics
        rows: list[dict[str, Any]] = []
        started = time.monotonic()
        if self.evaluator is not None:
            generated, rows = self.evaluator(model)
            # The Trainer chooses the best checkpoint from this very dict after the callbacks have run.
            added = {f"eval_{name}": value for name, value in generated.items()}
            metrics.update(added)
            state.log_history.append(added | {"step": state.global_step})
        constants = {f"eval/{name}": value for name, value in self.eval_constants.items()}
        seconds = metrics.get("eval_runtime", 0.0) + time.monotonic() - started
        self._log(state, _eval_metrics(metrics) | constants | {"eval/duration_s": seconds})
        if self.tracker and state.is_world_process_zero:
            self.tracker.log_table(rows, samples_file(state.global_step))
            self._log_plot(state)
        self._note_collapse(state)
        self._evaluating_s += seconds
        # Evaluation is no training time: the next step's speed counts from here.
        self._clock, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """summary/... and the final plot; ends the run if this callback opened it."""
        spent = time.monotonic() - self._started
        share = self._evaluating_s / max(spent, 1e-9)
        values = {"duration_s": spent, "total_steps": state.global_step, "evaluation_share": share}
        if state.epoch is not None:
            values["final_epoch"] = state.epoch
        if self._last_loss is not None:
            values["final_loss"] = self._last_loss
        best = state.best_global_step or best_step(state.log_history, "socratic_style")
        for word in ("style", "tone"):
            values |= self._summary_of(word, best)
        self._log(state, {f"summary/{name}": value for name, value in values.items()})
        self._log_plot(state)
        self._leave_own("FINISHED")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint is written: what was logged up to it is to be as safe as it is."""
        if self.tracker and state.is_world_process_zero:
            self.tracker.flush()

    def _open(self, output: Path, state: TrainerState) -> None:
        """A journal in `output` for the active run, or for one of the training's own."""
        import mlflow

        active = mlflow.active_run()
        run_id = active.info.run_id if active else os.environ.get("MLFLOW_RUN_ID", "")
        folder = output / f"journal-{uuid.uuid4().hex[:8]}"
        # Whoever delivers an old journal must see that this one is in use.
        self._held.enter_context(hold(folder))
        self._owns_run = active is None
        self.tracker = self._own = Tracker(folder, print, run_id)
        earlier = Curves()
        for entry in state.log_history:
            earlier.add(entry["step"], _train_metrics(entry) | _eval_metrics(entry))
        self.tracker.log_earlier(earlier.history())
        if self._owns_run:
            self.tracker.start()
        else:
            self.tracker.ship()
        # A Trainer that raises tells its callbacks nothing.
        atexit.register(self._leave_own, "FAILED")

    def _leave_own(self, status: str) -> None:
        """Deliver and close the journal that this callback opened, if it is still open; end the run if that is its own."""
        if self._own is None:
            return
        atexit.unregister(self._leave_own)
        tracker, self._own, self.tracker = self._own, None, None
        whole = tracker.end(status) if self._owns_run else tracker.drain()
        if not whole:
            print(f"warning: {undelivered(tracker, tracker.folder.parent)}")
        tracker.close()
        self._held.close()

    def _summary_of(self, word: str, best: int | None) -> dict[str, float]:
        """base_, best_, mean_ and final_ of one score; `best` is the step of the checkpoint that was chosen."""
        scores = self.history.get(f"eval/socratic_{word}", [])
        # Step 0 is the untrained base: a starting point, no candidate for the best.
        values = {f"base_{word}": score for step, score in scores if step == 0}
        trained = {step: score for step, score in scores if step > 0}
        if trained:
            values |= {f"mean_{word}": sum(trained.values()) / len(trained), f"final_{word}": list(trained.values())[-1]}
        if best in trained:
            values[f"best_{word}"] = trained[best]
        return values

    def _note_collapse(self, state: TrainerState) -> None:
        """Tag the run with the steps after 0 at which the replies had collapsed, and the last one's reason."""
        shares = self.history.get("eval/hollow_share", [])
        steps = {step: reason for step, share in shares if step > 0 and (reason := collapse(share))}
        if state.global_step in steps and self.tracker and state.is_world_process_zero:
            # A tag has its limits: of very many steps, the last ones.
            where = ", ".join(map(str, list(steps)[-50:]))
            self.tracker.set_tags({"collapsed": f"at steps {where}; at {state.global_step}: {steps[state.global_step]}"})

    def _speed(self, state: TrainerState) -> dict[str, float]:
        """{'train/tokens_per_s'} since the last call, where the Trainer counts tokens (include_num_input_tokens_seen)."""
        now, tokens = time.monotonic(), state.num_input_tokens_seen
        seconds, made = now - self._clock, tokens - self._tokens
        self._clock, self._tokens = now, tokens
        return {"train/tokens_per_s": made / seconds} if made > 0 and seconds > 0 else {}

    def _log(self, state: TrainerState, values: dict[str, float]) -> None:
        self._remember(values, state.global_step)
        if self.tracker and state.is_world_process_zero and values:
            self.tracker.log_metrics(values, state.global_step)

    def _log_plot(self, state: TrainerState) -> None:
        if self.tracker and state.is_world_process_zero:
            self.tracker.log_plot("training_progress", state.global_step)

    def _remember(self, values: dict[str, float], step: int) -> None:
        self._last_loss = values.get("train/loss", self._last_loss)
        for name, value in values.items():
            if name.startswith("eval/"):
                self.history.setdefault(name, []).append((step, value))


def _train_metrics(logs: dict[str, float]) -> dict[str, float]:
    """The Trainer's log of one step under this project's names; empty for its other logs."""
    if "loss" not in logs:
        return {}
    return {f"train/{name}": float(logs[name]) for name in _TRAIN_METRICS if isinstance(logs.get(name), Real)}


def _eval_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """The Trainer's `eval_NAME` as `eval/NAME`, without its speeds: they leave the generation out."""
    return {
        # compute_metrics of other people's may give what is no number.
        f"eval/{_REFUSED.sub('_', name[5:])}": float(value)
        for name, value in metrics.items()
        if name.startswith("eval_") and not name.endswith(_SPEEDS) and isinstance(value, Real)
    }


def samples_file(step: int) -> str:
    """The artifact with the replies that were generated at `step`."""
    return f"samples/step_{step:06d}.json"
