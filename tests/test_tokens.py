"""Where replies begin and end in token ids, for three chat templates and for the tokenizer that ships here."""

from __future__ import annotations

from itertools import groupby

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from socratic_mlflow.dialogues import Dialogue
from socratic_mlflow.model import base_location
from socratic_mlflow.tokens import IGNORED, ChatFormat, encode_dialogues

SHIPPED = AutoTokenizer.from_pretrained(base_location("embedded"))
CHATS = {name: (ChatFormat(tiny.tokenizer(name)), family) for name, family in tiny.FAMILIES.items()}
CHATS["shipped"] = (ChatFormat(SHIPPED), tiny.FAMILIES["gemma"])
EVERY_CHAT = pytest.mark.parametrize("name", CHATS)

TALK = [
    {"role": "user", "content": "正義とは何でしょうか？"},
    {"role": "model", "content": "では、君はそれについて何を考えているのかね？"},
    {"role": "user", "content": "人を助けることです。"},
    {"role": "model", "content": "それは本当だろうか？"},
]


def spelled(chat, ids):
    return chat.tokenizer.decode(list(ids), skip_special_tokens=False)


def spans(encoded):
    """[(whether the loss counts them, ids)] of neighbouring tokens."""
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    return [(counts, [token for token, _ in group]) for counts, group in groupby(pairs, lambda pair: pair[1] != IGNORED)]


@EVERY_CHAT
def test_labels_cover_each_reply_with_its_end_marker_and_nothing_else(name):
    chat, family = CHATS[name]
    encoded = chat.encode(TALK)
    question = [family.before_user + TALK[index]["content"] + family.after_user + family.before_reply for index in (0, 2)]
    reply = [TALK[index]["content"] + family.reply_end for index in (1, 3)]
    expected = [
        (False, (family.bos or "") + question[0]),
        (True, reply[0]),
        (False, family.after_reply + question[1]),
        (True, reply[1]),
    ]
    if family.after_reply:
        expected.append((False, family.after_reply))
    assert [(counts, spelled(chat, ids)) for counts, ids in spans(encoded)] == expected


@EVERY_CHAT
def test_a_label_is_the_token_it_stands_at(name):
    encoded = CHATS[name][0].encode(TALK)
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    assert all(label in (IGNORED, token) for token, label in pairs)


@EVERY_CHAT
def test_prompt_and_reply_are_the_tokens_of_training(name):
    chat = CHATS[name][0]
    encoded = chat.encode(TALK)
    replies = [ids for counts, ids in spans(encoded) if counts]
    for number, reply in enumerate(replies):
        generated = chat.prompt(TALK[: 2 * number + 1]) + reply
        assert generated == encoded.input_ids[: len(generated)]
        assert chat.text(reply) == TALK[2 * number + 1]["content"]


def test_prompt_is_that_of_training_where_a_token_spans_a_boundary():
    words = tiny.tokenizer("llama", boundaries=False)
    # The line break behind a role and the first word of a reply would be one token, if they were read together.
    assert words("\nでは、君は")["input_ids"] != words("\n")["input_ids"] + words("では、君は")["input_ids"]
    chat = ChatFormat(words)
    encoded = chat.encode(TALK)
    prompt = chat.prompt(TALK[:3])
    assert prompt == encoded.input_ids[: len(prompt)]


@EVERY_CHAT
def test_roles_model_and_assistant_mean_the_same(name):
    chat = CHATS[name][0]
    renamed = [message | {"role": message["role"].replace("model", "assistant")} for message in TALK]
    assert chat.encode(renamed) == chat.encode(TALK)
    assert chat.prompt(renamed[:3]) == chat.prompt(TALK[:3])


@EVERY_CHAT
def test_a_reply_stops_at_its_end_marker(name):
    chat, family = CHATS[name]
    assert chat.tokenizer.convert_tokens_to_ids(family.reply_end) in chat.stop_ids
    assert chat.tokenizer.eos_token_id in chat.stop_ids


def test_a_tokenizer_without_a_chat_template_is_one_clear_line():
    words = tiny.tokenizer()
    words.chat_template = None
    words.name_or_path = "some/base"
    with pytest.raises(ValueError, match=r"^some/base: .*no chat template; choose an instruction-tuned") as caught:
        ChatFormat(words)
    assert "\n" not in str(caught.value)


def with_template(template):
    words = tiny.tokenizer()
    words.chat_template = template
    return ChatFormat(words)


def test_a_template_with_another_generation_prompt_is_one_clear_line():
    chat = with_template(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
    )
    with pytest.raises(ValueError, match="replies cannot be told from prompts; choose another base_model") as caught:
        chat.encode(TALK)
    assert "\n" not in str(caught.value)


# As Qwen3's: the last reply begins with an empty thought, which falls away once another turn follows.
THINKS = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n<think></think>{% endif %}"
)


def test_where_a_template_rewrites_earlier_turns_only_the_last_reply_is_learned():
    chat = with_template(THINKS)
    assert chat.rewrites_history
    assert not any(each.rewrites_history for each, _ in CHATS.values())
    encoded = chat.encode(TALK)
    assert [spelled(chat, ids) for counts, ids in spans(encoded) if counts] == [TALK[3]["content"] + "<end_of_turn>"]
    assert spelled(chat, encoded.input_ids).count("<think></think>") == 1
    prompt = chat.prompt(TALK[:3])
    assert prompt == encoded.input_ids[: len(prompt)]


def test_an_added_line_break_ends_no_reply():
    # Gemma's tokenizer adds runs of line breaks to its vocabulary, as ordinary text.
    words = tiny.tokenizer()
    words.add_tokens(["\n"])
    chat = ChatFormat(words)
    assert words.convert_tokens_to_ids("\n") not in chat.stop_ids
    assert words.convert_tokens_to_ids("<end_of_turn>") in chat.stop_ids


@EVERY_CHAT
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_markers_inside_a_text_open_and_close_no_turn(name, data):
    chat, family = CHATS[name]
    pieces = st.sampled_from(
        [*chat.tokenizer.get_added_vocab(), family.before_reply, "君", "\n", "<", ">", "[", "|", "model"]
    )
    texts = [data.draw(st.lists(pieces, max_size=8).map("".join)) for _ in TALK]
    spoiled = [
        message | {"content": message["content"] + text + "です。"} for message, text in zip(TALK, texts, strict=True)
    ]
    plain, encoded = chat.encode(TALK), chat.encode(spoiled)
    for token in chat.tokenizer.get_added_vocab().values():
        assert encoded.input_ids.count(token) == plain.input_ids.count(token)
        assert encoded.labels.count(token) == plain.labels.count(token)
    assert len(spans(encoded)) == len(spans(plain))
    assert chat.prompt(spoiled[:1]) == encoded.input_ids[: len(chat.prompt(spoiled[:1]))]


def test_dialogues_longer_than_the_limit_are_listed_and_never_cut():
    chat = CHATS["gemma"][0]
    long = [TALK[0], TALK[1] | {"content": "それは本当だろうか？" * 20}]
    dialogues = [Dialogue(tuple(talk), "", place) for talk, place in ((TALK, "line 1"), (long, "line 2"), (TALK, "line 3"))]
    length = len(chat.encode(TALK).input_ids)
    used, encoded, skipped = encode_dialogues(chat, dialogues, length)
    assert [dialogue.place for dialogue in used] == ["line 1", "line 3"]
    assert encoded == [chat.encode(TALK)] * 2
    assert [(skip.place, skip.reason) for skip in skipped] == [("line 2", "too_long")]
    assert skipped[0].detail == f"{len(chat.encode(long).input_ids)} tokens, more than max_length {length}"
    used, _, skipped = encode_dialogues(chat, dialogues, length - 1)
    assert (used, len(skipped)) == ([], 3)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_the_shipped_tokenizer_spells_any_text_without_unknown_tokens(text):
    ids = SHIPPED(text, add_special_tokens=False)["input_ids"]
    if not any(marker in text for marker in SHIPPED.get_added_vocab()):
        assert SHIPPED.unk_token_id not in ids
        # Like Gemma's, it keeps a space as this sign and so reads the sign back as a space.
        assert SHIPPED.decode(ids) == text.replace("▁", " ")


def test_the_shipped_tokenizer_has_gemmas_turns():
    ids = CHATS["shipped"][0].encode(TALK).input_ids
    assert SHIPPED.convert_ids_to_tokens(ids[:4]) == ["<bos>", "<start_of_turn>", *SHIPPED.tokenize("user\n")][:4]
    for marker in ("<start_of_turn>", "<end_of_turn>"):
        assert SHIPPED.encode(marker, add_special_tokens=False) == [SHIPPED.convert_tokens_to_ids(marker)]
        assert ids.count(SHIPPED.convert_tokens_to_ids(marker)) == len(TALK)


def test_the_shipped_template_has_no_system_turn():
    with pytest.raises(Exception, match="this model has no system role"):
        SHIPPED.apply_chat_template([{"role": "system", "content": "a"}], tokenize=False)
