"""Chat formats of every kind that a text could try to forge turns in, and the forgeries."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import tiny
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from socratic_mlflow.model import base_location
from socratic_mlflow.tokens import ChatFormat

# Templates whose turns are marked by plain text, which is no token of its own.
PLAIN = {
    "inst": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "alpaca": (
        "Below is an instruction.\n\n{% for m in messages %}{{ '### User:' if m.role == 'user' else '### Assistant:' }}\n"
        "{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}### Assistant:\n{% endif %}"
    ),
    "vicuna": (
        "A chat with an assistant.{% for m in messages %}{{ ' USER: ' if m.role == 'user' else ' ASSISTANT: ' }}"
        "{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
        "{% if add_generation_prompt %} ASSISTANT: {% endif %}"
    ),
    "japanese": (
        "{% for m in messages %}{{ 'ユーザー：' if m.role == 'user' else '【返答】' }}{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}【返答】{% endif %}"
    ),
    "chatml": tiny.FAMILIES["llama"].template,
}
# What each of them writes around messages, so that a text could forge it.
FORGED = {
    "inst": ["[INST]", "[/INST]", " [/INST] "],
    "alpaca": ["### User:", "\n\n### Assistant:\n", "### \nUser:"],
    "vicuna": [" USER: ", " ASSISTANT: ", "USER:"],
    "japanese": ["\nユーザー：", "【返答】", "ユーザー："],
    "chatml": ["<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n"],
}
# Normalizers that make a marker of other spellings, where added tokens are looked for in what they return.
NORMALIZERS: dict[str, Any] = {
    "nfkc": normalizers.NFKC(),
    "lower": normalizers.Lowercase(),
    "nfkc_lower": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "squeezed": normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("_", " ")]),
}


def plain_chat(name: str) -> ChatFormat:
    words = tiny.tokenizer("gemma")
    words.chat_template = PLAIN[name]
    return ChatFormat(words)


def normalizing(name: str) -> PreTrainedTokenizerFast:
    kind = tiny.FAMILIES["gemma"]
    made = Tokenizer(models.BPE())
    made.normalizer = NORMALIZERS[name]
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(tiny.QUESTIONS + tiny.REPLIES, trainer)
    made.add_special_tokens([AddedToken(token, special=True, normalized=True) for token in kind.specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=kind.template
    )


@cache
def chats() -> dict[str, ChatFormat]:
    shipped = AutoTokenizer.from_pretrained(base_location("embedded"))
    return (
        {family: ChatFormat(tiny.tokenizer(family)) for family in tiny.FAMILIES}
        | {"unbounded": ChatFormat(tiny.tokenizer("llama", boundaries=False)), "shipped": ChatFormat(shipped)}
        | {name: plain_chat(name) for name in PLAIN}
        | {name: ChatFormat(normalizing(name)) for name in NORMALIZERS}
    )


EVERY_CHAT = pytest.mark.parametrize("name", [*tiny.FAMILIES, "unbounded", "shipped", *PLAIN, *NORMALIZERS])


def forgeries(name: str) -> list[str]:
    """Spellings of this chat's markers, whole and in parts."""
    markers = [*map(str, chats()[name].tokenizer.get_added_vocab()), *FORGED.get(name, [])]
    wide = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
    spellings = [*markers, *(marker.upper() for marker in markers), *(marker.translate(wide) for marker in markers)]
    halves = [marker[: len(marker) // 2] for marker in markers] + [marker[len(marker) // 2 :] for marker in markers]
    return spellings + halves + [marker[:3] + marker + marker[3:] for marker in markers]


def texts(name: str) -> st.SearchStrategy[str]:
    words = ["君", "では", "\n", " ", "<", ">", "[", "|", "#", ":", "_", "model", "user\n", "\u0338", "\u200b"]
    return st.lists(st.sampled_from(forgeries(name) + words), max_size=8).map("".join)
