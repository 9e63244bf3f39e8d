"""What an evaluation adds to the memory: by vocabulary, by number of samples, and beside the plain recipe.

    python benchmarks/evaluation_memory.py

Each measurement is a process of its own: the most resident memory during `Trainer.evaluate`, beyond what there was before
it. The plain recipe keeps the logits for `compute_metrics`, as a Trainer does unless it is told otherwise; its memory grows
with every sample, so it gets few of them. It generates nothing; this project generates a reply for each sample as well,
except where a row says otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, publish
from training_step import configuration, save_base

_GIB = 2**30
_LARGE, _SMALL = 256_000, 8_000
# As many as one batch of generated replies.
_FEW = 25


class Peak:
    """The most resident memory while it is entered, beyond what there was at the beginning (GiB)."""

    def __enter__(self) -> Peak:
        import psutil

        self._process, self._over = psutil.Process(), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._most = max(self._most, self._process.memory_info().rss)
            time.sleep(0.005)

    @property
    def gib(self) -> float:
        """What was added, in GiB."""
        return (self._most - self._before) / _GIB


def evaluated(args: argparse.Namespace) -> float:
    """GiB that one evaluation adds: the loss on `--samples` dialogues and as many generated replies, as in a training."""
    from socratic_mlflow import torch_settings
    from socratic_mlflow.callback import SocraticMlflowCallback
    from socratic_mlflow.config import with_values
    from socratic_mlflow.evaluation import evaluator_for
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.trainer import assemble, prepare

    torch_settings.apply()
    changes = {
        "evaluation.max_samples": args.samples,
        "evaluation.max_new_tokens": 32,
        "data.path": "bundled",
        "data.test_size": 0.5,
        "training.eval_batch_size": 4,
    }
    config = with_values(configuration(args), changes)
    prepared = prepare(config, OutputDir(args.base.parent / "out"))
    evaluator = evaluator_for(prepared.chat, prepared.corpus.questions, config.evaluation, prepared.corpus.profile)
    assert len(evaluator.questions) == args.samples
    callbacks = [] if args.no_replies else [SocraticMlflowCallback(evaluator)]
    trainer: Any = assemble(prepared, callbacks, fresh=False, training_id="benchmark", flush=lambda: None)
    if args.plain:
        trainer = _plain(trainer, args.base.parent)
    samples = trainer.eval_dataset.select(range(args.samples))
    trainer.evaluate(samples.select(range(2)))
    with Peak() as peak:
        trainer.evaluate(samples)
    return peak.gib


def _plain(ours: Any, folder: Path) -> Any:
    """transformers' Trainer with the same model and samples, and a compute_metrics that looks at the logits."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    arguments = TrainingArguments(str(folder / "plain"), per_device_eval_batch_size=4, report_to="none", disable_tqdm=True)
    return Trainer(
        ours.model,
        arguments,
        DataCollatorForSeq2Seq(ours.processing_class, label_pad_token_id=-100),
        eval_dataset=ours.eval_dataset,
        compute_metrics=lambda prediction: {"mean": float(prediction.predictions[0].argmax(-1).mean())},
    )


def measured(base: Path, samples: int, *flags: str) -> float:
    """What `evaluated` returns, from a new process."""
    command = [sys.executable, __file__, "--base", str(base), "--samples", str(samples), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Measure one evaluation, or all and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--no_replies", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    add_arguments(parser)
    args = parser.parse_args()
    vars(args).update(batch_size=4, length=256, attention="eager")
    if args.base:
        print(json.dumps(evaluated(args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        bases = {size: Path(scratch) / str(size) / "base" for size in (_LARGE, _SMALL)}
        for size, base in bases.items():
            save_base(base, full=False, vocabulary=size)
        many = [measured(bases[_LARGE], 100) for _ in range(args.repeats)]
        few = [measured(bases[_LARGE], _FEW) for _ in range(args.repeats)]
        small = [measured(bases[_SMALL], 100) for _ in range(args.repeats)]
        large_loss = [measured(bases[_LARGE], 100, "--no_replies") for _ in range(args.repeats)]
        small_loss = [measured(bases[_SMALL], 100, "--no_replies") for _ in range(args.repeats)]
        plain = [measured(bases[_LARGE], _FEW, "--plain") for _ in range(args.repeats)]
    claims = [
        Claim(f"evaluation of 100 samples adds, vocabulary {_LARGE:,}", "GiB", many, few, f"{_FEW} samples"),
        Claim("the same", "GiB", many, small, f"vocabulary {_SMALL:,}"),
        Claim(f"without replies, vocabulary {_LARGE:,}", "GiB", large_loss, small_loss, f"vocabulary {_SMALL:,}"),
        Claim(f"evaluation of {_FEW} samples adds", "GiB", few, plain, "plain recipe"),
    ]
    publish("Memory of an evaluation", claims, args, length="up to 256 tokens")


if __name__ == "__main__":
    main()
