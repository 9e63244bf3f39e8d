"""What an evaluation adds to the memory: by vocabulary, by number of samples, and beside the plain recipe.

    python benchmarks/evaluation_memory.py

Each measurement is a process of its own: the most memory during `Trainer.evaluate`, beyond what there was before it. The
plain recipe keeps the logits for `compute_metrics`, as a Trainer does unless it is told otherwise; its memory grows with
every sample, so it gets few of them. It generates nothing; this project generates a reply for each sample as well, except
where a row says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, forget_peak, peak_resident, publish
from training_step import configuration, save_base

_GIB = 2**30
_LARGE, _SMALL = 256_000, 8_000
# As many as one batch of generated replies.
_FEW = 25
# glibc keeps some of what is freed, now more and now less, which would count as still in use.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def added(work: Callable[[], object]) -> float:
    """GiB that `work` takes at its peak beyond what there was before: resident memory, or on a GPU the GPU's."""
    import psutil
    import torch

    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / _GIB
    before = psutil.Process().memory_info().rss
    forget_peak()
    work()
    return (peak_resident() - before) / _GIB


def evaluated(args: argparse.Namespace) -> float:
    """GiB that one evaluation adds: the loss on `--samples` dialogues and as many generated replies, as in a training."""
    from socratic_mlflow import torch_settings
    from socratic_mlflow.callback import SocraticMlflowCallback
    from socratic_mlflow.config import with_values
    from socratic_mlflow.evaluation import StyleEvaluator, evaluator_for
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.trainer import assemble, prepare

    torch_settings.apply()
    changes = {
        "evaluation.max_samples": args.samples,
        "evaluation.generation_batch_size": _FEW,
        "evaluation.max_new_tokens": 32,
        "data.path": "bundled",
        "data.test_size": 0.5,
        "training.eval_batch_size": 4,
    }
    config = with_values(configuration(args), changes)
    prepared = prepare(config, OutputDir(args.base.parent / "out"))
    evaluator = evaluator_for(prepared.chat, prepared.corpus.questions, config.evaluation, prepared.corpus.profile)
    assert len(evaluator.questions) == args.samples
    trainer: Any = assemble(prepared, [], fresh=False, training_id="benchmark", flush=lambda: None)
    if args.plain:
        trainer = _plain(trainer, args.base.parent)
    samples = trainer.eval_dataset.select(range(args.samples))
    # What is made once and stays, made first: with few samples and few replies, so that little is kept for later.
    trainer.evaluate(samples.select(range(2)))
    if not args.no_replies and not args.plain:
        StyleEvaluator(prepared.chat, evaluator.questions[:2], evaluator.sampling, 2)(trainer.model)
        trainer.add_callback(SocraticMlflowCallback(evaluator))
    return added(lambda: trainer.evaluate(samples))


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
    done = subprocess.run(command, env=os.environ | _GIVE_BACK, capture_output=True, text=True, check=False)
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
    parser.add_argument("--repeats", type=int, default=3)
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
        Claim(f"evaluation of 100 samples adds, vocabulary {_LARGE:,}", "GiB", many, few, f"{_FEW} samples", at_most=1.1),
        Claim("the same", "GiB", many, small, f"vocabulary {_SMALL:,}", at_most=1.1),
        Claim(
            f"without replies, vocabulary {_LARGE:,}", "GiB", large_loss, small_loss, f"vocabulary {_SMALL:,}", at_most=1.1
        ),
        Claim(f"evaluation of {_FEW} samples adds", "GiB", few, plain, "plain recipe"),
    ]
    publish("Memory of an evaluation", claims, args, length="up to 256 tokens")


if __name__ == "__main__":
    main()
