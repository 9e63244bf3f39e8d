"""What tracking costs the training's thread when every step is logged, beside transformers' own MLflow callback.

    python benchmarks/tracking_cost.py [--steps 400] [--repeats 3] [--stores sqlite file http] [--json FILE]

A tiny random model in transformers' Trainer, an evaluation with a table and a plot at every 20th step; each store in turn
without tracking, with this project's callback and with transformers'. Measured is the time inside of all events of the
callback between the first and the last step, and the wall time of a step, in which threads in the background show.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, publish
from transformers import TrainerCallback

EVERY = 20
# What happens between the first and the last step.
EVENTS = (
    "on_epoch_begin", "on_epoch_end", "on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_substep_end",
    "on_step_end", "on_evaluate", "on_predict", "on_save", "on_log", "on_prediction_step",
)  # fmt: skip
ENDS = ("on_init_end", "on_train_begin", "on_train_end")


class Timed(TrainerCallback):
    """Passes every event on to `inner`, and adds up the seconds that each takes on the training's thread."""

    def __init__(self, inner: TrainerCallback | None) -> None:
        self.inner = inner
        self.seconds = dict.fromkeys((*EVENTS, *ENDS), 0.0)
        self.first, self.last = 0.0, 0.0

    def pass_on(self, event: str, *args: Any, **kwargs: Any) -> None:
        """One event of the Trainer's."""
        started = time.perf_counter()
        self.first = self.first or (started if event == "on_step_begin" else 0.0)
        if self.inner is not None:
            getattr(self.inner, event)(*args, **kwargs)
        self.last = time.perf_counter() if event not in ENDS else self.last
        self.seconds[event] += time.perf_counter() - started


def _event(name: str) -> Callable[..., None]:
    def handler(self: Timed, *args: Any, **kwargs: Any) -> None:
        self.pass_on(name, *args, **kwargs)

    return handler


for _name in (*EVENTS, *ENDS):
    setattr(Timed, _name, _event(_name))


def ours() -> TrainerCallback:
    """This project's callback, with an evaluator whose own work is nothing."""
    from socratic_mlflow.callback import SocraticMlflowCallback

    rows = [{"question": f"question {number}", "reply": "reply " * 20, "socratic_style": 0.5} for number in range(4)]
    scores = {"socratic_style": 0.5, "socratic_style_low": 0.4, "socratic_style_high": 0.6, "socratic_tone": 0.5}
    return SocraticMlflowCallback(lambda model: (dict(scores), rows))


def theirs() -> TrainerCallback:
    """transformers' own."""
    from transformers.integrations import MLflowCallback

    return MLflowCallback()


def train(inner: TrainerCallback | None, steps: int, folder: Path) -> Timed:
    """A whole training; returns what was measured."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = torch.randint(0, 500, (64, 48))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    timed = Timed(inner)
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, logging_steps=1, eval_strategy="steps",
        eval_steps=EVERY, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(vocab_size=500, **shape))
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=[timed])
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return timed


@contextmanager
def serving(store: str, folder: Path) -> Iterator[str]:
    """The tracking URI of a new store in `folder`, in use for the while."""
    import mlflow

    if store == "http":
        with mlflow_server(folder) as uri:
            mlflow.set_tracking_uri(uri)
            yield uri
        return
    uri = f"sqlite:///{folder}/mlflow.db" if store == "sqlite" else f"file:{folder}/mlruns"
    mlflow.set_tracking_uri(uri)
    # Making a database takes seconds.
    mlflow.MlflowClient().search_experiments()
    yield uri


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A real `mlflow server` on loopback with an SQLite store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            uri = f"http://127.0.0.1:{port}"
            _wait_for(f"{uri}/health")
            yield uri
        finally:
            server.terminate()


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def measure(store: str, steps: int, repeats: int) -> list[Claim]:
    """The table's lines for one kind of store."""
    inside: dict[str, list[float]] = {"ours": [], "theirs": []}
    wall: dict[str, list[float]] = {"none": [], "ours": [], "theirs": []}
    end: dict[str, list[float]] = {"ours": [], "theirs": []}
    sides: dict[str, Callable[[], TrainerCallback | None]] = {"none": lambda: None, "ours": ours, "theirs": theirs}
    with tempfile.TemporaryDirectory() as scratch, serving(store, Path(scratch)):
        # Imports and first uses are no cost of a step.
        for make in sides.values():
            train(make(), 2 * EVERY, Path(scratch) / "warm")
        for number in range(repeats):
            for side, make in sides.items():
                timed = train(make(), steps, Path(scratch) / f"{side}-{number}")
                wall[side].append(1000 * (timed.last - timed.first) / steps)
                if side != "none":
                    inside[side].append(1000 * sum(timed.seconds[event] for event in EVENTS) / steps)
                    end[side].append(timed.seconds["on_train_end"])
    peer = "transformers' MLflowCallback"
    return [
        Claim(f"{store}: in the callback, a step", "ms", inside["ours"], at_most=0.5),
        Claim(f"{store}: in the callback, a step", "ms", inside["ours"], inside["theirs"], peer),
        Claim(f"{store}: a step's wall time", "ms", wall["ours"], wall["none"], "no tracking"),
        Claim(f"{store}: a step's wall time", "ms", wall["ours"], wall["theirs"], peer),
        Claim(f"{store}: the end of the training, with all delivered", "s", end["ours"], end["theirs"], peer),
    ]


def parts() -> list[Claim]:
    """Where the time in this project's callback goes, one call at a time with nothing else going on."""
    from socratic_mlflow.journal import Journal
    from socratic_mlflow.memory import memory_metrics

    names = ("train/loss", "train/learning_rate", "train/grad_norm", "train/epoch", "train/tokens_per_s", "memory/rss_gib")
    record = {"kind": "metrics", "time": 1_700_000_000_000, "step": 1, "values": dict.fromkeys(names, 1.2345678901234567)}
    with tempfile.TemporaryDirectory() as scratch:
        journal = Journal(Path(scratch))
        journal.open()
        found = [
            Claim("of which a step's record in the journal", "ms", _repeated(lambda: journal.append(record))),
            Claim("of which reading the memory", "ms", _repeated(memory_metrics)),
        ]
        journal.close()
    return found


def _repeated(call: Callable[[], object], times: int = 2000) -> list[float]:
    values = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(times):
            call()
        values.append(1000 * (time.perf_counter() - started) / times)
    return values


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "file", "http"], choices=["sqlite", "file", "http"])
    add_arguments(parser)
    args = parser.parse_args()
    os.environ |= {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    import mlflow

    chosen = mlflow.get_tracking_uri()
    claims = [claim for store in args.stores for claim in measure(store, args.steps, args.repeats)] + parts()
    mlflow.set_tracking_uri(chosen)
    publish("Tracking at every step", claims, args, steps=args.steps, evaluation_every=EVERY)


if __name__ == "__main__":
    main()
