"""What a model sees of a conversation: all that was said as long as it fits, and the base alone where that is asked."""

from __future__ import annotations

import dataclasses
import signal

import pytest
import tiny
import torch
from transformers import StoppingCriteriaList

from socratic_mlflow.config import Config
from socratic_mlflow.conversation import Conversation, base_alone, context_tokens
from socratic_mlflow.dialogues import scan_dialogues
from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.model import attach_adapter
from socratic_mlflow.named_model import NamedModel
from socratic_mlflow.stopping import StopOnInterrupt

GREEDY = Sampling(max_new_tokens=40)


@pytest.fixture(scope="module")
def speaker():
    model, chat = tiny.talker()
    return NamedModel("talker", model.eval(), chat, Config())


@pytest.fixture(scope="module")
def with_adapter(bases):
    """A base with an adapter that changes every answer."""
    base, config = tiny.quantized(bases["gemma"])
    model = attach_adapter(base, config).eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.5)
    from socratic_mlflow.tokens import ChatFormat

    return NamedModel("adapter", model, ChatFormat(tiny.tokenizer()), config)


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, as in a terminal: what runs in the background may have been started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ignore(text):
    """A reader who does not look."""


def test_the_reply_is_what_the_evaluation_would_get(speaker):
    question = [{"role": "user", "content": tiny.QUESTIONS[0]}]
    (expected,) = generate(speaker.model, speaker.chat, [question], GREEDY, 1)
    pieces = []
    assert Conversation(speaker, GREEDY).ask(tiny.QUESTIONS[0], pieces.append).text == expected.text == tiny.REPLIES[0]
    assert "".join(pieces) == expected.text


def test_all_that_was_said_is_before_the_model(speaker):
    talk = Conversation(speaker, GREEDY)
    for question in tiny.QUESTIONS[:3]:
        talk.ask(question, ignore)
    (expected,) = generate(speaker.model, speaker.chat, [talk.messages[:-1]], GREEDY, 1)
    assert [message["role"] for message in talk.messages] == ["user", "model"] * 3
    assert talk.messages[-1]["content"] == expected.text


def test_the_oldest_turns_go_when_the_context_is_full_and_the_newest_stay(speaker):
    talk = Conversation(speaker, GREEDY)
    talk.context = 100
    answers = [talk.ask(question, ignore) for question in tiny.QUESTIONS[:8]]
    assert answers[0].forgotten == 0
    assert sum(answer.forgotten for answer in answers) == talk.first // 2 > 0
    seen = talk.messages[talk.first : -1]
    assert len(speaker.chat.prompt(seen)) + GREEDY.max_new_tokens <= 100
    # No more than is necessary is forgotten, and what was said stays for /save.
    assert len(speaker.chat.prompt(talk.messages[talk.first - 2 : -1])) + GREEDY.max_new_tokens > 100
    assert len(talk.messages) == 16


def test_a_reply_never_grows_beyond_the_context(speaker):
    talk = Conversation(speaker, Sampling(max_new_tokens=1000))
    prompt = speaker.chat.prompt([{"role": "user", "content": tiny.QUESTIONS[0]}])
    talk.context = len(prompt) + 3
    text = talk.ask(tiny.QUESTIONS[0], ignore).text
    assert tiny.REPLIES[0].startswith(text)
    assert len(speaker.chat.tokenizer(text)["input_ids"]) <= 3


@pytest.mark.parametrize("length", [200, 100_000])
def test_a_question_that_does_not_fit_is_refused_and_changes_nothing(speaker, length):
    talk = Conversation(speaker, GREEDY)
    talk.ask(tiny.QUESTIONS[0], ignore)
    talk.context = 100
    with pytest.raises(ValueError, match="shorten it"):
        talk.ask("正義とは" * length, ignore)
    assert len(talk.messages) == 2
    assert talk.ask(tiny.QUESTIONS[1], ignore).text


@pytest.mark.parametrize("text", ["a\0b", "a\udc80b"])
def test_what_is_no_text_is_refused(speaker, text):
    with pytest.raises(ValueError, match="the question holds"):
        Conversation(speaker, GREEDY).ask(text, ignore)


def test_an_empty_reply_is_not_remembered(speaker):
    silent = dataclasses.replace(speaker, chat=tiny.talker()[1])
    silent.chat.stop_ids = list(range(400))
    talk = Conversation(silent, GREEDY)
    assert talk.ask(tiny.QUESTIONS[0], ignore).text == ""
    assert talk.messages == []


def test_the_base_answers_the_same_question_and_is_not_remembered(with_adapter):
    talk = Conversation(with_adapter, GREEDY)
    talk.messages = [*tiny.dialogue(1)[:2], *tiny.dialogue(0)[:2]]
    said = list(talk.messages)
    with with_adapter.model.disable_adapter():
        (alone,) = generate(with_adapter.model, with_adapter.chat, [said[:-1]], GREEDY, 1)
    (adapted,) = generate(with_adapter.model, with_adapter.chat, [said[:-1]], GREEDY, 1)
    assert alone.text != adapted.text
    assert talk.ask_base(ignore) == alone.text.replace("\ufffd", "").strip()
    assert talk.messages == said
    # The adapter is back.
    assert generate(with_adapter.model, with_adapter.chat, [said[:-1]], GREEDY, 1) == [adapted]


def test_the_adapter_is_back_after_an_interruption(with_adapter):
    with pytest.raises(KeyboardInterrupt), base_alone(with_adapter.model):
        raise KeyboardInterrupt
    assert not with_adapter.model.base_model.model.model.layers[0].self_attn.q_proj.disable_adapters


def test_ctrl_c_while_the_adapter_comes_back_leaves_no_half_of_it(with_adapter, ctrl_c, monkeypatch):
    talk, model = Conversation(with_adapter, GREEDY), with_adapter.model
    expected = talk.ask(tiny.QUESTIONS[0], ignore).text
    layer = model.base_model.model.model.layers[1].self_attn.q_proj

    def pressed(enabled, switch=layer.enable_adapters):
        if enabled:
            # No second time: what is asked next is nobody's to interrupt.
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)
        switch(enabled)

    with pytest.raises(KeyboardInterrupt), base_alone(model):
        monkeypatch.setattr(layer, "enable_adapters", pressed)
    assert model.get_model_status().enabled == "irregular"
    alone = talk.ask_base(ignore)
    talk.reset()
    assert talk.ask(tiny.QUESTIONS[0], ignore).text == expected != alone
    monkeypatch.setattr(layer, "enable_adapters", pressed)
    with pytest.raises(KeyboardInterrupt):
        talk.ask_base(ignore)
    talk.reset()
    assert talk.ask(tiny.QUESTIONS[0], ignore).text == expected


def test_a_base_without_adapter_is_compared_with_nothing(speaker):
    talk = Conversation(speaker, GREEDY)
    with pytest.raises(ValueError, match="nothing was said yet"):
        talk.ask_base(ignore)
    talk.ask(tiny.QUESTIONS[0], ignore)
    with pytest.raises(ValueError, match="this is the base itself"):
        talk.ask_base(ignore)


def test_trained_biases_are_no_base_to_compare_with(bases):
    base, config = tiny.quantized(bases["neox"], lora__bias="all")
    with pytest.raises(ValueError, match="trained the base's biases"), base_alone(attach_adapter(base, config)):
        pass


def test_a_saved_conversation_is_a_dialogue_to_train_on(speaker, tmp_path):
    talk = Conversation(speaker, GREEDY)
    for question in tiny.QUESTIONS[:2]:
        talk.ask(question, ignore)
    talk.save(tmp_path / "said.jsonl")
    found = scan_dialogues(str(tmp_path / "said.jsonl"))
    assert found.skipped == []
    assert list(found.dialogues[0].messages) == talk.messages


def test_saving_never_overwrites_and_says_what_is_wrong(speaker, tmp_path):
    talk, file = Conversation(speaker, GREEDY), tmp_path / "said.jsonl"
    with pytest.raises(ValueError, match="nothing to save"):
        talk.save(file)
    talk.ask(tiny.QUESTIONS[0], ignore)
    file.write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        talk.save(file)
    assert file.read_text() == "mine"
    for wrong in (tmp_path / "nowhere" / "said.jsonl", tmp_path / "a\0b", tmp_path):
        with pytest.raises(ValueError) as caught:
            talk.save(wrong)
        assert "\n" not in str(caught.value)
    assert file.read_text() == "mine"


def test_reset_forgets_everything(speaker):
    talk = Conversation(speaker, GREEDY)
    talk.ask(tiny.QUESTIONS[0], ignore)
    talk.reset()
    assert (talk.messages, talk.first) == ([], 0)


def test_the_first_interrupt_ends_the_reply_and_the_second_interrupts(speaker):
    before, stop, pieces = signal.getsignal(signal.SIGINT), StopOnInterrupt(), []

    def press(piece):
        pieces.append(piece)
        if len(pieces) == 1:
            signal.raise_signal(signal.SIGINT)

    with stop:
        text = Conversation(speaker, GREEDY).ask(tiny.QUESTIONS[0], press, StoppingCriteriaList([stop])).text
    assert stop.asked
    assert len(pieces) <= 2
    assert text == "".join(pieces) != tiny.REPLIES[0]
    with pytest.raises(KeyboardInterrupt), stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_things_are_put_back_does_not_stay_in_force(ctrl_c, monkeypatch):
    before, stop, restore = signal.getsignal(signal.SIGINT), StopOnInterrupt(), signal.signal

    def pressed(number, handler):
        monkeypatch.undo()
        signal.raise_signal(number)
        return restore(number, handler)

    with pytest.raises(KeyboardInterrupt), stop:
        stop.asked = True
        monkeypatch.setattr(signal, "signal", pressed)
    with stop:
        assert not stop.asked
    assert signal.getsignal(signal.SIGINT) is before


def test_the_context_is_what_the_configuration_says(speaker, with_adapter):
    assert context_tokens(speaker.model) == context_tokens(with_adapter.model) == 512
