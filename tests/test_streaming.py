"""A reply in pieces: together they are the reply, and no piece ever holds half a character."""

from __future__ import annotations

import pytest
import tiny
import torch

from socratic_mlflow.config import Config
from socratic_mlflow.model import load_tokenizer
from socratic_mlflow.streaming import Spelling, TextStream
from socratic_mlflow.tokens import ChatFormat

# Byte-level BPE (three families) and the embedded base's byte fallback spell rare characters in several tokens.
TEXTS = [
    "では、君はそれについて何を考えているのかね？",
    "髙橋と𠮷野家は🫖を飲む👩‍👩‍👧。",
    "一行目。\n\n二行目　です。",
    "plain words, and é",
    "が\u3099か",
]


@pytest.fixture(scope="module", params=["gemma", "llama", "neox", "embedded"])
def chat(request):
    if request.param == "embedded":
        return ChatFormat(load_tokenizer(Config().model.__class__(base_model="embedded")))
    return ChatFormat(tiny.tokenizer(request.param))


def streamed(chat, ids):
    """The pieces that come of `ids`, and which of the ids had come by then."""
    pieces = []
    stream = TextStream(chat, pieces.append)
    stream.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert stream.text == "".join(pieces)
    return pieces


def ids_of(chat, text):
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_together_are_the_reply(chat, text):
    ids = ids_of(chat, text)
    pieces = streamed(chat, ids)
    assert "".join(pieces) == chat.text(ids) == text
    assert len(pieces) > 1
    assert not any("\ufffd" in piece for piece in pieces)


def test_kana_appear_with_their_token_and_not_with_the_next_chinese_character(chat):
    ids = ids_of(chat, "あいうえおかきくけこ")
    # transformers' own streamer shows nothing of this before the reply ends.
    assert len(streamed(chat, ids)[:-1]) >= 1
    assert "".join(streamed(chat, ids[:-3]))


def test_half_a_character_is_never_shown(chat):
    ids = ids_of(chat, "君🫖")
    shown = {"".join(streamed(chat, ids[:count])) for count in range(len(ids) + 1)}
    assert shown <= {"", "君", "君🫖"}
    assert "君🫖" in shown


def test_bytes_that_make_no_character_are_left_out_and_what_follows_is_not(chat):
    first, *_ = ids_of(chat, "🫖")[-1:]
    ids = [*ids_of(chat, "君"), first, *ids_of(chat, "は、")]
    text = "".join(streamed(chat, ids))
    assert "\ufffd" not in text
    assert text.endswith("は、")


def test_nothing_is_shown_of_and_after_the_end_of_the_turn(chat):
    ids = ids_of(chat, "君。")
    pieces = streamed(chat, [*ids, chat.stop_ids[0], *ids])
    assert "".join(pieces) == "君。"


def test_space_around_the_reply_is_not_part_of_it(chat):
    ids = ids_of(chat, "\n\n君 は。\n\n")
    assert "".join(streamed(chat, ids)) == "君 は。"


def test_several_tokens_at_once_are_the_same(chat):
    ids = ids_of(chat, TEXTS[0])
    pieces = []
    stream = TextStream(chat, pieces.append)
    stream.put(torch.tensor([[1]]))
    stream.put(torch.tensor(ids))
    assert "".join(pieces) == TEXTS[0]


def test_bytes_that_never_make_a_character_cost_no_more_the_more_there_are(chat):
    spelling, decoded, decode = Spelling(chat), [], chat.tokenizer.decode
    half = ids_of(chat, "🫖")[-1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat.tokenizer, "decode", lambda ids, **how: (decoded.append(len(ids)), decode(ids, **how))[1])
        for token in half * 200:
            spelling.more(token)
    assert max(decoded) < 50
