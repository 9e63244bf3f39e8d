"""Train a model of Gemma-2-2B's shape with random weights through the same code as the real one, without its licence.

    python benchmarks/gemma_2_2b_shape.py                    # the full shape, on a GPU (not measured yet)
    python benchmarks/gemma_2_2b_shape.py --layers 2 --vocab_size 8192 --steps 2     # anywhere

It says nothing about style: what it shows is that NF4, LoRA, checkpointing, evaluation, logging and the registry work at
this size, and what memory they take (`memory/cuda_peak_gib` in the run).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def save_base(folder: Path, layers: int, vocab_size: int) -> None:
    """A base with google/gemma-2-2b's published shape, random bfloat16 weights, and the tokenizer that ships here."""
    import torch
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    from socratic_mlflow.model import base_location

    tokenizer = AutoTokenizer.from_pretrained(base_location("embedded"))
    shape = Gemma2Config(
        vocab_size=vocab_size,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Gemma2ForCausalLM(shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write the base into a temporary folder and run the training command on it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--vocab_size", type=int, default=256000)
    parser.add_argument("--steps", type=int, default=20)
    args, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        save_base(Path(scratch) / "base", args.layers, args.vocab_size)
        command = [sys.executable, "-m", "socratic_mlflow", "train", "--preset", "gemma-2-2b-jpn-it"]
        command += ["--base_model", str(Path(scratch) / "base"), "--max_steps", str(args.steps)]
        command += ["--output_dir", str(Path(scratch) / "out"), "--registered_model_name", "gemma-2-2b-shape"]
        raise SystemExit(subprocess.run([*command, *rest], check=False).returncode)


if __name__ == "__main__":
    main()
