"""Tiny random chat models, their tokenizers and dialogues, made on the spot: two layers, width 32, no network.

Three families with different chat templates, role names and projection names: `gemma` (roles user and model), `llama`
(ChatML, roles user and assistant, no beginning-of-sequence token) and `neox` (GPT-NeoX's fused projections).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.dialogues import Message
from socratic_mlflow.model import load_base
from socratic_mlflow.tokens import IGNORED, ChatFormat

TOPICS = ("正義", "勇気", "友情", "幸福", "自由", "知恵", "愛", "仕事", "学び", "時間", "約束", "美しさ")
QUESTIONS = [f"{topic}とは何でしょうか？" for topic in TOPICS]
REPLIES = [
    "では、君はそれについて何を考えているのかね？",
    "君が見た場面を一つ話してくれないかね。",
    "それは本当だろうか？",
    "なるほど、大切なことです。",
]


@dataclass(frozen=True)
class Family:
    """A chat template, and what stands around a user's and a model's words in it."""

    template: str
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    before_user: str
    after_user: str
    before_reply: str
    reply_end: str
    after_reply: str


FAMILIES = {
    "gemma": Family(
        template=(
            "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
            "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
        specials=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        before_user="<start_of_turn>user\n",
        after_user="<end_of_turn>\n",
        before_reply="<start_of_turn>model\n",
        reply_end="<end_of_turn>",
        after_reply="\n",
    ),
    "llama": Family(
        template=(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos=None,
        eos="<|endoftext|>",
        before_user="<|im_start|>user\n",
        after_user="<|im_end|>\n",
        before_reply="<|im_start|>assistant\n",
        reply_end="<|im_end|>",
        after_reply="\n",
    ),
    "neox": Family(
        template=(
            "{% for m in messages %}{{ '[USER]' if m.role == 'user' else '[BOT]' }}{{ m.content }}"
            "{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
            "{% if add_generation_prompt %}[BOT]{% endif %}"
        ),
        specials=("</s>", "[USER]", "[BOT]"),
        bos=None,
        eos="</s>",
        before_user="[USER]",
        after_user="",
        before_reply="[BOT]",
        reply_end="</s>",
        after_reply="",
    ),
}


def tokenizer(family: str = "gemma", boundaries: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on this file's sentences; without `boundaries` a token may span a line break and words."""
    kind = FAMILIES[family]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=boundaries)
    made.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, special=True, normalized=False) for token in kind.specials]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    turns = [f"\n{text}" for text in REPLIES] * 3 + QUESTIONS + ["user\n", "model\n", "assistant\n"]
    made.train_from_iterator(turns, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=kind.bos,
        eos_token=kind.eos,
        pad_token=kind.specials[0],
        extra_special_tokens=[token for token in kind.specials if token not in (kind.bos, kind.eos, kind.specials[0])],
        chat_template=kind.template,
        clean_up_tokenization_spaces=False,
    )


def model(family: str = "gemma", vocab_size: int = 400, width: int = 32, layers: int = 2, seed: int = 0) -> Any:
    """Random weights, the same for the same arguments."""
    shared = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "gemma":
            heads = {"num_key_value_heads": 1, "head_dim": width // 2, "query_pre_attn_scalar": width // 2}
            return Gemma2ForCausalLM(Gemma2Config(**shared, **heads, sliding_window=256))
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(**shared, num_key_value_heads=2))
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shared))


def save_base(folder: Path, family: str = "gemma", **shape: int) -> Path:
    """A base model's folder: weights as safetensors, configuration, tokenizer with chat template."""
    words = tokenizer(family)
    model(family, vocab_size=len(words), **shape).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_bases(folder: Path) -> dict[str, Path]:
    """{family: folder of its base}, 64 wide: the least that bitsandbytes repacks for inference."""
    return {family: save_base(folder / family, family, width=64) for family in FAMILIES}


def dialogue(number: int, roles: tuple[str, str] = ("user", "model")) -> list[Message]:
    """The dialogue `number`: two or four messages, all dialogues different."""
    question, reply = QUESTIONS[number % len(QUESTIONS)], REPLIES[number % len(REPLIES)]
    texts = [question, reply]
    if number % 2 or number >= len(QUESTIONS):
        texts += [f"{number + 1}つ目の考えです。", REPLIES[(number + 1) % len(REPLIES)]]
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def write_dialogues(file: Path, count: int = 12) -> Path:
    """`count` dialogues as JSONL."""
    lines = [json.dumps({"messages": dialogue(number)}, ensure_ascii=False) for number in range(count)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def config(base: Path | str, **values: Any) -> Config:
    """The default configuration on `base`, float32 and without checkpointing; `values` by dotted key, dot as __."""
    small = {
        "model.base_model": str(base),
        "quantization.bnb_4bit_compute_dtype": "float32",
        "training.gradient_checkpointing": False,
        "lora.r": 4,
        "lora.dropout": 0.0,
    }
    return with_values(Config(), small | {key.replace("__", "."): value for key, value in values.items()})


def quantized(folder: Path | str, **values: Any) -> tuple[Any, Config]:
    """(the base in `folder` as a training loads it, `config(folder, **values)`)."""
    chosen = config(folder, **values)
    return load_base(chosen.model, chosen.quantization), chosen


def batch(chat: ChatFormat, dialogues: Sequence[Sequence[Message]]) -> dict[str, torch.Tensor]:
    """Encoded dialogues, padded on the right, as a model takes them."""
    rows = [chat.encode(messages) for messages in dialogues]
    width = max(len(row.input_ids) for row in rows)
    lacking = [width - len(row.input_ids) for row in rows]
    pad = chat.tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([row.input_ids + [pad] * gap for row, gap in zip(rows, lacking, strict=True)]),
        "attention_mask": torch.tensor(
            [[1] * len(row.input_ids) + [0] * gap for row, gap in zip(rows, lacking, strict=True)]
        ),
        "labels": torch.tensor([row.labels + [IGNORED] * gap for row, gap in zip(rows, lacking, strict=True)]),
    }


def learn(learner: Any, inputs: dict[str, torch.Tensor], steps: int, rate: float = 1e-2) -> float:
    """Plain AdamW over whatever trains in `learner`; returns the last loss."""
    optimizer = torch.optim.AdamW([each for each in learner.parameters() if each.requires_grad], lr=rate, weight_decay=0.0)
    learner.train()
    for _ in range(steps):
        loss = learner(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def talker(family: str = "gemma") -> tuple[Any, ChatFormat]:
    """A model that has learned `dialogue(0)` to `dialogue(11)` by heart, and its chat format."""
    words = tokenizer(family)
    chat, learner = ChatFormat(words), model(family, vocab_size=len(words))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learn(learner, batch(chat, [dialogue(number)[:2] for number in range(len(QUESTIONS))]), steps=60)
    return learner, chat
