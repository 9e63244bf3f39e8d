"""Both scores on any text: the way it is written makes no difference, nothing breaks them, and nothing stalls them."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from socratic_mlflow.style import explain, normalize, sentences, socratic_style, socratic_tone

REPLIES = [
    "なるほど。では、君は約束を守ることこそ勇気だと言うのかね？",
    "それは面白い。だが、勇気のない人にも約束は守れるのではないだろうか。",
    "友とは何かを、まだ誰も言っていない。",
    "ご質問ありがとうございます。\n友達は大切な存在です。",
    "「君の父上なら、何と答えるかね？」",
    "ああ、そうだね。君自身はどう思うのかな？\n\n# 考えてみてくれ",
    "まず朝に走る。\\nそれから本を読む。 good luck",
]


def width(text: str) -> str:
    """`text` with its ASCII in full width."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


# Writings that no text, however odd, may be scored differently for.
INVARIANCES: dict[str, Callable[[str], str]] = {
    "full width": width,
    "NFC": lambda text: unicodedata.normalize("NFC", text),
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "NFKC": lambda text: unicodedata.normalize("NFKC", text),
    "NFKD": lambda text: unicodedata.normalize("NFKD", text),
    "carriage returns and line feeds": lambda text: text.replace("\n", "\r\n"),
    "carriage returns": lambda text: text.replace("\n", "\r"),
    "line separators": lambda text: text.replace("\n", "\u2028"),
    "empty lines": lambda text: text.replace("\n", "\n\n"),
    "invisible characters": lambda text: "\u200b\u202e\ufeff\u00ad\ufe0f\U000e0100".join(text),
    "space around": lambda text: f"\n\u3000 {text} \t\n",
}
# And more that hold for ordinary text.
SAME_ON_REPLIES: dict[str, Callable[[str], str]] = {
    "several marks": lambda text: text.replace("？", "？！？").replace("。", "。。。"),
    "emoji marks": lambda text: text.replace("？", "❓").replace("。", "❗"),
    "half-width marks": lambda text: text.replace("。", "｡").replace("、", "､").replace("「", "｢").replace("」", "｣"),
    "no last mark": lambda text: text.rstrip("。？"),
    "inner quotes": lambda text: text.replace("友", "『友』"),
    "other inner quotes": lambda text: text.replace("友", "“友”"),
    "lines for marks": lambda text: text.replace("。", "\n"),
}

PARTS = """
    君は 君、 では それでは のかね かね だろうか かな です ますか ではない 諸君 なるほど 友 が ー っ ？ 。 」
    「 『 』 ' \\ n ¥ # ** { < ok 、 ﾞ が
"""
ODD = ["\n", "\r", " ", "\u0301", "\u3099", "\ud800", "\x00", "\u2028"]
ANY = st.text(st.characters(codec="utf-8", exclude_characters="\ufdfa\ufdfb"))
TEXTS = st.one_of(
    ANY, st.lists(st.sampled_from([*PARTS.split(), *ODD]), max_size=40).map("".join), st.sampled_from(REPLIES)
)


@pytest.mark.parametrize("change", [*INVARIANCES, *SAME_ON_REPLIES])
def test_the_writing_makes_no_difference_to_replies(change: str) -> None:
    changes = INVARIANCES | SAME_ON_REPLIES
    assert any(changes[change](reply) != reply for reply in REPLIES) or change in ("NFC", "NFKC")
    for reply in REPLIES:
        assert socratic_style(changes[change](reply)) == socratic_style(reply), reply
        assert socratic_tone(changes[change](reply)) == socratic_tone(reply), reply


@settings(deadline=None)
@given(TEXTS, st.sampled_from(sorted(INVARIANCES)))
def test_the_writing_makes_no_difference_to_any_text(text: str, change: str) -> None:
    changed = INVARIANCES[change](text)
    assert sentences(changed) == sentences(text)
    assert socratic_style(changed) == socratic_style(text)
    assert socratic_tone(changed) == socratic_tone(text)


@settings(deadline=None)
@given(TEXTS)
def test_any_text_has_a_tone_within_the_bounds(text: str) -> None:
    assert 0.0 <= socratic_tone(text) <= 1.0


@pytest.mark.parametrize("text", ["", " ", "。", "？！", "「」", "😊", "\\n", "**", "{{}}", "\u0301", "\x00"])
def test_without_a_sentence_there_is_no_tone(text: str) -> None:
    assert socratic_tone(text) == 0.0
    assert explain(text).tone_found == ()


def test_no_character_grows_beyond_a_squared_word() -> None:
    assert normalize("㌖") == "キロメートル"
    assert max(len(normalize(chr(number))) for number in range(0x10000)) == 6


@pytest.mark.parametrize("phrase", ["\ufdfa", "\ufdfb"])
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_phrase_in_one_character_scores_as_its_letters(phrase: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    text = f"君は{phrase}と言うのかね？{phrase}。"
    written = unicodedata.normalize(form, text)
    assert len(sentences(text)) == 2
    assert (socratic_style(text), socratic_tone(text)) == (socratic_style(written), socratic_tone(written))


RAISING = """
    友は宝かね？ 友は宝なのかね？ それは本当だろうか。 なぜ人は眠るのか。 彼は来るかな。 君の声が聞こえる。
    では、始めよう。 では、君は友が宝だと言うのかね？
"""


@settings(deadline=None)
@given(TEXTS, st.sampled_from(RAISING.split()))
def test_what_raises_the_tone_lowers_it_nowhere(text: str, raising: str) -> None:
    assert socratic_tone(f"{text}\n{raising}") >= socratic_tone(text)


@settings(deadline=None)
@given(TEXTS)
def test_an_opening_lowers_the_tone_nowhere(text: str) -> None:
    assert socratic_tone(f"なるほど。\n{text}") >= socratic_tone(text)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["友は宝です。", "本を読みます。", "**", "{", "<b>", "okay", "よし\\n"]))
def test_what_lowers_the_tone_raises_it_nowhere(text: str, lowering: str) -> None:
    found = {part.name for part in explain(text).tone_found}
    # Without a sentence there was no tone; behind closed quotes nothing is around the whole reply any more.
    assume(found and "outer_quotes" not in found)
    assert socratic_tone(f"{text}\n{lowering}") <= socratic_tone(text)


def test_the_scores_need_the_standard_library_alone() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "from socratic_mlflow.style import explain, socratic_style, socratic_tone\n"
        "print(socratic_style('友は宝かね？'), socratic_tone('友は宝かね？') == explain('友は宝かね？').tone)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-X", "utf8", "-c", program], capture_output=True, check=True)
    assert found.stdout.decode().splitlines() == ["0.6 True", "['socratic_mlflow']"]


# A megabyte of each. What takes time beyond the text's length would take hours on one of them.
HOSTILE = r"""
    "かね" "か" "かねー" "ー" "っ" "君" "諸君" "だます" "ます" "、では" "では、" "だろう" "のか"
    "「" '"' "(" "\\" "¥" "\\n" "." ".1" "1." "。" "あ。" "\n" "#\n" "{" "<" "_" "A" "aA" "w"
    "\u0301\u0327" "\u0f73" "\u0f73\u0f81" "\uff9e\u0301" "か\u3099" "\u1100\u1161" "😊" "😊。" "\u200b" "\ud83d" "\0"
    "\ufdfa" "㌖" "か\u200b" "か\ufe0f"
"""
PROGRAM = f"""
import ast, resource
from socratic_mlflow.style import socratic_style, socratic_tone
resource.setrlimit(resource.RLIMIT_CPU, (500, 500))
parts = [ast.literal_eval(part) for part in {HOSTILE!r}.split()]
texts = [part * (1_000_000 // len(part.encode("utf-8", "surrogatepass"))) for part in parts]
half = 150_000
texts += ["「" * half + "」" * half, "、" * half + "x" + "、" * half]
# As many different marks around the words as there are, and then one of them many times.
texts += ["".join(map(chr, range(0xE000, 0xF8FF))) + chr(0xE000) * half]
for text in texts:
    print(ascii(text[:5]), 0.0 <= socratic_style(text) <= 1.0 and 0.0 <= socratic_tone(text) <= 1.0, flush=True)
print(len(texts), "texts")
"""


def test_a_megabyte_of_anything_is_scored() -> None:
    # In a process with a limit on its CPU time, far above what it needs: quadratic time fails and does not hang.
    found = subprocess.run([sys.executable, "-X", "utf8", "-c", PROGRAM], capture_output=True)
    assert found.returncode == 0, f"{found.stdout[-300:]!r} {found.stderr[-300:]!r}"
    *scored, end = found.stdout.decode().splitlines()
    assert end == f"{len(scored)} texts"
    assert len(scored) > 40
    assert all(line.endswith(" True") for line in scored)
