"""How long a start takes, and what loading a registered model holds in memory: fresh processes, in turn with their rivals.

    python benchmarks/start_up.py                 # five minutes on two cores
    python benchmarks/start_up.py --repeats 1 --layers 1

`train` is timed from the start of its process by hooks: to the first forward pass of all (the trial of what the base
allows, just before the untrained base's evaluation, which has one dialogue here), to the first one of a training step, and
by the journal to the first step logged. Beside it stands a process that imports torch, transformers and mlflow and loads
the same base (4-bit). Loading a model is compared by the peak of resident memory with a process that imports the same,
loads the base alone and makes one reply; besides the embedded base with a larger one of random weights, where a second
copy would show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gemma_2_2b_shape import save_base
from report import Claim, add_arguments, publish

LIGHT = {
    "--help": ("--help",),
    "train --help": ("train", "--help"),
    "score TEXT": ("score", "では、君は正義について何を考えているのかね？"),
    "score --file bundled": ("score", "--file", "bundled"),
}
SHORT = ("--max_steps", "1", "--evaluation.max_samples", "1", "--max_new_tokens", "8")

# Each child prints one line of JSON at its end. Times are seconds since the epoch.
TRAIN = """
import json, sys, time

times = {}

class Watch:
    def find_spec(self, name, path=None, target=None):
        # Imported last, with torch there already, whose early import would make another start of it.
        if name == "socratic_mlflow.trainer":
            from torch.nn.modules.module import register_module_forward_pre_hook
            self.hook = register_module_forward_pre_hook(self.mark)

    def mark(self, module, inputs):
        times.setdefault("forward", time.time())
        if module.training:
            times["step"] = time.time()
            self.hook.remove()

sys.meta_path.insert(0, Watch())
from socratic_mlflow.cli import main
code = main(sys.argv[1:])
print(json.dumps(times))
raise SystemExit(code)
"""
LIBRARIES = """
import json, sys, time
import torch, transformers, mlflow
from socratic_mlflow.model import load_base, load_tokenizer, resolve_dtype
from socratic_mlflow.options import build_config
config = resolve_dtype(build_config({"preset": "embedded", "base_model": sys.argv[1]}))
base = load_base(config.model, config.quantization)
times = {"loaded": time.time()}
from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.tokens import ChatFormat
chat = ChatFormat(load_tokenizer(config.model))
generate(base, chat, [[{"role": "user", "content": "正義とは何でしょうか？"}]], Sampling(8), 1)
# Not getrusage: its peak begins with that of the process that started this one.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
print(json.dumps(times | {"peak_kib": peak}))
"""
REGISTERED = """
import json, sys
import torch, transformers, mlflow
mlflow.pyfunc.load_model(sys.argv[1]).predict("正義とは何でしょうか？")
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
print(json.dumps({"peak_kib": peak}))
"""


def seconds(command: Sequence[str]) -> float:
    """How long `command` takes, in seconds, from here to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def child(program: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `program` printed last, run in `folder`; times in it (seconds) from the start of its process."""
    started = time.time()
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: value if name == "peak_kib" else value - started for name, value in found.items()} | {"at": started}


def train(folder: Path, name: str, *arguments: str) -> dict[str, float]:
    """One short training in `folder`: seconds to its first `forward` pass, its first `step`, and until that is `logged`."""
    output = folder / name
    found = child(TRAIN, folder, "train", "--preset", "embedded", *SHORT, "--output_dir", str(output), *arguments)
    lines = (output / "journal" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    records = (json.loads(line[line.index("{") : line.rindex("}") + 1]) for line in lines)
    first = next(record for record in records if "train/loss" in record.get("values", {}))
    return {**found, "logged": first["time"] / 1000 - found["at"]}


def light_claims(repeats: int) -> list[Claim]:
    """Commands that load no library."""
    taken: dict[str, list[float]] = {name: [] for name in ("python -c pass", *LIGHT)}
    for _ in range(repeats):
        taken["python -c pass"].append(seconds(["-c", "pass"]))
        for name, arguments in LIGHT.items():
            taken[name].append(seconds(["-m", "socratic_mlflow", *arguments]))
    return [Claim(name, "s", values, at_most=0.3 if name in LIGHT else None) for name, values in taken.items()]


def train_claims(scratch: Path, repeats: int) -> list[Claim]:
    """The way to the first step, in a new folder (whose database is made) and in one that holds a training already."""
    runs: dict[str, list[dict[str, float]]] = {"new folder": [], "used folder": []}
    libraries = []
    for number in range(repeats):
        folder = scratch / f"train{number}"
        folder.mkdir()
        libraries.append(child(LIBRARIES, folder, "embedded")["loaded"])
        runs["new folder"].append(train(folder, "first"))
        runs["used folder"].append(train(folder, "second", "--seed", "1"))
    words = {"forward": "first forward pass", "step": "first training step", "logged": "first step logged"}
    against = "torch, transformers, mlflow, base"
    return [
        Claim(
            f"train to its {words[mark]}, {where}",
            "s",
            [found[mark] for found in taken],
            libraries,
            against,
            # What is logged is done: the step's own arithmetic is no start any more.
            at_most=None if mark == "logged" else 1.3,
        )
        for where, taken in runs.items()
        for mark in words
    ]


def memory_claims(scratch: Path, repeats: int, larger: Callable[[Path], None]) -> list[Claim]:
    """The peak of a process that loads a registered model and replies once, against the base alone."""
    base = scratch / "base"
    larger(base)
    claims = []
    for words, location in {"embedded": "embedded", "larger": str(base)}.items():
        train(scratch, words, "--base_model", location, "--registered_model_name", words, "--batch_size", "1")
        ours, theirs = [], []
        for _ in range(repeats):
            theirs.append(child(LIBRARIES, scratch, location)["peak_kib"] / 2**20)
            ours.append(child(REGISTERED, scratch, f"models:/{words}/1")["peak_kib"] / 2**20)
        size = sum(file.stat().st_size for file in base.glob("*.safetensors")) / 2**20
        name = words if words == "embedded" else f"larger base, a file of {size:.0f} MiB"
        claims.append(
            Claim(f"loading a registered model ({name}), peak", "GiB", ours, theirs, "its base alone", at_most=1.1)
        )
    return claims


def main() -> None:
    """Measure all three and publish them as one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=2, help="of the larger base, of Gemma-2-2B's width")
    parser.add_argument("--vocab_size", type=int, default=8192, help="of the larger base")
    add_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        claims = light_claims(2 * args.repeats) + train_claims(scratch, args.repeats)
        claims += memory_claims(scratch, args.repeats, lambda base: save_base(base, args.layers, args.vocab_size))
    publish("Start", claims, args, layers=args.layers, vocab_size=args.vocab_size, repeats=args.repeats)


if __name__ == "__main__":
    main()
