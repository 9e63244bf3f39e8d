"""The corpus of a training: what all in memory would give, from a stream and a memory-mapped file, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tiny

from socratic_mlflow import token_store
from socratic_mlflow.config import Config, ModelConfig, with_values
from socratic_mlflow.corpus import Corpus, evenly, load_corpus
from socratic_mlflow.dialogues import read_dialogues, split, text_digest
from socratic_mlflow.model import load_tokenizer
from socratic_mlflow.tokens import ChatFormat, Encoded, encode_dialogues


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer(ModelConfig(base_model="embedded")))


def check_as_in_memory(corpus: Corpus, config: Config, chat: ChatFormat) -> None:
    """Compare with the plain way: all dialogues, all tokens, in lists."""
    file = read_dialogues(config.data.path)
    used, encoded, left_out = encode_dialogues(chat, file.dialogues, config.data.max_length)
    tokens = {dialogue.place: each for dialogue, each in zip(used, encoded, strict=True)}
    train, held_out = split(used, config.data.test_size, config.training.seed)
    evaluated = evenly(held_out, config.evaluation.max_samples)
    assert list(corpus.train["place"]) == [dialogue.place for dialogue in train]
    assert [json.loads(text) for text in corpus.train["messages"]] == [list(dialogue.messages) for dialogue in train]
    assert [Encoded(row["input_ids"], row["labels"]) for row in corpus.train] == [tokens[each.place] for each in train]
    assert corpus.held_out == evaluated
    assert corpus.held_out_encoded == [tokens[each.place] for each in evaluated]
    assert corpus.skipped == file.skipped + left_out
    counts = corpus.params()
    assert counts["data.digest"] == file.digest
    assert counts["data.train_dialogues"] == len(train)
    assert counts["data.train_tokens"] == sum(len(tokens[each.place].input_ids) for each in train)
    assert counts["data.held_out_dialogues"] == len(evaluated)
    assert counts["data.held_out_not_evaluated"] == len(held_out) - len(evaluated)


@pytest.mark.parametrize("seed", [0, 42])
def test_the_bundled_dialogues_are_those_of_lists_in_memory(chat: ChatFormat, seed: int) -> None:
    config = with_values(Config(), {"training.seed": seed, "data.max_length": 150, "evaluation.max_samples": 20})
    corpus = load_corpus(config, chat)
    assert corpus.params()["data.skipped.too_long"] > 10
    assert corpus.not_evaluated > 10
    check_as_in_memory(corpus, config, chat)


def test_the_real_dialogues_are_those_of_lists_in_memory(chat: ChatFormat, shared_data: Path) -> None:
    config = with_values(Config(), {"data.path": str(shared_data / "dialogues_dev.json")})
    check_as_in_memory(load_corpus(config, chat), config, chat)


def test_who_is_held_out_of_the_bundled_dialogues_stays_as_it_was() -> None:
    """A training that is continued by a newer version learns from the same dialogues."""
    dialogues = read_dialogues("bundled").dialogues
    found = {
        (seed, share): text_digest([each.place for each in split(dialogues, share, seed)[1]])[:16]
        for seed in (0, 42)
        for share in (0.1, 0.2)
    }
    assert found == {
        (0, 0.1): "0f105d64cd3f1726",
        (0, 0.2): "35d923614655782c",
        (42, 0.1): "e8fe31d9baf77f40",
        (42, 0.2): "b628a683437c5f25",
    }


def test_nothing_that_fits_is_one_line(chat: ChatFormat, tmp_path: Path) -> None:
    data = tiny.write_dialogues(tmp_path / "data.jsonl", 3)
    config = with_values(Config(), {"data.path": str(data), "data.max_length": 16})
    with pytest.raises(ValueError, match=r": no usable dialogue; all 3 are longer than max_length 16 tokens$"):
        load_corpus(config, chat)
    data.write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r": no usable dialogue \(1 no_messages\); line 1: "):
        load_corpus(config, chat)


def peak_bytes(file: Path, count: int, chat: ChatFormat) -> int:
    """The peak of what Python allocates while `count` dialogues of 3 KB are read, encoded and split."""
    messages: Any = tiny.dialogue(0)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            talk = [messages[0] | {"content": f"{number}"}, messages[1]]
            lines.write(json.dumps({"messages": talk, "note": "x" * 3000}, ensure_ascii=False) + "\n")
    config = with_values(Config(), {"data.path": str(file)})
    tracemalloc.start()
    try:
        assert len(load_corpus(config, chat).train) == count * 8 // 10
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_hold_the_texts_and_tokens(
    chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak_bytes(tmp_path / "first.jsonl", 50, chat)  # imports
    # Both are several pieces and batches long: the difference is what each dialogue adds.
    monkeypatch.setattr(token_store, "_BATCH", 2**13)
    few, many = peak_bytes(tmp_path / "few.jsonl", 1000, chat), peak_bytes(tmp_path / "many.jsonl", 2500, chat)
    assert (many - few) / 1500 < 600
