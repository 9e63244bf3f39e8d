"""`socratic-mlflow chat` behind a pipe: a question a line, a reply a line; and what it is given."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pipes import piped

import pytest
import tiny

from socratic_mlflow import cli
from socratic_mlflow.chat_command import Talk, told
from socratic_mlflow.chat_screen import Pipe, Terminal, printable
from socratic_mlflow.conversation import Conversation
from socratic_mlflow.dialogues import scan_dialogues
from socratic_mlflow.evaluation import Sampling
from socratic_mlflow.named_model import load
from socratic_mlflow.socratic import SOCRATIC

QUESTIONS = tiny.QUESTIONS[:3]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder of a base that answers `tiny.dialogue` by heart."""
    folder = tmp_path_factory.mktemp("taught")
    model, chat = tiny.talker()
    model.save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)
    return folder


def base(folder, *more):
    return ["chat", "base", "--preset", "embedded", "--base_model", str(folder), *map(str, more)]


def test_through_a_pipe_a_question_a_line_is_a_reply_a_line(taught, tmp_path):
    lines = [QUESTIONS[0], "", "  ", "/style", QUESTIONS[1], "/reset", QUESTIONS[2], "/save"]
    done = subprocess.run(
        [sys.executable, "-m", "socratic_mlflow", *base(taught)],
        cwd=tmp_path,
        input="\n".join(lines).encode(),
        capture_output=True,
        check=False,
    )
    named = load("base", {"run.preset": "embedded", "model.base_model": str(taught)})
    talk = Conversation(named, Sampling())
    expected = [talk.ask(question, str).text for question in QUESTIONS[:2]]
    talk.reset()
    expected.append(talk.ask(QUESTIONS[2], str).text)
    assert done.returncode == 0
    assert done.stdout.decode().split("\n") == [*expected, ""]
    notes = done.stderr.decode()
    assert "(from 0 to 1, profile socratic)" in notes
    assert "> " not in notes
    (saved,) = tmp_path.iterdir()
    assert f"saved 2 messages to {saved.name}" in notes
    assert list(scan_dialogues(str(saved)).dialogues[0].messages) == talk.messages


def test_a_reader_who_leaves_early_is_no_error(taught, tmp_path):
    questions = "".join(f"{question}\n" for question in tiny.QUESTIONS)
    command = " ".join([sys.executable, "-m", "socratic_mlflow", *base(taught)])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1"],
        cwd=tmp_path,
        input=questions.encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1


def test_without_standard_output_nothing_is_asked(monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "stdout", None)
        cli.main(["chat", "base"])
    assert stopped.value.code == 2
    assert "there is nowhere to write replies" in capsys.readouterr().err


def test_line_breaks_in_a_reply_do_not_break_its_line():
    for text, line in (("一\n\n 二\u2028三\r\n", "一 二 三 "), ("\x1b[2Jx", "\\x1b[2Jx")):
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            Pipe().reply(text)
        assert out.getvalue() == f"{line}\n"


def test_a_question_without_reply_keeps_its_line_and_is_told(taught):
    code, replies, notes = piped(base(taught), f"{'長い。' * 4000}\n{QUESTIONS[0]}\n")
    assert code == 1
    assert replies == ["", tiny.REPLIES[0]]
    assert notes.count("\n") == 1
    assert "shorten it" in notes


def test_a_line_that_is_no_command_to_the_letter_is_a_question(taught):
    lines = ["/usr/bin とは何ですか？", "/reset now", "/help me", QUESTIONS[0]]
    code, replies, notes = piped(base(taught), "\n".join(lines))
    talk = Conversation(load("base", {"run.preset": "embedded", "model.base_model": str(taught)}), Sampling())
    assert (code, replies) == (0, [talk.ask(line, str).text for line in lines])
    assert notes.split("\n")[:-1] == [f"({line!r} is no command, so it is asked)" for line in lines[:3]]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([QUESTIONS[0], "/save there.jsonl"], "there.jsonl: exists already"),
        (["/save new.jsonl", QUESTIONS[0]], "nothing to save"),
        ([QUESTIONS[0], "/compare"], "this is the base itself"),
        (["/style", QUESTIONS[0]], "nothing was said yet"),
    ],
)
def test_a_command_that_fails_behind_a_pipe_is_told_at_the_end(taught, tmp_path, monkeypatch, lines, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("mine")
    code, replies, notes = piped(base(taught), "\n".join(lines))
    assert (code, replies, notes.count("\n")) == (1, [tiny.REPLIES[0]], 1)
    assert words in notes
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_input_that_is_no_text_ends_with_its_line(taught):
    code, replies, notes = piped(base(taught), f"{QUESTIONS[0]}\n".encode() + b"\xff\xfe\n")
    assert code == 2
    assert replies == [tiny.REPLIES[0]]
    assert notes == "socratic-mlflow: error: standard input:2: not UTF-8 text (byte 0 of the line)\n"


def test_a_byte_order_mark_is_no_part_of_the_question(taught):
    code, replies, _ = piped(base(taught), b"\xef\xbb\xbf" + f"{QUESTIONS[0]}\n".encode())
    assert (code, replies) == (0, [tiny.REPLIES[0]])


def test_quit_ends_and_the_rest_is_not_read(taught):
    assert piped(base(taught), f"{QUESTIONS[0]}\n/quit\n{QUESTIONS[1]}\n")[:2] == (0, [tiny.REPLIES[0]])


class Impatient(Terminal):
    """Somebody who presses Ctrl-C twice at the first words that appear."""

    def __init__(self, lines):
        self.said, self._lines = [], iter([*lines, None])

    def line(self):
        return next(self._lines)

    def piece(self, text):
        self.said.append(text)
        if len(self.said) == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_drops_the_reply_at_once_and_nothing_else(taught):
    named = load("base", {"run.preset": "embedded", "model.base_model": str(taught)})
    talk, person = Conversation(named, Sampling()), Impatient(QUESTIONS[:2])
    assert Talk(talk, named, {}, person).run() == 0
    assert [message["content"] for message in talk.messages] == [QUESTIONS[1], "".join(person.said[1:])]


def test_the_same_seed_draws_the_same_replies(taught):
    asked = "".join(f"{question}\n" for question in QUESTIONS)
    drawn = [piped(base(taught, "--temperature", 2, "--seed", seed), asked)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # Almost nothing is nothing: it would overflow.
    assert piped(base(taught, "--temperature", 1e-300, "--seed", 7), asked)[1] == piped(base(taught), asked)[1]


def test_replies_are_as_short_as_one_wants(taught):
    _, (whole,), _ = piped(base(taught), QUESTIONS[0])
    _, (short,), _ = piped(base(taught, "--max_new_tokens", 3), QUESTIONS[0])
    assert whole.startswith(short)
    assert len(short) < len(whole)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "2.1"], "--temperature: it is '2.1'; it takes a number from 0 to 2"),
        (["--temperature", "-1"], "it takes a number from 0 to 2"),
        (["--temperature", "nan"], "it takes a number from 0 to 2"),
        (["--temperature", "hot"], "it takes a number from 0 to 2"),
        (["--top_p", "0"], "--top_p: it is '0'; it takes a number from 0.01 to 1"),
        (["--top_p", "１"], "it takes a number from 0.01 to 1"),
        (["--seed", "-1"], "--seed: it is '-1'; it takes a whole number from 0 to 4294967295"),
        (["--seed", "1.5"], "it takes a whole number"),
        (["--max_new_tokens", "0"], "evaluation.max_new_tokens is 0; allowed: "),
        (["--style_profile", "nowhere.yaml"], "nowhere.yaml"),
        (["no/such/folder"], "no/such/folder: no adapter folder"),
        (["models:/"], "names no model"),
        (["models:/nobody/1", "--base_model", "x"], "model.base_model has no effect here: models:/nobody/1 has its own"),
        (["a", "b"], "unexpected argument 'b'"),
    ],
)
def test_a_mistake_is_one_line(sqlite_store, arguments, words):
    code, replies, notes = piped(["chat", *arguments], "")
    assert (code, replies, notes.count("\n")) == (2, [], 1)
    assert notes.startswith("socratic-mlflow: error: ")
    assert words in notes


def test_the_scores_are_told_with_their_reasons():
    text = told("では、君は正義について何を考えているのかね？なるほど。", SOCRATIC)
    first, *rest = text.split("\n")
    assert first.startswith("style 0.")
    assert sum(line.startswith("  ") for line in rest) == len(rest) == 3
    assert "のかね" in text
    assert told("", SOCRATIC).count("\n") == 0


def test_a_reply_cannot_steer_the_terminal():
    assert printable("君\x1b[31m\x07\x9b\u202e\r!\n\t　👩‍👧") == "君\\x1b[31m\\x07\\x9b\\u202e\\r!\n\t　👩‍👧"


def test_help_imports_nothing_heavy_and_has_examples(tmp_path):
    program = (
        "import sys; from socratic_mlflow.cli import build_parser; build_parser().parse_args(['chat']);"
        "print([name for name in ('torch', 'mlflow', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    shown = subprocess.run(
        [sys.executable, "-m", "socratic_mlflow", "chat", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "socratic-mlflow chat < questions.txt > replies.txt" in shown
