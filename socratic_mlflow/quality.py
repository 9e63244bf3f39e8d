"""What tells real replies from hollow ones, as numbers beside the style. Standard library only; knows nothing of models.

A style score asks how a reply sounds. A model that says one well-sounding sentence to everything, loops, or falls silent
scores well or badly for no good reason; these measures see that, and `collapse` names it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Above this share of hollow replies, a model has collapsed, whatever its style.
COLLAPSE_SHARE = 0.5

# Four characters or more, three times in a row.
_LOOP = re.compile(r"(.{4,}?)\1\1", re.DOTALL)
# Runs of kanji, of katakana or of Latin letters and digits: the words that carry what a Japanese sentence is about.
_CONTENT = re.compile(r"[々〆一-鿿㐀-䶿]+|[ァ-ヺー]{2,}|[A-Za-z0-9]{2,}|[0-9]")
# A reply is a stock phrase if this part of its 4-grams stands in this share of the replies. Of 220 judged replies of eleven
# checkpoints, and of the dialogues that ship, none is one.
_STOCK_PART, _STOCK_REPLIES = 2 / 3, 1 / 3
# How many other questions each reply is held against to learn what overlap chance alone gives.
_OTHERS = 10


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def is_loop(text: str) -> bool:
    """Whether the same four characters or more stand three times in a row."""
    return bool(_LOOP.search(text))


def distinct(replies: Sequence[str], n: int) -> float:
    """Different character n-grams over all of them, in all replies together (distinct-n, Li et al. 2016, arXiv:1510.03055).

    In [0, 1]; 0.0 where no reply has n characters. It falls as replies get more in number, so compare equal numbers.
    """
    grams = [reply[start : start + n] for reply in replies for start in range(len(reply) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(reply: str) -> float:
    """Share of a reply's character 4-grams that stood in it before, in [0, 1]."""
    return 1.0 - distinct([reply], 4) if len(reply) >= 4 else 0.0


def identical_share(replies: Sequence[str]) -> float:
    """Share of replies that another question got as well, marks and width aside."""
    return mean(_repeated([_plain(reply) for reply in replies]))


def hollow(replies: Sequence[str]) -> list[str]:
    """For each reply why it is hollow ('empty', 'loop', 'same to another question', 'stock phrase'), or ''.

    Two replies are the same here even if their kanji, katakana, Latin words and numbers differ: the same phrase with
    another noun put in is still one phrase for everything. A stock phrase is a reply of which two thirds of the 4-grams
    stand in at least a third of the replies: the same again with a few characters around it.
    """
    plain = [_plain(reply) for reply in replies]
    keys = [_CONTENT.sub("＿", text) for text in plain]
    found = zip(keys, replies, _repeated(keys), _stock_phrases(plain), strict=True)
    return [_reason(*each) for each in found]


def collapse(hollow_share: float) -> str:
    """In words that the replies have collapsed, or '' where they have not."""
    if hollow_share <= COLLAPSE_SHARE:
        return ""
    return f"{hollow_share:.0%} of the replies are empty, loops, or the same as to other questions"


def question_overlap(questions: Sequence[str], replies: Sequence[str]) -> tuple[float, float]:
    """(own, chance): mean share of a question's content words that its reply takes up, and that other questions' would.

    A reply is about its question as far as `own` is above `chance`. Questions without a content word do not count.
    """
    words = [set(_CONTENT.findall(unicodedata.normalize("NFKC", question))) for question in questions]
    plain = [unicodedata.normalize("NFKC", reply) for reply in replies]
    shifts = range(1, min(_OTHERS, len(words) - 1) + 1)
    own = [_taken_up(wanted, reply) for wanted, reply in zip(words, plain, strict=True) if wanted]
    chance = [
        _taken_up(wanted, plain[(index + shift) % len(plain)])
        for shift in shifts
        for index, wanted in enumerate(words)
        if wanted
    ]
    return mean(own), mean(chance)


def measure(questions: Sequence[str], replies: Sequence[str], cut_off: Sequence[bool]) -> dict[str, float]:
    """All of the above as metrics over one reply to each question; `cut_off` tells which replies met the token limit."""
    own, chance = question_overlap(questions, replies)
    return {
        "hollow_share": mean([bool(reason) for reason in hollow(replies)]),
        "identical_share": identical_share(replies),
        "loop_share": mean([is_loop(reply) for reply in replies]),
        "empty_share": mean([not _plain(reply) for reply in replies]),
        "cut_off_share": mean(cut_off),
        "distinct_1": distinct(replies, 1),
        "distinct_2": distinct(replies, 2),
        "repetition": mean([repetition(reply) for reply in replies]),
        "reply_chars": mean([len(reply) for reply in replies]),
        "question_overlap": own,
        "question_overlap_chance": chance,
    }


def _stock_phrases(plain: Sequence[str]) -> list[bool]:
    counts = Counter(gram for text in plain for gram in _grams(text))
    often = max(2.0, _STOCK_REPLIES * len(plain))
    common = {gram for gram, count in counts.items() if count >= often}
    return [len(grams & common) >= _STOCK_PART * len(grams) for grams in map(_grams, plain)]


def _grams(text: str) -> set[str]:
    return {text[start : start + 4] for start in range(max(1, len(text) - 3))}


def _reason(key: str, reply: str, again: bool, stock: bool) -> str:
    if not key:
        return "empty"
    if is_loop(reply):
        return "loop"
    return "same to another question" if again else "stock phrase" if stock else ""


def _plain(reply: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKC", reply) if char.isalnum())


def _repeated(keys: Sequence[str]) -> list[bool]:
    counts = Counter(keys)
    return [bool(key) and counts[key] > 1 for key in keys]


def _taken_up(words: set[str], reply: str) -> float:
    return sum(word in reply for word in words) / len(words)
