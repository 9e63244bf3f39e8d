"""Training steps against the plain recipe and TRL: dialogues a second and peak memory, each side in its own process.

    python benchmarks/training_step.py                              # against the plain recipe
    python -m venv trl && trl/bin/pip install trl -e . && python benchmarks/training_step.py --trl trl/bin/python

All sides train the same NF4 base (Gemma-2, vocabulary of 256,000, random weights; small on a CPU, of Gemma-2-2B's own shape
on a GPU) with the same LoRA on the replies of the same dialogues, once each, through a transformers Trainer. The plain
recipe pads each dialogue to `--length` and computes all logits. TRL chunks its loss; it runs with and without its packing,
and counts with the better one. The clock runs from the first step's beginning to the last one's end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, peak_resident, publish

_SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "head_dim": 64}
_SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2}
_FULL = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "head_dim": 256}
_FULL |= {"num_attention_heads": 8, "num_key_value_heads": 4}
_GIB = 2**30


def save_base(folder: Path, full: bool, vocabulary: int = 256_000) -> None:
    """The base with random weights, and the tokenizer that ships here."""
    import torch
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    from socratic_mlflow.model import base_location

    tokenizer = AutoTokenizer.from_pretrained(base_location("embedded"))
    marks = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    shape = Gemma2Config(vocab_size=vocabulary, query_pre_attn_scalar=256, **(_FULL if full else _SMALL), **marks)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if full else torch.float32)
    Gemma2ForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def configuration(args: argparse.Namespace) -> Any:
    """That of all sides: the preset that suits this machine, on the base of this benchmark."""
    import torch

    from socratic_mlflow.config import Config, with_values
    from socratic_mlflow.model import resolve_dtype
    from socratic_mlflow.presets import PRESETS, choose_preset

    values = PRESETS[choose_preset("auto", torch.cuda.is_available())] | {
        "model.base_model": str(args.base),
        "model.attn_implementation": args.attention,
        "data.path": str(args.base.parent / "dialogues.jsonl"),
        # One of them.
        "data.test_size": 1e-6,
        "data.max_length": args.length,
        "training.epochs": 1,
        "training.batch_size": args.batch_size,
        "training.gradient_accumulation_steps": 1,
        "training.eval_steps": 10**6,
        "training.dataloader_num_workers": 0,
        "evaluation.max_samples": 1,
        "evaluation.max_new_tokens": 1,
    }
    return resolve_dtype(with_values(Config(), values))


def save_dialogues(file: Path, count: int, joined: int) -> None:
    """`count` dialogues to train on, and one to hold out, from those that ship here; each is `joined` of those in a row."""
    from socratic_mlflow.dialogues import read_dialogues

    shipped = read_dialogues("bundled").dialogues
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count + 1):
            parts = [shipped[(number * joined + index) * 7 % len(shipped)].messages for index in range(joined)]
            lines.write(json.dumps({"messages": [message for part in parts for message in part]}) + "\n")


def clock(moments: list[float]) -> Any:
    """A callback that notes when the first optimizer step begins, and when each one has ended (seconds)."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if not moments:
                moments.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            moments.append(time.perf_counter())

    return Clock()


def ours(args: argparse.Namespace, moments: list[float]) -> Any:
    """This project's own Trainer, as `socratic-mlflow train` assembles it; returns the dialogues, as all sides do."""
    from socratic_mlflow import torch_settings

    if not args.no_large_pages:
        torch_settings.apply()
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.trainer import assemble, prepare

    prepared = prepare(configuration(args), OutputDir(Path(tempfile.mkdtemp(dir=args.base.parent))))
    assemble(prepared, [clock(moments)], fresh=False, training_id="benchmark", flush=lambda: None).train()
    return prepared.corpus.train


def _prepared(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """(training arguments, model, tokenizer, encoded dialogues) for the other sides."""
    from socratic_mlflow.output_dir import OutputDir
    from socratic_mlflow.trainer import prepare, training_arguments

    prepared = prepare(configuration(args), OutputDir(args.base.parent))
    arguments = training_arguments(prepared.config, Path(tempfile.mkdtemp(dir=args.base.parent)), fresh=False)
    arguments.eval_strategy = arguments.save_strategy = "no"
    rows = prepared.corpus.train.select_columns(["input_ids", "labels"])
    return arguments, prepared.model, prepared.chat.tokenizer, rows


def plain(args: argparse.Namespace, moments: list[float]) -> Any:
    """transformers' Trainer as it is: every dialogue padded to `--length`, and the model's own loss over all logits."""
    from transformers import DataCollatorForSeq2Seq, Trainer

    arguments, model, tokenizer, rows = _prepared(args)
    collator = DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=args.length, label_pad_token_id=-100)
    Trainer(model, arguments, collator, rows, processing_class=tokenizer, callbacks=[clock(moments)]).train()
    return rows


def trl(args: argparse.Namespace, moments: list[float], packing: bool = True) -> Any:
    """TRL's SFTTrainer on the same tokens and labels; packed, a row holds about as many dialogues as a batch elsewhere."""
    from trl import SFTConfig, SFTTrainer

    arguments, model, tokenizer, rows = _prepared(args)
    mean = sum(map(len, rows["input_ids"])) / len(rows)
    given = {name: value for name, value in arguments.to_dict().items() if name in SFTConfig.__dataclass_fields__}
    own = {"packing": packing, "max_length": round(args.batch_size * mean) if packing else args.length}
    own |= {"per_device_train_batch_size": 1 if packing else args.batch_size, "eval_packing": False}
    config = SFTConfig(
        **(given | own | {"bf16": arguments.bf16, "gradient_checkpointing": arguments.gradient_checkpointing})
    )
    SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock(moments)]).train()
    return rows


def trl_padded(args: argparse.Namespace, moments: list[float]) -> Any:
    """TRL without its packing."""
    return trl(args, moments, packing=False)


SIDES: dict[str, Callable[[argparse.Namespace, list[float]], Any]] = {
    "ours": ours,
    "plain": plain,
    "trl": trl,
    "trl_padded": trl_padded,
}


def run_side(args: argparse.Namespace) -> None:
    """Train in this process, and print what it took as the last line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    moments: list[float] = []
    dialogues = SIDES[args.side](args, moments)
    import torch

    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    peak = peak or peak_resident()
    seconds, tokens = moments[-1] - moments[0], sum(map(len, dialogues["input_ids"]))
    found = {"dialogues_per_s": len(dialogues) / seconds, "tokens_per_s": tokens / seconds, "peak_gib": peak / _GIB}
    print(json.dumps(found))


def measured(side: str, args: argparse.Namespace, more: tuple[str, ...] = ()) -> dict[str, float]:
    """What `run_side` prints, from a new process."""
    python = str(args.trl) if side.startswith("trl") else sys.executable
    given = ["--base", str(args.base), "--batch_size", str(args.batch_size)]
    given += ["--length", str(args.length), "--attention", args.attention, *more]
    done = subprocess.run([python, __file__, "--side", side, *given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(args: argparse.Namespace) -> list[Claim]:
    """All sides in turn, `--repeats` times."""
    sides = ["ours", "plain", *(["trl", "trl_padded"] if args.trl else [])]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in [*sides, "ours, small pages"]}
    for _ in range(args.repeats):
        for side in sides:
            found[side].append(measured(side, args))
        found["ours, small pages"].append(measured("ours", args, ("--no_large_pages",)))
    speed = {side: [run["dialogues_per_s"] for run in runs] for side, runs in found.items()}
    peak = {side: [run["peak_gib"] for run in runs] for side, runs in found.items()}
    claims = [
        Claim("training speed", "dialogues/s", speed["ours"], speed["plain"], "plain recipe", at_least=args.target),
        Claim("tokens", "tokens/s", [run["tokens_per_s"] for run in found["ours"]]),
        Claim("peak memory", "GiB", peak["ours"], peak["plain"], "plain recipe", at_most=0.35),
        Claim(
            "training speed with pages of 4 KiB",
            "dialogues/s",
            speed.pop("ours, small pages"),
            speed["plain"],
            "plain recipe",
        ),
    ]
    if args.full and (args.length, args.batch_size) == (512, 4):
        claims.append(Claim("peak memory", "GiB", peak["ours"], at_most=8.0))
    if args.peak_tflops:
        claims.append(_utilisation(found["ours"], args.peak_tflops))
    if args.trl:
        best = max(("trl", "trl_padded"), key=lambda side: statistics.median(speed[side]))
        name = "TRL, packed" if best == "trl" else "TRL, padded"
        least = min(("trl", "trl_padded"), key=lambda side: statistics.median(peak[side]))
        claims.append(Claim("training speed", "dialogues/s", speed["ours"], speed[best], name, at_least=args.trl_target))
        claims.append(Claim("peak memory", "GiB", peak["ours"], peak[least], least.replace("_", ", "), at_most=1.0))
    return claims


def _utilisation(runs: list[dict[str, float]], peak_tflops: float) -> Claim:
    """Model FLOPs a second over the device's. Forward and backward through frozen weights are 4 FLOPs a weight and token
    (Kaplan et al. 2020, arXiv:2001.08361, less the weights' own gradients); what is computed anew is not counted."""
    weights = 26 * (2304 * 256 * (8 + 4 + 4 + 8) + 3 * 2304 * 9216)
    used = [4 * weights * run["tokens_per_s"] / (peak_tflops * 1e12) for run in runs]
    return Claim("model FLOPs utilisation, without the head", "share", used)


def main() -> None:
    """Measure one side, or all of them and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--base", type=Path)
    parser.add_argument(
        "--trl", type=Path, metavar="PYTHON", help="interpreter of an environment that has trl and this project"
    )
    parser.add_argument("--dialogues", type=int, default=48)
    parser.add_argument("--peak_tflops", type=float, help="of the GPU in bfloat16, for the model FLOPs utilisation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--length", type=int, help="tokens to which the plain recipe pads [256; on a GPU 512]")
    parser.add_argument("--attention", default="eager")
    parser.add_argument("--no_large_pages", action="store_true", help=argparse.SUPPRESS)
    add_arguments(parser)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    import torch

    args.full = full = torch.cuda.is_available()
    args.target, args.trl_target = (2.0, 1.0) if full else (5.0, 4.0)
    args.length = args.length or (512 if full else 256)
    with tempfile.TemporaryDirectory() as scratch:
        args.base = Path(scratch) / "base"
        save_base(args.base, full)
        save_dialogues(args.base.parent / "dialogues.jsonl", args.dialogues, joined=3 if full else 1)
        setting = {"batch": args.batch_size, "length": args.length, "dialogues": args.dialogues, "repeats": args.repeats}
        publish("Training step", compare(args), args, **setting, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
