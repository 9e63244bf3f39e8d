"""What tells real replies from hollow ones: each measure on replies whose value can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from socratic_mlflow.quality import (
    COLLAPSE_SHARE,
    collapse,
    distinct,
    hollow,
    identical_share,
    is_loop,
    mean,
    measure,
    question_overlap,
    repetition,
)

ONE_FOR_EVERYTHING = "では、君はそう思うのかね？"
NOUNS = ("勇気", "正義", "友情", "幸福", "自由", "時間", "テレビ", "AI", "音楽", "3")
SWAPPED = [f"では、{noun}とは何かね？" for noun in NOUNS]
LOOP = "そうかもしれないそうかもしれないそうかもしれない"
SAME_OPENING = [
    "なるほど。では、その友人は君に何を求めていたのかね？",
    "なるほど、昨日の失敗から君は何を学んだのだろうか。",
    "なるほど。お金があれば眠れるようになると、本当に言えるだろうか？",
    "なるほど、母親の言葉がまだ耳に残っているのだね。",
    "なるほど。急いで決めた約束は、守るに値するのかね？",
    "なるほど、では逃げることと休むことはどう違うのだろうか？",
]


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("そうですねそうですねそうですね", True),
        ("前置き。あいうえあいうえあいうえ後書き", True),
        ("一行目です。\n一行目です。\n一行目です。\n", True),
        ("ああああああああああああ", True),
        ("そうですねそうですね", False),
        ("ははは、そうそうそう。", False),
        ("あいうあいうあいう", False),
        ("", False),
    ],
)
def test_is_loop(text: str, loops: bool) -> None:
    assert is_loop(text) is loops


@pytest.mark.parametrize(
    ("replies", "n", "expected"),
    [
        (["ああああ"], 1, 1 / 4),
        (["あいうえ"], 1, 1.0),
        (["あいあい"], 2, 2 / 3),
        (["あい", "あい"], 2, 1 / 2),
        (["あい", "いう"], 1, 3 / 4),
        # No bigram spans two replies: it would be one that nobody said.
        (["あい", "うえ"], 2, 1.0),
        (["あ", "い"], 2, 0.0),
        (["", ""], 1, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_is_different_n_grams_over_all_n_grams(replies: list[str], n: int, expected: float) -> None:
    assert distinct(replies, n) == pytest.approx(expected)


def test_distinct_of_random_text_is_that_of_counting_by_hand() -> None:
    rng = random.Random(0)
    replies = ["".join(rng.choices("あいうえおか", k=rng.randrange(12))) for _ in range(40)]
    for n in (1, 2, 3):
        seen, total = set(), 0
        for reply in replies:
            for start in range(len(reply)):
                gram = reply[start : start + n]
                if len(gram) == n:
                    seen.add(gram)
                    total += 1
        assert distinct(replies, n) == pytest.approx(len(seen) / total)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("あいうえおかきくけこ", 0.0),
        # Eight 4-grams of which four are different: aaba, abab and so on come once more.
        ("あいうえあいうえあいう", 4 / 8),
        ("ああああああああ", 4 / 5),
        ("あいう", 0.0),
        ("", 0.0),
    ],
)
def test_repetition_is_the_share_of_4_grams_that_came_before(reply: str, expected: float) -> None:
    assert repetition(reply) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (["はい。", "いいえ。", "さあ。"], 0.0),
        (["はい。", "はい！", "さあ。"], 2 / 3),
        (["ＡＩだ", "AIだ", "ＡＩだ。"], 1.0),
        # What is empty is no reply that another question got: `empty_share` counts it.
        (["", "。", "はい。"], 0.0),
        (["はい。"], 0.0),
        ([], 0.0),
    ],
)
def test_identical_share(replies: list[str], expected: float) -> None:
    assert identical_share(replies) == pytest.approx(expected)


def test_hollow_says_why_and_in_the_order_of_the_replies() -> None:
    replies = [
        "",
        ONE_FOR_EVERYTHING,
        LOOP,
        "君の話をもっと聞かせてくれないかね。",
        "では君は、そう思うのかね!",
        "…？！",
        "🙂",
    ]
    assert hollow(replies) == [
        "empty",
        "same to another question",
        "loop",
        "",
        "same to another question",
        "empty",
        "empty",
    ]


def test_one_phrase_with_other_nouns_is_the_same_phrase() -> None:
    assert hollow(SWAPPED) == ["same to another question"] * len(SWAPPED)
    assert identical_share(SWAPPED) == 0.0


@pytest.mark.parametrize(
    ("one", "other"), [("3つの徳とは？", "4つの徳とは？"), ("1人かね？", "20人かね？"), ("愛かね", "テレビかね")]
)
def test_other_numbers_and_words_make_no_other_phrase(one: str, other: str) -> None:
    assert hollow([one, other]) == ["same to another question"] * 2


def test_replies_that_only_open_alike_are_not_hollow() -> None:
    assert hollow(SAME_OPENING) == [""] * len(SAME_OPENING)


def test_a_single_reply_is_the_same_to_no_other() -> None:
    assert hollow([ONE_FOR_EVERYTHING]) == [""]
    assert hollow([]) == []


def test_collapse_begins_above_half_of_the_replies() -> None:
    assert [bool(collapse(share)) for share in (0.0, 0.49, COLLAPSE_SHARE, 0.51, 1.0)] == [False, False, False, True, True]
    assert collapse(0.75) == "75% of the replies are empty, loops, or the same as to other questions"


@pytest.mark.parametrize(
    ("replies", "collapsed"),
    [
        ([ONE_FOR_EVERYTHING] * 6, True),
        (SWAPPED, True),
        ([LOOP.replace("そう", noun) for noun in NOUNS], True),
        ([""] * 6, True),
        ([*SAME_OPENING[:2], "", LOOP, ONE_FOR_EVERYTHING, ONE_FOR_EVERYTHING], True),
        ([*SAME_OPENING[:3], "", LOOP, ONE_FOR_EVERYTHING], False),
        ([*SAME_OPENING[:4], ONE_FOR_EVERYTHING, ONE_FOR_EVERYTHING], False),
        (SAME_OPENING, False),
    ],
    ids=["one sentence", "swapped nouns", "loops", "empty", "a mixture", "a smaller mixture", "two alike", "same opening"],
)
def test_which_replies_have_collapsed(replies: list[str], collapsed: bool) -> None:
    questions = [f"問い{number}" for number in range(len(replies))]
    metrics = measure(questions, replies, [False] * len(replies))
    assert bool(collapse(metrics["hollow_share"])) is collapsed


def test_overlap_sees_whether_replies_are_about_their_own_questions() -> None:
    questions = [f"{noun}とは？" for noun in NOUNS]
    replies = [f"{noun}か。面白い。" for noun in NOUNS]
    assert question_overlap(questions, replies) == (1.0, 0.0)
    assert question_overlap(questions, replies[1:] + replies[:1]) == (0.0, pytest.approx(1 / (len(NOUNS) - 1)))
    own, chance = question_overlap(questions, [ONE_FOR_EVERYTHING] * len(questions))
    assert own == chance == 0.0


def test_overlap_by_chance_is_that_of_a_word_which_every_reply_has() -> None:
    questions, replies = ["勇気とは何か", "正義とは何か", "友情とは何か"], ["何だろう、勇気か", "何だろうか", "何かね"]
    own, chance = question_overlap(questions, replies)
    assert own == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    # Six other questions' replies: each has the 何, one also has another question's 勇気, which is not asked for there.
    assert chance == pytest.approx(1 / 2)


def test_overlap_leaves_out_questions_without_content_words() -> None:
    assert question_overlap(["どうして？", "勇気とは？"], ["さあ", "勇気だ"]) == (1.0, 0.0)
    assert question_overlap(["どうして？"], ["さあ"]) == (0.0, 0.0)
    assert question_overlap([], []) == (0.0, 0.0)


def test_overlap_takes_width_aside() -> None:
    assert question_overlap(["ＡＩとは？"], ["AIか"])[0] == 1.0


def test_measure_is_all_of_them() -> None:
    questions = ["勇気とは？", "正義とは？", "友情とは？", "幸福とは？"]
    replies = ["", LOOP, "はい、君。", "はい、僕。"]
    found = measure(questions, replies, [False, True, True, False])
    assert found == {
        "hollow_share": 1.0,
        "identical_share": 0.0,
        "loop_share": 0.25,
        "empty_share": 0.25,
        "cut_off_share": 0.5,
        "distinct_1": distinct(replies, 1),
        "distinct_2": distinct(replies, 2),
        "repetition": pytest.approx(repetition(LOOP) / 4),
        "reply_chars": pytest.approx((len(LOOP) + 10) / 4),
        "question_overlap": 0.0,
        "question_overlap_chance": 0.0,
    }


def test_measure_of_nothing_is_all_zeros() -> None:
    assert set(measure([], [], []).values()) == {0.0}


def test_shares_lie_between_0_and_1_whatever_is_said() -> None:
    rng = random.Random(1)
    letters = "あいう勇気テレビAB12。？\n 　🙂́"
    for _ in range(200):
        replies = ["".join(rng.choices(letters, k=rng.randrange(20))) for _ in range(rng.randrange(1, 6))]
        questions = ["".join(rng.choices(letters, k=8)) for _ in replies]
        found = measure(questions, replies, [rng.random() < 0.5 for _ in replies])
        del found["reply_chars"]
        assert all(0 <= value <= 1 for value in found.values()), (questions, replies, found)
        assert found["hollow_share"] >= max(found[name] for name in ("empty_share", "loop_share", "identical_share"))


def test_mean_of_nothing_is_zero():
    assert mean([]) == 0.0
    assert mean([1, 2]) == 1.5
