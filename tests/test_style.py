from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socratic_mlflow.dialogues import read_dialogues
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import sentences, socratic_style

# Marks that may follow an ending without hiding it; full and half width, one and several, quotes, emoji.
CLOSERS = [
    "", "？", "?", "！", "!", "。", ".", "｡", "…", "...", "‥", "・・・", "――", "—", "〜", "~", "、",
    "？！", "!?", "⁉", "‼", "？？？", "。。", "？」", "」", "』", "）", ")", "”", '"', "？』」", "！？」", "。」",
    " ", "\u3000", "？ ", "\n", "？\n\n", "♪", "☆", "😊", "？😊", "❓", "❓\ufe0f", "\u200b", "*", "**", "；", "»",
    "っ", "っ！", "ー", "ーー？", "ぇ", "ｗ", "www", "（笑）", "(笑)", "⋯", "❗", "__", "\u0301", "\\n", "＼ｎ",
]  # fmt: skip

QUESTIONS = [
    "それは何かね",
    "人は何のために学ぶのかね",
    "それこそ勇気ではないかね",
    "本当にそうだろうか",
    "人は変われるのだろうか",
    "誰が決めたのだろうかね",
    "そう思うかねえ",
    "そう思うかねぇ",
    "そう思うかねー",
]

PLAIN = [
    "正義は大切です",
    "そうですか",
    "何ですか",
    "一緒に考えましょう",
    "おはようございます",
    "それは違うよ",
    "どう思いますか",
    "かねてから考えていました",
    "だろうかと考えました",
    "お金がかかる",
    "これは本ではない",
    "これは本ではありません",
    "ここは店ではございません",
    "本、ではないと思います",
    "ではなくて別のことです",
    "ではありませんね",
    "欲しいのはおかね",
    "賛成しかねる",
]


def test_the_documented_examples() -> None:
    assert socratic_style("では、君は正義について何を考えているのかね？") == 1.0
    assert socratic_style("正義は大切です。") == 0.0
    assert socratic_style("") == 0.0


def test_the_documented_weights() -> None:
    weights = {feature.name: feature.weight for feature in SOCRATIC.style}
    assert weights == {"question": 0.6, "address": 0.25, "inquiry": 0.15}


@pytest.mark.parametrize("closer", CLOSERS, ids=ascii)
def test_no_punctuation_hides_a_question(closer: str) -> None:
    assert {text: socratic_style(text + closer) for text in QUESTIONS} == dict.fromkeys(QUESTIONS, 0.6)


@pytest.mark.parametrize("closer", CLOSERS, ids=ascii)
def test_plain_sentences_score_nothing(closer: str) -> None:
    assert {text: socratic_style(text + closer) for text in PLAIN} == dict.fromkeys(PLAIN, 0.0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("君は正しい。", 0.25),
        ("君が決めたまえ。", 0.25),
        ("君の考えを聞こう。", 0.25),
        ("君は君の道を行き、君が決める。", 0.25),
        ("君たちは若い。", 0.0),
        ("君、待ちたまえ。", 0.0),
        ("では、始めよう。", 0.15),
        ("それでは始めよう。", 0.15),
        ("徳について話そう。", 0.15),
        ("では、徳について話そう。", 0.15),
        ("なるほど、では始めよう。", 0.15),
        ("君は徳について話した。", 0.40),
        ("では、そうだろうか？", 0.75),
        ("君の言う徳とは何かね？", 0.85),
        ("君はそう思うのではないかね？", 0.85),
        ("君について聞いているのかね？", 0.75),
    ],
)
def test_each_part_adds_its_own_weight(text: str, score: float) -> None:
    assert socratic_style(text) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("なるほど。君は何を恐れているのかね？", 0.425),
        ("正義は大切です。正義は大切です。それは何かね？", 0.2),
        ("それは何かね？本当だろうか？", 0.6),
        ("それは何かね！？！？本当だろうか…", 0.6),
        ("「それは何かね？」「本当だろうか？」", 0.6),
        ("それは何かね？\n\n正義は大切です。", 0.3),
        ("それは何かね\r\n正義は大切です", 0.3),
        ("それは何かね\u2028正義は大切です", 0.3),
        ("円周率は3.14なのかね？", 0.6),
        ("円周率は３．１４なのかね？", 0.6),
        ("Really. それは何かね?", 0.3),
        ("それは何かね❓正義は大切だ❗", 0.3),
        ("それは何かね\\n正義は大切だ", 0.3),
        ("それは何かね\r正義は大切だ", 0.3),
    ],
)
def test_a_text_scores_the_mean_over_its_sentences(text: str, score: float) -> None:
    assert socratic_style(text) == pytest.approx(score)


@pytest.mark.parametrize("text", ["", " ", "\u3000\n", "。", "？！", "「」", "……", "😊", "---", "\u200b", "*_*"])
def test_text_without_a_sentence_scores_nothing(text: str) -> None:
    assert sentences(text) == []
    assert socratic_style(text) == 0.0


def test_sentences_lose_marks_and_quotes_but_no_words() -> None:
    text = "「なるほど。」では、『徳』とは何かね？！　ﾎﾝﾄｳ だろうか…\n（3.5点）"
    assert sentences(text) == ["なるほど", "では、『徳』とは何かね", "ホントウ だろうか", "3.5点"]


def test_the_order_of_unlike_marks_around_a_sentence_does_not_matter() -> None:
    around = "_*「『（😊\u200b…、"
    assert sentences(f"{around}それは何かね{around[::-1]}") == ["それは何かね"]


def test_half_and_full_width_score_the_same() -> None:
    assert socratic_style("では,君は正義について何を考えているのかね?") == 1.0
    assert socratic_style("では，君は正義について何を考えているのかね？") == 1.0


FRAGMENTS = st.sampled_from(
    ["君は", "君の", "では", "について", "かね", "だろうか", "です", "？", "。", "」", "\n", "\ud800"]
)


@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)))
@example("\ud83d")
@example("\x00")
@example("かね" * 5000)
@example("、" * 20000 + "かね")
def test_any_text_scores_between_nothing_and_one(text: str) -> None:
    score = socratic_style(text)
    assert math.isfinite(score)
    assert 0.0 <= score <= 1.0
    assert score == socratic_style(text)


@given(st.lists(st.sampled_from(QUESTIONS + PLAIN), min_size=1, max_size=8))
def test_the_order_of_sentences_does_not_matter(parts: list[str]) -> None:
    forwards, backwards = "。".join(parts), "？".join(reversed(parts))
    assert socratic_style(forwards) == pytest.approx(socratic_style(backwards))
    assert socratic_style(forwards) == pytest.approx(sum(map(socratic_style, parts)) / len(parts))


def test_real_socratic_replies_score_as_the_issue_says(shared_data: Path) -> None:
    dialogues = read_dialogues(str(shared_data / "dialogues_dev.json")).dialogues
    scores = [socratic_style(dialogue.messages[1]["content"]) for dialogue in dialogues]
    assert 0.3 <= sum(scores) / len(scores) <= 0.5
    answers = [socratic_style(dialogue.messages[0]["content"]) for dialogue in dialogues]
    assert sum(answers) / len(answers) < 0.1
