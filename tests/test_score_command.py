"""`socratic-mlflow score` as real processes, in real terminals where that matters."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gzip
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socratic_mlflow.cli import main
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import explain, normalize
from socratic_mlflow.style_profile import Feature, StyleProfile, to_yaml

COMMAND = (sys.executable, "-m", "socratic_mlflow", "score")
REPLY = "それは大切な問いだ。では、君は正義について何を考えているのかね？正義は大切です。"
DIALOGUE = {"messages": [{"role": "user", "content": "徳とは？"}, {"role": "model", "content": REPLY}]}
TWO = {"messages": [*DIALOGUE["messages"], {"role": "user", "content": "さあ"}, {"role": "assistant", "content": "ふむ。"}]}
UNSET = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONIOENCODING")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return kept | {"PYTHONUTF8": "1", "TERM": "xterm-256color"} | more


def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> tuple[int, str, str]:
    """(exit code, standard output, standard error); fails where one of them is no UTF-8."""
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, input=stdin, cwd=cwd, env=environment(), capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def in_terminal(*arguments: str, columns: int = 80, more: Mapping[str, str] = {}) -> tuple[int, str]:
    """(exit code, what a terminal of that width is sent), standard input being the terminal as well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**more))
    os.close(theirs)
    sent = b""
    # Linux ends a terminal that no one holds any more with EIO.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            sent += part
    os.close(ours)
    return process.wait(60), sent.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def as_json(text: str, profile: StyleProfile = SOCRATIC) -> dict[str, Any]:
    found = json.loads(json.dumps(dataclasses.asdict(explain(text, profile))))
    return dict(found) | {"profile": profile.name}


def test_one_reply_shows_both_scores_each_sentence_and_the_sum() -> None:
    code, out, err = run(REPLY)
    assert (code, err) == (0, "")
    found = explain(REPLY)
    assert out.splitlines()[0] == f"style {found.style:.3f}  tone {found.tone:.3f}  (from 0 to 1, profile socratic)"
    shown = [line.split() for line in out.splitlines()]
    assert ["1.000", "では、君は正義について何を考えているのかね", "+0.600", "question", "かね"] in shown
    assert f"{found.style:.3f} mean of 3 sentences".split() in shown
    assert all([f"{value:.3f}", name] in shown for value, name in ((found.tone_base, "base"), (found.tone, "sum")))
    for part in found.tone_found:
        assert [f"{part.weight:+.3f}", part.name, part.evidence] in [line[:3] for line in shown]
    assert "\x1b" not in out
    assert not re.search(r" $", out, re.MULTILINE)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + REPLY.encode() + b"\r\n", gzip.compress(REPLY.encode())])
def test_a_file_is_one_reply(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "reply.txt").write_bytes(data)
    code, out, err = run("--json", "--file", "reply.txt", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert json.loads(out) == as_json(REPLY)


@pytest.mark.parametrize("text", [f"\ufeff{REPLY}\nでは\n", "{壊れた", "[1]。", '"引用"\nと言った。', '{"a": 1}\nfoo'])
def test_standard_input_is_one_reply_where_it_is_no_jsonl(text: str) -> None:
    code, out, err = run("--json", stdin=text.encode())
    assert (code, err) == (0, "")
    assert json.loads(out) == as_json(text.removeprefix("\ufeff"))


JSONL = [
    (REPLY, [REPLY]),
    ({"reply": REPLY, "text": "x"}, [REPLY]),
    ({"text": REPLY, "n": 1}, [REPLY]),
    ({"content": "a\u2028\x85b"}, ["a\u2028\x85b"]),
    ({"reply": ""}, [""]),
    ({"reply": "\udcff"}, ["\udcff"]),
    (DIALOGUE, [REPLY]),
    (TWO, [REPLY, "ふむ。"]),
]


@pytest.mark.parametrize("name", ["-", "r.jsonl", "R.JSONL.GZ"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_jsonl_gives_one_object_a_reply(tmp_path: Path, name: str, ascii_only: bool) -> None:
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value, _ in JSONL]
    data = "\n \r\n".join(line.replace("\udcff", "\\udcff") for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("GZ") else data)
    code, out, err = run("--file", name, "--json", stdin=data, cwd=tmp_path)
    assert (code, err) == (0, "")
    places = [f"line {number}" for number in range(1, 15, 2)] + ["line 15, reply 1", "line 15, reply 2"]
    replies = [reply for _, found in JSONL for reply in found]
    wanted = [as_json(reply) | {"place": place} for reply, place in zip(replies, places, strict=True)]
    assert [json.loads(row) for row in out.splitlines()] == wanted


def test_several_replies_are_a_row_each_and_the_means() -> None:
    code, out, err = run(stdin="\n".join(json.dumps(value) for value, _ in JSONL).encode())
    assert (code, err) == (0, "")
    found = [explain(reply) for _, replies in JSONL for reply in replies]
    header, *rows, last = out.splitlines()
    assert header.split() == ["style", "tone", "reply"]
    assert [row.split()[:2] for row in rows] == [[f"{one.style:.3f}", f"{one.tone:.3f}"] for one in found]
    assert [row[14:18] for row in rows] == ["それは大"] * 3 + ["a b", "", "\\udc", "それは大", "それは大", "ふむ。"]
    assert max(map(cells, rows)) <= 80
    means = [sum(getattr(one, name) for one in found) / 9 for name in ("style", "tone")]
    assert last == f"{means[0]:.3f}  {means[1]:.3f}  mean of 9 replies"


MISTAKES: list[tuple[tuple[str, ...], bytes, str]] = [
    (("",), b"", "TEXT: empty"),
    (("a", "--file", "in"), b"a", "argument --file: not allowed with argument TEXT"),
    ((), b"", "standard input: empty"),
    ((), REPLY.encode("shift_jis"), "standard input: not UTF-8 text (byte "),
    (("--file", "in"), REPLY.encode("utf-16"), "in:1: not UTF-8 text (byte 0)"),
    (("--file", "nowhere"), b"", "nowhere: cannot be read (No such file or directory)"),
    (("--file", "."), b"", ".: cannot be read (Is a directory)"),
    (("--file", "list.json"), b"[]", "list.json: not read as JSON; give JSONL"),
    *(((), data, "standard input: not read as JSON; give JSONL") for data in (b"[1]", b'{\n"text": "a"}')),
    (("--file", "in.jsonl"), b"\n \n", "in.jsonl: empty"),
    (("--file", "in.jsonl"), b'"a"\n\n{"a', "in.jsonl:3: malformed JSON (column 2); expected a JSON string, or an object"),
    (("--file", "in.jsonl"), b"[" * 100000, "in.jsonl:1: "),
    (("--file", "in.jsonl"), b'"a"\n[]', "in.jsonl:2: neither an object nor a string; expected"),
    (("--file", "in.jsonl"), b'{"reply": null, "text": "a"}', "in.jsonl:1: reply is no text; expected"),
    (("--file", "in.jsonl"), b'{"messages": [1]}', "in.jsonl:1: messages is no list of objects"),
    (("--file", "in.jsonl"), b'{"messages": []}', "in.jsonl:1: messages has no reply of role model or assistant"),
    (("--file", "in.jsonl"), b'{"messages": [{"role": "model"}]}', "in.jsonl:1: a reply in messages has no text"),
    ((), b'{"text": "a"}\n{"te', "standard input:2: malformed JSON (column 2)"),
    ((), b'{"a": 1}\n{"b": 2}', "standard input:1: an object without a reply"),
    (("a", "--profile", "nowhere"), b"", "style_profile nowhere: cannot be read (No such file or directory); give"),
    (("a", "--profile", "in"), b"name: x\n", "in:1: a profile needs the field 'style'"),
]


@pytest.mark.parametrize(("arguments", "data", "words"), MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: tuple[str, ...], data: bytes, words: str) -> None:
    for name in ("in", "in.jsonl"):
        (tmp_path / name).write_bytes(data)
    code, out, err = run(*arguments, stdin=data, cwd=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"socratic-mlflow: error: {words}")


def test_a_terminal_is_not_waited_for() -> None:
    code, sent = in_terminal()
    assert (code, sent.count("\n")) == (2, 1)
    assert sent.startswith("socratic-mlflow: error: nothing to score; give TEXT")


@pytest.mark.parametrize("columns", [40, 71, 72, 120])
def test_a_terminal_shows_colors_and_columns_that_line_up(columns: int) -> None:
    code, sent = in_terminal(REPLY + "これは`markup`です。" + "あ" * 5000 + "かね", columns=columns)
    assert code == 0
    assert "\x1b[32m+0.600\x1b[0m" in sent
    assert re.search(r"\x1b\[31m-0\.\d{3}\x1b\[0m", sent)
    rows = plain(sent).split("\n")
    assert max(map(cells, rows)) <= columns
    # The end of a long sentence, where a question is one, is shown too; its middle is not.
    joined = re.sub(r"\+0\.600 question +かね|\s", "", plain(sent))
    assert re.search("あ{120}…あ{118}かね", joined)
    # Weights begin in one column; the sentence to their left is East Asian, and so wide, or there is none.
    weights = [row.partition(" +0.") for row in rows[: rows.index("", 4)]]
    assert len({cells(before) for before, found, _ in weights if found}) == 1


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_color_is_sent_no_escape_sequence(more: dict[str, str]) -> None:
    for arguments in ((REPLY,), ("--file", "bundled")):
        code, sent = in_terminal(*arguments, more=more)
        assert (code, "\x1b" in sent) == (0, False)


@pytest.mark.parametrize("evil", ["\x1b[31m", "\x1b]0;a\x07", "\x9b2J", "\0", "\x7f", "\u202e", "\ud800", "\U000e0041"])
def test_what_could_steer_a_terminal_arrives_escaped(tmp_path: Path, evil: str) -> None:
    text, file = f"君は{evil}[bold]何[/bold]かね", tmp_path / "evil.jsonl"
    # Sentences are shown as they were scored, without what is invisible.
    for count, shown in enumerate((normalize(evil), evil), 1):
        file.write_text(f"{json.dumps(text)}\n" * count, encoding="utf-8")
        code, sent = in_terminal("--file", str(file), columns=100)
        escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
        assert (code, f"君は{escaped}[bold]何[/bold]かね" in plain(sent)) == (0, True)
        out = run("--file", str(file), "--json")[1]
        assert all(char.isprintable() for char in plain(sent) + out if char != "\n")
        assert json.loads(out.splitlines()[0]) == as_json(text) | {"place": "line 1"}


@settings(deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=()), min_size=1).filter(str.strip))
def test_any_text_is_scored_and_printed_in_printable_characters(text: str) -> None:
    for arguments in (["--json"], []):
        written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(written):
            assert main(["score", *arguments, "--", text]) == 0
        shown = written.buffer.getvalue().decode()
        assert all(char.isprintable() for char in shown if char != "\n")
        assert not arguments or json.loads(shown) == as_json(text)


def test_what_is_not_all_shown_says_so() -> None:
    out = run(stdin=("そうかね。" * 300).encode())[1]
    assert out.count("そうかね") == 200
    assert "mean of 300 sentences, the first 200 shown (--json has all)" in " ".join(out.split())
    assert "No sentence in it, so both scores are 0." in run("。。。")[1]


@pytest.mark.parametrize(("weight", "words"), [(1.0, "1.000  sum, at most 1"), (-1.0, "0.000  sum, at least 0")])
def test_a_profile_of_ones_own(tmp_path: Path, weight: float, words: str) -> None:
    style, tone = Feature("b", 0.5, "b", ends=("かね",)), Feature("all", weight, "what it is", contains=("君",))
    mine = StyleProfile("mine", (style,), (tone,), tone_base=0.5, what="mine")
    (tmp_path / "mine.yaml").write_text(to_yaml(mine), encoding="utf-8")
    assert json.loads(run("--json", "--profile", "mine.yaml", REPLY, cwd=tmp_path)[1]) == as_json(REPLY, mine)
    code, out, err = run("--profile", "mine.yaml", REPLY, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert all(some in out for some in (words, "profile mine", "what it is"))


@pytest.mark.parametrize(("arguments", "loaded"), [("--json", []), ("", ["rich"]), ("--json --profile gozaru", ["yaml"])])
def test_it_loads_no_more_than_it_needs(arguments: str, loaded: list[str]) -> None:
    heavy = ("torch", "numpy", "mlflow", "transformers", "pandas", "yaml", "rich")
    program = (
        f"import sys; from socratic_mlflow.cli import main; main({['score', REPLY, *arguments.split()]!r}); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), check=True)
    assert repr(loaded) in done.stdout.decode().splitlines()


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_reader_who_stops_early_ends_it_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "many.jsonl").write_text(f"{json.dumps(REPLY)}\n" * 3000, encoding="utf-8")
    command = [*COMMAND, "--file", str(tmp_path / "many.jsonl"), *arguments]
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert (tmp_path / "errors").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, REPLY], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"socratic-mlflow: error: standard output: ")


def test_interrupted_while_it_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [*COMMAND, "--file", str(tmp_path / "fifo")]
    # A shell starts what runs in the background deaf to Ctrl-C, these tests perhaps.
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), preexec_fn=hear) as process:
        # Opens when the other side does, which is then where Ctrl-C is to reach it.
        with (tmp_path / "fifo").open("wb"):
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert process.stderr and process.stderr.read() == b"socratic-mlflow: interrupted\n"
