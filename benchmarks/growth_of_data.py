"""From 1,000 to 1,000,000 dialogues: time and memory of loading them, of an epoch's order, and of fetching batches.

    python benchmarks/growth_of_data.py [--sizes 1000,10000,100000,1000000] [--repeats N]

The dialogues are made up here, each different. Every size is loaded in a process of its own, as a training on the embedded
base does it; sizes come in turn, so that the ratio to the smallest one holds on a machine whose speed drifts. What is
mapped from the file counts as resident while it is read, though the system takes it back at will: own memory leaves it out.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from report import Claim, add_arguments, peak_resident, publish

_BATCH = 16
_FETCHED = 32_000
_SOMEONE = ("君", "友人", "先生", "市民", "職人", "兵士", "子ども", "医者", "詩人", "旅人", "父", "母", "隣人", "漁師")
_SOMETHING = (
    "正義",
    "勇気",
    "友情",
    "幸福",
    "自由",
    "知恵",
    "愛",
    "仕事",
    "学び",
    "時間",
    "約束",
    "美しさ",
    "怒り",
    "記憶",
)
_SAYS = ("と言う", "と考える", "を望む", "を恐れる", "を忘れる", "を教える", "を疑う", "を守る", "を見つける", "に従う")
_ENDS = ("のかね？", "のはなぜだろうか？", "のです。", "と思います。", "のではないかね？", "ことがあります。")


def write_dialogues(file: Path, count: int) -> None:
    """`count` different dialogues of two to six messages as JSONL."""
    rng = random.Random(count)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            texts = [_text(rng) for _ in range(2 * rng.randint(1, 3))]
            texts[0] = f"{number}番目の問いです。{texts[0]}"
            messages = [{"role": ("user", "model")[turn % 2], "content": text} for turn, text in enumerate(texts)]
            lines.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def _text(rng: random.Random) -> str:
    return "".join(
        f"{rng.choice(_SOMEONE)}は{rng.choice(_SOMETHING)}{rng.choice(_SAYS)}{rng.choice(_ENDS)}"
        for _ in range(rng.randint(1, 4))
    )


def measure(file: str) -> dict[str, float]:
    """One process' figures: seconds, bytes, rows a second."""
    import datasets  # noqa: F401  # before the clock starts

    from socratic_mlflow.config import Config, ModelConfig, with_values
    from socratic_mlflow.corpus import load_corpus
    from socratic_mlflow.model import load_tokenizer
    from socratic_mlflow.ordered_trainer import EpochOrder
    from socratic_mlflow.token_store import lengths
    from socratic_mlflow.tokens import ChatFormat

    chat = ChatFormat(load_tokenizer(ModelConfig(base_model="embedded")))
    before, start = peak_resident(), time.perf_counter()
    train = load_corpus(with_values(Config(), {"data.path": file}), chat).train
    loaded, peak = time.perf_counter(), peak_resident()
    order = list(EpochOrder(_BATCH, lengths(train), seed=42))
    ordered, own = time.perf_counter(), _own_bytes()
    _fetch(train.select_columns(["input_ids", "labels"]), order)
    return {
        "load_s": loaded - start,
        "peak_bytes": peak - before,
        "order_s": ordered - loaded,
        "rows_per_s": _FETCHED / (time.perf_counter() - ordered),
        "fetch_bytes": _own_bytes() - own,
        "dialogues": len(train) / 0.8,
    }


def _fetch(rows: Any, order: list[int]) -> None:
    """Reads _FETCHED of them batch by batch, as a DataLoader does, in as many epochs as it takes."""
    indices = islice(cycle(order), _FETCHED)
    for _ in range(_FETCHED // _BATCH):
        assert len(rows.__getitems__(list(islice(indices, _BATCH)))) == _BATCH


def _own_bytes() -> int:
    """Resident memory without what is mapped from files (where the system tells them apart)."""
    import psutil

    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _measured(file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def claims(found: dict[int, list[dict[str, float]]]) -> list[Claim]:
    """What each size costs, beside the smallest one."""
    least = min(found)
    made: list[Claim] = []
    for size, runs in found.items():
        base, against = (found[least], f"{least:,}") if size > least else ([], "")
        loading = [[run["load_s"] / run["dialogues"] * 1000 for run in side] for side in (runs, base)]
        fetching = [[run["rows_per_s"] for run in side] for side in (runs, base)]
        flat, slow = (1.25, 0.8) if base else (None, None)
        made += [
            Claim(f"{size:,}: loading", "s per 1,000 dialogues", loading[0], loading[1], against, at_most=flat),
            Claim(f"{size:,}: fetching batches of {_BATCH}", "rows/s", fetching[0], fetching[1], against, at_least=slow),
            Claim(f"{size:,}: an epoch's order", "s", [run["order_s"] for run in runs]),
            Claim(f"{size:,}: peak of loading beyond the imports", "MiB", [run["peak_bytes"] / 2**20 for run in runs]),
            Claim(f"{size:,}: own memory by fetching", "MiB", [run["fetch_bytes"] / 2**20 for run in runs], at_most=64),
        ]
    for smaller, size in pairwise(found):
        more = [
            (run["peak_bytes"] - other["peak_bytes"]) / (size - smaller)
            for run, other in zip(found[size], found[smaller], strict=True)
        ]
        # Below, the buffers are not full yet.
        most = 1000 if smaller >= 10_000 else None
        made.append(Claim(f"{size:,}: peak of loading, each dialogue beyond {smaller:,}", "bytes", more, at_most=most))
    return made


def main() -> None:
    """Parse, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000", help="dialogues, the smallest first")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    add_arguments(parser)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    sizes = [int(size) for size in args.sizes.split(",")]
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            write_dialogues(Path(folder) / f"{size}.jsonl", size)
        for _ in range(args.repeats):
            for size in sizes:
                found[size].append(_measured(Path(folder) / f"{size}.jsonl"))
        mib = {size: round((Path(folder) / f"{size}.jsonl").stat().st_size / 2**20) for size in sizes}
    publish("Growth of the data", claims(found), args, sizes=args.sizes, file_mib=mib[max(sizes)], repeats=args.repeats)


if __name__ == "__main__":
    main()
