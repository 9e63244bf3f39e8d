"""What is certainly too long is known without tokenizing it, and nothing that fits is taken for too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from chats import EVERY_CHAT, chats, forgeries
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from socratic_mlflow.corpus import check_questions, load_corpus
from socratic_mlflow.dialogues import Dialogue
from socratic_mlflow.model import base_location
from socratic_mlflow.tokens import ChatFormat, encode_dialogues

TALK = tiny.dialogue(1)


@EVERY_CHAT
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_dialogue_has_fewer_tokens_than_is_said_beforehand(name: str, data: st.DataObject) -> None:
    chat = chats()[name]
    pieces = st.sampled_from(
        [*tiny.QUESTIONS, *tiny.REPLIES, "   ", "\n\n\n", "が", "ﾊﾟ", "㍿", "a\u0301", "😀", *forgeries(name)]
    )
    content = st.lists(pieces, max_size=12).map("".join) | st.text(st.characters(codec="utf-8"), max_size=40)
    talk = [{**message, "content": data.draw(content) + "話" + data.draw(content)} for message in TALK]
    length = len(chat.encode(talk).input_ids)
    assert 0 < chat.at_least(talk) <= length
    used, _, skipped = encode_dialogues(chat, [Dialogue(tuple(talk), "", "")], length)
    assert (len(used), skipped) == (1, [])


@EVERY_CHAT
def test_the_longest_token_over_and_over_is_not_taken_for_longer_than_it_is(name: str) -> None:
    chat = chats()[name]
    longest = max(chat.tokenizer.get_vocab(), key=len)
    content = chat.tokenizer.decode(chat.tokenizer.convert_tokens_to_ids([longest])) * 50
    talk = [TALK[0], {"role": "model", "content": content}]
    assert 0 < chat.at_least(talk) <= len(chat.encode(talk).input_ids)


@EVERY_CHAT
@pytest.mark.parametrize("unit", ["では君は、", "<start_of_turn>", "[INST]", "x", "\n### User:\n"])
def test_a_message_of_10_mb_is_too_long_without_being_tokenized(name: str, unit: str, monkeypatch: Any) -> None:
    chat = chats()[name]
    monkeypatch.setattr(chat, "encode", lambda messages: pytest.fail("tokenized"))
    talk = (TALK[0], {"role": "model", "content": "話" + unit * (10 * 2**20 // len(unit.encode())) + "話"})
    _, _, (skip,) = encode_dialogues(chat, [Dialogue(talk, "", "line 7")], 1024)
    assert (skip.place, skip.reason) == ("line 7", "too_long")
    assert skip.detail == f"at least {chat.at_least(talk)} tokens, more than max_length 1024"


def word_piece() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "</s>": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", eos_token="</s>")
    words.chat_template = tiny.FAMILIES["neox"].template
    return words


def changed(**model: Any) -> PreTrainedTokenizerFast:
    """The shipped tokenizer with another setting of its model."""
    words = AutoTokenizer.from_pretrained(base_location("embedded"))
    state = json.loads(words.backend_tokenizer.to_str())
    state["model"] |= model
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        unk_token="<unk>",
        eos_token="<eos>",
        bos_token="<bos>",
        chat_template=words.chat_template,
    )


def stripping() -> PreTrainedTokenizerFast:
    words = tiny.tokenizer()
    words.backend_tokenizer.normalizer = normalizers.Strip()
    return words


def swallowing() -> PreTrainedTokenizerFast:
    words = tiny.tokenizer()
    words.add_tokens([AddedToken("<note>", lstrip=True)])
    return words


@pytest.mark.parametrize(
    "make",
    [word_piece, stripping, swallowing, lambda: changed(byte_fallback=False, fuse_unk=True)],
    ids=["unknown_words", "stripped", "space_swallowed", "unknown_runs"],
)
def test_where_a_token_may_stand_for_any_length_nothing_is_said_beforehand(make: Any) -> None:
    chat = ChatFormat(make())
    talk = [TALK[0], {"role": "model", "content": "𠮷" * 5000}]
    assert chat.at_least(talk) == 0
    assert len(chat.encode(talk).input_ids) > 0


# Questions.


@EVERY_CHAT
def test_a_question_longer_than_the_limit_is_one_line_with_file_and_beginning(name: str) -> None:
    chat = chats()[name]
    length = len(chat.prompt(TALK[:1]))
    questions = [TALK[0]["content"]]
    check_questions(chat, questions, length, "questions.txt")
    with pytest.raises(ValueError) as caught:
        check_questions(chat, questions, length - 1, "questions.txt")
    assert str(caught.value) == (
        f"questions.txt: the question {questions[0]!r} is a prompt of {length} tokens, more than max_length {length - 1}; "
        "shorten it or raise max_length"
    )


def test_a_question_of_10_mb_is_one_short_line() -> None:
    with pytest.raises(
        ValueError, match=r"^q\.txt: the question '徳とは.{37}…' is a prompt of at least \d+ tokens"
    ) as caught:
        check_questions(chats()["gemma"], ["勇気とは？", "徳とは\n" * 1_000_000], 256, "q.txt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("long", ["徳とは何ですか？" * 40, "徳" * 3_500_000], ids=["long", "10_mb"])
def test_a_training_is_refused_for_a_question_that_is_too_long(tmp_path: Path, long: str) -> None:
    data, questions = tiny.write_dialogues(tmp_path / "data.jsonl"), tmp_path / "questions.txt"
    questions.write_text(f"勇気とは？\n{long}\n", encoding="utf-8")
    config = tiny.config("base", data__path=str(data), data__max_length=128, evaluation__questions=str(questions))
    with pytest.raises(ValueError) as caught:
        load_corpus(config, chats()["gemma"])
    assert str(caught.value).startswith(f"{questions}: the question '{long[:40]}…' is a prompt of ")
    assert str(caught.value).endswith(" tokens, more than max_length 128; shorten it or raise max_length")


def test_a_training_counts_a_message_of_10_mb_among_what_it_does_not_use(tmp_path: Path) -> None:
    file = tiny.write_dialogues(tmp_path / "data.jsonl")
    huge = {"messages": [TALK[0], {"role": "model", "content": "徳" * 3_500_000}]}
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(huge) + "\n")
    config = tiny.config("base", data__path=str(file), data__max_length=128, evaluation__questions="heldout")
    corpus = load_corpus(config, chats()["gemma"])
    assert [(skip.place, skip.reason) for skip in corpus.skipped] == [("line 13", "too_long")]
    assert corpus.params()["data.skipped.too_long"] == 1
