"""Build the small Gemma-2 chat model that ships in socratic_mlflow/base, from nothing but text in this repository.

    python embedded_base/build.py                # a quarter of an hour on two cores; writes socratic_mlflow/base
    python embedded_base/build.py --epochs 1 --out /tmp/base

It learns plain, polite Japanese: conversations.jsonl as it stands, and the bundled Socratic dialogues with the roles
exchanged, so that it has read how Socrates speaks but answers as the polite side. Dialogues that the default seed holds
out for evaluation are left out here too. Same text, same versions, same number of threads: same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from socratic_mlflow.config import Config
from socratic_mlflow.dialogues import Message, read_dialogues, split
from socratic_mlflow.tokens import ChatFormat

HERE = Path(__file__).parent
CONVERSATIONS = HERE / "conversations.jsonl"
BASE = HERE.parent / "socratic_mlflow" / "base"

VOCAB_SIZE = 4096
BATCH_TOKENS = 2048
KEPT_BACK = 48  # conversations that only measure
WARMUP = 0.05
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
# Gemma's turn format: roles user and model, no system turn.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('this model has no system role') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role in ('assistant', 'model') else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def conversations() -> list[list[Message]]:
    """All conversations that the base learns from, as message lists."""
    polite = [list(dialogue.messages) for dialogue in read_dialogues(str(CONVERSATIONS)).dialogues]
    defaults = Config()
    socratic, _ = split(read_dialogues("bundled").dialogues, defaults.data.test_size, defaults.training.seed)
    return polite + [exchanged(list(dialogue.messages)) for dialogue in socratic]


def exchanged(messages: list[Message]) -> list[Message]:
    """The same talk with Socrates as the user: his last question stays unanswered, so it and the first turn fall away."""
    return [
        {"role": "user" if message["role"] == "model" else "model", "content": message["content"]}
        for message in messages[1:-1]
    ]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE (no unknown tokens on any text); punctuation stands alone so that sentence ends are one token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    # No sign for spaces as Gemma has: the text here holds none, so that sign would be unknown and come back as itself.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[、。？！「」…\n ]"), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    specials = [AddedToken(token, special=True, normalized=False) for token in SPECIALS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[*specials, *BYTES], max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Training marks the byte tokens as special, which would hide them from decoding; they are plain vocabulary.
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in SPECIALS]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw, ensure_ascii=False)),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> Gemma2ForCausalLM:
    """The architecture, with random weights."""
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            query_pre_attn_scalar=64,
            sliding_window=512,
            max_position_embeddings=1024,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
            attn_implementation="eager",
        )
    )


def batches(rows: list[list[int]], order: random.Random) -> list[list[list[int]]]:
    """Rows of like length together, at most BATCH_TOKENS tokens a batch with padding, in random order."""
    by_length = sorted(rows, key=lambda row: (len(row), order.random()))
    made: list[list[list[int]]] = [[]]
    for row in by_length:
        if made[-1] and len(row) * (len(made[-1]) + 1) > BATCH_TOKENS:
            made.append([])
        made[-1].append(row)
    order.shuffle(made)
    return made


def loss_of(model: Gemma2ForCausalLM, batch: list[list[int]]) -> torch.Tensor:
    """Mean cross-entropy over all next tokens, both roles (a base learns to read as well as to answer)."""
    length = max(map(len, batch))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1))


def train(model: Gemma2ForCausalLM, chat: ChatFormat, talks: list[list[Message]], epochs: int, rate: float) -> None:
    """AdamW with warm-up and cosine decay; a line an epoch with the loss on what it learns and on what is kept back."""
    order = random.Random(0)
    rows = [chat.encode(talk).input_ids for talk in order.sample(talks, len(talks))]
    unseen, rows = batches(rows[:KEPT_BACK], order), rows[KEPT_BACK:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    started = time.monotonic()
    for epoch in range(epochs):
        todo = batches(rows, order)
        losses = []
        for number, batch in enumerate(todo):
            progress = (epoch + (number + 1) / len(todo)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, progress / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        with torch.no_grad():
            kept = [loss_of(model, batch).item() for batch in unseen]
        means = f"loss {sum(losses) / len(losses):.3f}, kept back {sum(kept) / len(kept):.3f}"
        print(f"epoch {epoch + 1}/{epochs}: {means}, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Tokenizer, training, and the files of a transformers model folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=BASE)
    args = parser.parse_args()
    torch.manual_seed(0)
    talks = conversations()
    tokenizer = train_tokenizer([message["content"] for talk in talks for message in talk])
    model = new_model(tokenizer)
    print(f"{len(talks)} conversations, {model.num_parameters()} parameters", flush=True)
    train(model, ChatFormat(tokenizer), talks, args.epochs, args.learning_rate)
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    weights = hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    print(f"{args.out}: model.safetensors SHA-256 {weights}")


if __name__ == "__main__":
    main()
