"""`socratic-mlflow chat` on a real terminal: a person who types, presses Ctrl-C, and leaves."""

from __future__ import annotations

import pytest
import tiny
import torch
from terminals import running

from socratic_mlflow.dialogues import scan_dialogues
from socratic_mlflow.tokens import ChatFormat

QUESTIONS = tiny.QUESTIONS[:3]


def on_base(folder):
    """Talk to a base, at length."""
    return ["chat", "base", "--preset", "embedded", "--base_model", str(folder), "--max_new_tokens", "8192"]


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """The folder of a base that never ends its reply, for some thousand tokens at least."""
    folder = tmp_path_factory.mktemp("endless")
    words = tiny.tokenizer()
    chat, learner = ChatFormat(words), tiny.model(vocab_size=len(words))
    said = [{"role": "user", "content": QUESTIONS[0]}, {"role": "model", "content": "それは本当だろうか？" * 40}]
    # Without the end of the turn.
    inputs = {name: cells[:, :-2] for name, cells in tiny.batch(chat, [said]).items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny.learn(learner, inputs, steps=60)
    learner.config.max_position_embeddings = 100_000
    learner.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_person_talks_looks_compares_and_saves(trained, tmp_path):
    adapter = str(trained.output / "best_adapter")
    with running(["chat", adapter, "--max_new_tokens", "12"], tmp_path) as terminal:
        terminal.until(f"You talk to {adapter}. /help lists commands, Ctrl-D leaves.\n> ")
        terminal.type(f"{QUESTIONS[0]}\n")
        terminal.until(f"{QUESTIONS[0]}\n")
        reply = terminal.until("\n> ")
        terminal.type("/style\n")
        terminal.until("style ")
        assert "profile socratic" in terminal.until("\n> ")
        terminal.type("/compare\n")
        terminal.until(f"{adapter}:\n{reply}\nbase:\n")
        assert terminal.until("\nstyle ") != reply
        terminal.until("  base\n> ")
        terminal.type("/save said.jsonl\n")
        terminal.until("saved 2 messages to said.jsonl\n> ")
        terminal.type("/save said.jsonl\n")
        terminal.until("said.jsonl: exists already and is left alone; give another name\n> ")
        terminal.type("/sytle\n")
        terminal.until("unknown command '/sytle'; /help lists them\n> ")
        # Line editing: a word is typed, taken back, and typed again.
        terminal.type("/resex\x7ft\n")
        terminal.until("(a new conversation)\n> ")
        terminal.type("/style\n")
        terminal.until("nothing was said yet\n> ")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    (dialogue,) = scan_dialogues(str(tmp_path / "said.jsonl")).dialogues
    assert [message["content"] for message in dialogue.messages] == [QUESTIONS[0], reply]
    assert [path.name for path in tmp_path.iterdir()] == ["said.jsonl"]


def test_ctrl_c_stops_the_reply_and_never_the_program(endless, tmp_path):
    with running(on_base(endless), tmp_path) as terminal:
        terminal.until("Ctrl-D leaves.\n> ")
        for _ in range(2):
            terminal.type(f"{QUESTIONS[0]}\n")
            terminal.until(f"{QUESTIONS[0]}\n")
            terminal.until("本当")
            terminal.type("\x03")
            terminal.until("(stopped)\n> ")
        terminal.type("half a quest")
        terminal.until("half a quest")
        terminal.press("\x03", "(/quit or Ctrl-D leaves)\n> ")
        terminal.type("\udcff\n")
        terminal.until("the question holds what is no character\n> ")
        # All that was said before is still there.
        terminal.type("/save said.jsonl\n")
        terminal.until("saved 4 messages to said.jsonl\n> ")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.shown


def test_ctrl_c_while_the_model_loads_ends_the_program(endless, tmp_path):
    with running(on_base(endless), tmp_path) as terminal:
        terminal.until("loading base ...")
        terminal.type("\x03")
        terminal.until("socratic-mlflow: interrupted")
        assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.shown
