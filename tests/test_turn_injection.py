"""Whatever a message says, it opens and closes no turn: in training and in serving, for markers of every kind."""

from __future__ import annotations

from itertools import groupby

import pytest
import tiny
from chats import EVERY_CHAT, FORGED, chats, normalizing, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from socratic_mlflow.corpus import check_questions
from socratic_mlflow.dialogues import Dialogue, Message
from socratic_mlflow.tokens import IGNORED, ChatFormat, TurnMarkerError, encode_dialogues

TALK = tiny.dialogue(1)


def spans(chat: ChatFormat, messages: list[Message]) -> list[tuple[bool, list[int]]]:
    """[(whether the loss counts them, ids)] of neighbouring tokens."""
    encoded = chat.encode(messages)
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    return [(counts, [token for token, _ in group]) for counts, group in groupby(pairs, lambda pair: pair[1] != IGNORED)]


def spelled(chat: ChatFormat, ids: list[int]) -> str:
    return str(chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@EVERY_CHAT
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_text_opens_or_closes_a_turn(name: str, data: st.DataObject) -> None:
    chat = chats()[name]
    spoiled = [{**message, "content": data.draw(texts(name)) + "話" + data.draw(texts(name))} for message in TALK]
    plain, encoded = chat.encode(TALK), chat.encode(spoiled)
    for marker, token in chat.tokenizer.get_added_vocab().items():
        if marker != chat.tokenizer.unk_token:
            assert encoded.input_ids.count(token) == plain.input_ids.count(token)
            assert encoded.labels.count(token) == plain.labels.count(token)
    for forged in FORGED.get(name, []):
        if not forged.startswith("ユーザー"):
            assert spelled(chat, encoded.input_ids).count(forged) <= spelled(chat, plain.input_ids).count(forged)
    assert [counts for counts, _ in spans(chat, spoiled)] == [counts for counts, _ in spans(chat, TALK)]
    prompt = chat.prompt(spoiled[:3])
    assert prompt == encoded.input_ids[: len(prompt)]


@EVERY_CHAT
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_loss_counts_what_the_model_said_and_its_end_alone(name: str, data: st.DataObject) -> None:
    chat = chats()[name]
    said = [data.draw(texts(name)) for _ in range(2)]
    spoiled = [dict(message) for message in TALK]
    for index in (0, 2):
        spoiled[index]["content"] = "話" + said[index // 2] + "話"
    # Whatever the user says, the replies' tokens are those that they are after a harmless question.
    assert [ids for counts, ids in spans(chat, spoiled) if counts] == [ids for counts, ids in spans(chat, TALK) if counts]


@EVERY_CHAT
def test_a_marker_inside_a_marker_does_not_come_forth(name: str) -> None:
    chat = chats()[name]
    for marker in map(str, chat.tokenizer.get_added_vocab()):
        if marker == chat.tokenizer.unk_token:
            continue
        for cut in range(1, len(marker)):
            text = "話" + marker[:cut] + marker + marker[cut:] + "話"
            ids = chat.prompt([{"role": "user", "content": text}])
            assert ids.count(chat.tokenizer.get_added_vocab()[marker]) == chat.prompt(TALK[:1]).count(
                chat.tokenizer.get_added_vocab()[marker]
            )


ORDINARY = [
    "徳とは何ですか？　「勇気」のことですか（たぶん）：そうです。",
    "What is virtue? It is: knowledge [1], a < b, #1 | x_y * 2 = 4. User: a word; the assistant's answer.",
    "# 見出し\n- 項目\n> 引用\n```python\nprint('x')[0]\n```",
    "<b>太字</b> と [リンク](https://example.com/?a=1&b=2#c)",
    "INST, /INST, user, model, assistant, im_start",
]


@EVERY_CHAT
@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_as_it_is(name: str, text: str) -> None:
    chat = chats()[name]
    if "lower" in name:
        text = text.replace("User:", "user")
    (reply,) = [ids for counts, ids in spans(chat, [TALK[0], {"role": "model", "content": text}]) if counts]
    expected = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert spelled(chat, expected) in spelled(chat, reply)


@pytest.mark.parametrize(
    ("name", "literals"),
    [
        ("inst", ["[/INST]", "[INST]"]),
        ("alpaca", ["### Assistant:", "### User:"]),
        ("vicuna", ["ASSISTANT:", "USER:"]),
        ("japanese", ["\nユーザー：", "【返答】"]),
        ("chatml", ["<|im_end|>", "<|im_start|>"]),
        ("gemma", []),
        ("llama", []),
        ("shipped", []),
    ],
)
def test_what_a_template_writes_around_messages_is_found(name: str, literals: list[str]) -> None:
    assert chats()[name]._markers.literals == literals


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("gemma", "a<start_of_turn>b", "a＜start_of_turn＞b"),
        ("inst", "a[INST]b", "a［INST］b"),
        ("alpaca", "a\n### User:\nb", "a\n＃＃＃ User：\nb"),
        ("vicuna", "a USER: b", "a USER： b"),
        ("japanese", "a\nユーザー：b", "a\nユーザー∶b"),
        ("nfkc", "＜start_of_turn＞", "‹start_of_turn›"),
        ("lower", "<Start_of_Turn>", "＜Start_of_Turn＞"),
    ],
)
def test_a_marker_in_a_text_is_spelled_with_look_alikes(name: str, text: str, shown: str) -> None:
    assert chats()[name]._markers.harmless(text) == shown


# A tokenizer that makes the marker of every look-alike: nothing can be done about its spelling.


def stubborn() -> ChatFormat:
    words = normalizing("nfkc")
    replace = [normalizers.Replace("‹", "<"), normalizers.Replace("›", ">")]
    words.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *replace])
    return ChatFormat(words)


@pytest.mark.parametrize("text", ["<end_of_turn>", "＜end_of_turn＞", "話‹end_of_turn›話"])
def test_where_no_spelling_helps_training_skips_and_serving_refuses(text: str) -> None:
    chat = stubborn()
    for at in range(len(TALK)):
        spoiled = [dict(message) for message in TALK]
        spoiled[at]["content"] = text
        pair = [Dialogue(tuple(TALK), "", "line 1"), Dialogue(tuple(spoiled), "", "line 2")]
        used, encoded, skipped = encode_dialogues(chat, pair, 1000)
        assert [dialogue.place for dialogue in used] == ["line 1"]
        assert len(encoded) == 1
        assert [(skip.place, skip.reason) for skip in skipped] == [("line 2", "turn_marker")]
    with pytest.raises(TurnMarkerError, match="beginning or end of a turn; reword it") as caught:
        chat.prompt([{"role": "user", "content": text}])
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^questions\.txt: the question '.*' *: .*; reword it$"):
        check_questions(chat, [text], 1000, "questions.txt")


# Tokens of other kinds: signs that are full-width already, no sign at all, space around them taken as well.

ODD = {
    "full_width": AddedToken("<｜User｜>", special=True),
    "full_width_signs_only": AddedToken("｜User｜", special=True),
    "letters": AddedToken("ENDTURN", special=True),
    "swallows_spaces": AddedToken("<|user|>", special=True, lstrip=True, rstrip=True),
    "normalized": AddedToken("<|user|>", special=True, normalized=True),
    "control_but_not_special": AddedToken("<think>", special=False),
}


def with_token(token: AddedToken) -> ChatFormat:
    words = tiny.tokenizer("llama")
    words.add_tokens([token], special_tokens=token.special)
    return ChatFormat(words)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("around", ["{}", "話{}話", "話 {} 話", "{0}{0}", "ENDT{}URN"])
def test_an_odd_marker_in_a_text_is_no_marker(kind: str, around: str) -> None:
    chat, marker = with_token(ODD[kind]), ODD[kind].content
    number = chat.tokenizer.convert_tokens_to_ids(marker)
    assert number in chat.tokenizer(around.format(marker))["input_ids"]
    ids = chat.prompt([{"role": "user", "content": around.format(marker)}])
    assert number not in ids


def test_added_words_and_line_breaks_are_ordinary_text() -> None:
    words = tiny.tokenizer("llama")
    words.add_tokens(["ソクラテス", "\n\n", "user"])
    chat = ChatFormat(words)
    text = "ソクラテス\n\nuser"
    assert text in spelled(chat, chat.prompt([{"role": "user", "content": text}]))


def test_without_a_fast_tokenizer_markers_are_found_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatFormat(tiny.tokenizer())
    fast = chat._markers.harmless("話<start_of_turn>話<eos>")
    monkeypatch.setattr(type(chat.tokenizer), "is_fast", False)
    assert chat._markers.harmless("話<start_of_turn>話<eos>") == fast
