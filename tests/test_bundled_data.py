"""The dialogues and questions that ship here: how many, who speaks how, and that none is another one with a new noun."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from socratic_mlflow.dialogues import Dialogue, read_dialogues, read_questions
from socratic_mlflow.style import sentences, socratic_style

# Measured on the 280 dialogues of November 2026: the closest two have 0.12; copies with a few words changed have above 0.5.
NEAR_DIALOGUE = 0.3
# Replies with kanji and katakana masked: the closest two have 0.35; a reply with a swapped noun has 1.0.
NEAR_FRAME = 0.6
# Questions against everything that a user says in the dialogues: two that ask the same thing have 0.38 and above, and
# two that only begin alike have 0.32 and below.
NEAR_QUESTION = 0.35

POLITE_END = re.compile(
    r"(?:です|ます|でした|ました|ません|ましょう|でしょう|ください|ございます)(?:か|よ|ね|よね|が|けど)*$"
)


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    """The bundled dialogues."""
    found = read_dialogues("bundled")
    assert found.skipped == []
    return found.dialogues


@pytest.fixture(scope="module")
def questions() -> list[str]:
    """The bundled held-out questions."""
    return read_questions("bundled")[0]


def said_by(role: str, dialogues: Iterable[Dialogue]) -> list[str]:
    return [message["content"] for dialogue in dialogues for message in dialogue.messages if message["role"] == role]


def trigrams(text: str) -> frozenset[str]:
    letters = "".join(char for char in text if char.isalnum())
    return frozenset(letters[start : start + 3] for start in range(max(1, len(letters) - 2)))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity."""
    return len(one & other) / len(one | other)


def too_near(texts: list[str], limit: float) -> list[tuple[float, str, str]]:
    """The pairs of `texts` whose trigrams are more alike than `limit`."""
    made = [(text, trigrams(text)) for text in texts]
    pairs = ((likeness(one, other), text, second) for (text, one), (second, other) in combinations(made, 2))
    return [pair for pair in pairs if pair[0] > limit]


def frame(text: str) -> str:
    """`text` with every run of kanji or katakana masked: what stays when nouns are swapped."""
    return re.sub(r"[一-龠々〆ァ-ヴー]+", "X", text)


def test_there_are_enough_dialogues_over_enough_themes(dialogues: list[Dialogue], repository: Path) -> None:
    assert len(dialogues) >= 240
    lines = (repository / "socratic_mlflow" / "data" / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    themes = Counter(row["theme"] for row in rows)
    assert len(themes) > 40
    assert max(themes.values()) <= len(rows) / 20


def test_every_dialogue_has_several_turns_of_sensible_length(dialogues: list[Dialogue]) -> None:
    assert all(len(dialogue.messages) >= 4 for dialogue in dialogues)
    assert {message["role"] for dialogue in dialogues for message in dialogue.messages} == {"user", "model"}
    lengths = [len(text) for role in ("user", "model") for text in said_by(role, dialogues)]
    assert min(lengths) >= 4
    assert max(lengths) <= 200


def test_socrates_never_speaks_politely(dialogues: list[Dialogue]) -> None:
    polite = [text for reply in said_by("model", dialogues) for text in sentences(reply) if POLITE_END.search(text)]
    assert polite == []


def test_people_mostly_speak_politely_and_never_like_socrates(dialogues: list[Dialogue]) -> None:
    answers = said_by("user", dialogues)
    assert fmean(socratic_style(text) for text in answers) < 0.05
    polite = [text for text in answers if any(POLITE_END.search(sentence) for sentence in sentences(text))]
    assert len(polite) > len(answers) / 2


def test_replies_ask_back_as_natural_ones_do(dialogues: list[Dialogue]) -> None:
    replies = said_by("model", dialogues)
    assert 0.3 <= fmean(socratic_style(reply) for reply in replies) <= 0.6
    # Data written to score 1.0 would be a fake; data with silent replies would teach nothing.
    assert sum(socratic_style(reply) == 1.0 for reply in replies) < len(replies) / 10
    assert all(any(socratic_style(text) > 0 for text in said_by("model", [dialogue])) for dialogue in dialogues)


def test_no_two_dialogues_are_nearly_the_same(dialogues: list[Dialogue]) -> None:
    whole = ["".join(message["content"] for message in dialogue.messages) for dialogue in dialogues]
    assert too_near(whole, NEAR_DIALOGUE) == []


@pytest.mark.parametrize("role", ["user", "model"])
def test_nothing_is_said_twice_in_the_same_words(dialogues: list[Dialogue], role: str) -> None:
    counts = Counter(said_by(role, dialogues))
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_reply_is_another_one_with_its_nouns_swapped(dialogues: list[Dialogue]) -> None:
    frames = [frame(reply) for reply in said_by("model", dialogues)]
    assert too_near(frames, NEAR_FRAME) == []


def test_no_sentence_frame_is_used_again_and_again(dialogues: list[Dialogue]) -> None:
    frames = Counter(frame(text) for reply in said_by("model", dialogues) for text in sentences(reply))
    # Interjections (なるほど, 待ってくれたまえ) may come back; what is longer than they are is a template.
    assert {text: count for text, count in frames.items() if count > 1 and len(text) >= 10} == {}


def test_no_opening_is_another_one_with_its_noun_swapped(dialogues: list[Dialogue]) -> None:
    openings = [frame(dialogue.messages[0]["content"]) for dialogue in dialogues]
    assert too_near(openings, NEAR_FRAME) == []


def test_held_out_questions_are_a_hundred_different_ones(questions: list[str]) -> None:
    assert len(questions) == len(set(questions)) == 100
    assert too_near(questions, NEAR_QUESTION) == []
    assert max(socratic_style(question) for question in questions) < 0.5


def test_no_held_out_question_is_asked_in_the_dialogues(dialogues: list[Dialogue], questions: list[str]) -> None:
    said = [(text, trigrams(text)) for text in said_by("user", dialogues)]
    near = [
        (question, text)
        for question in questions
        for text, made in said
        if question == text or likeness(trigrams(question), made) > NEAR_QUESTION
    ]
    assert near == []


def test_the_measure_finds_a_swapped_noun_and_a_few_changed_words() -> None:
    reply = "では、君は正義について、漁師の網のように考えているのかね？"
    swapped = "では、君は勇気について、兵士の盾のように考えているのかね？"
    assert len(too_near([frame(reply), frame(swapped)], NEAR_FRAME)) == 1
    asked = "選挙に行っても何も変わらないので、もう行くのをやめました。"
    again = "選挙に行っても何も変わらないので、行くのをやめました。"
    assert len(too_near([asked, again], NEAR_QUESTION)) == 1
    assert too_near([reply, asked], 0.1) == []
