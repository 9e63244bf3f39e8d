"""`explain` shows what both scores add up, for any text and any profile; and what each field of a feature means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import Found, SentenceStyle, explain, normalize, sentences, socratic_style, socratic_tone
from socratic_mlflow.style_profile import MEASURES, Feature, StyleProfile

ALL = StyleProfile(
    name="all",
    style=(
        Feature("ends", 0.3, ends=("か", "だろうか"), then=("ね", "ねえ"), unless=("しか",), after=1),
        Feature("starts", 0.3, starts=("では", "でも"), unless=("ではない",)),
        Feature("opens", 0.2, opens=("では",), contains=("君は", "君"), unless=("諸君",)),
    ),
    tone=(
        Feature("first", 0.4, starts=("では",), first=True),
        Feature("absent", -0.5, ends=("かね",), absent=True),
        Feature("not_first", -0.2, contains=("君",), first=True, absent=True),
        *(Feature(measure, -0.1, measure=measure) for measure in MEASURES),
    ),
    tone_base=0.6,
)
PARTS = """
    君は 君 諸君 では ではない でも か かね しか だろうか だろうかね だろうかねえ です なるほど
    、 。 ？ 「 」 \\ n { ok は ー っ ＞ ｶ
"""
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from([*PARTS.split(), "\n", "\r", "\0", "\ud800"]), max_size=40).map("".join)
)
PROFILES = pytest.mark.parametrize("profile", [SOCRATIC, ALL], ids=lambda profile: profile.name)


@PROFILES
@settings(deadline=None)
@given(text=TEXTS)
def test_it_agrees_with_both_scores(profile: StyleProfile, text: str) -> None:
    explanation = explain(text, profile)
    assert explanation.style == socratic_style(text, profile)
    assert explanation.tone == socratic_tone(text, profile)


@PROFILES
@settings(deadline=None)
@given(text=TEXTS)
def test_its_parts_add_up(profile: StyleProfile, text: str) -> None:
    explanation = explain(text, profile)
    parts = explanation.sentences
    assert [part.text for part in parts] == sentences(text)
    assert explanation.style == pytest.approx(sum(part.style for part in parts) / max(len(parts), 1))
    for part in parts:
        assert part.style == pytest.approx(sum(found.weight for found in part.found))
    tone = explanation.tone_base + sum(found.weight for found in explanation.tone_found)
    assert explanation.tone == (pytest.approx(min(max(tone, 0.0), 1.0)) if parts else 0.0)


@PROFILES
@settings(deadline=None)
@given(text=TEXTS)
def test_every_evidence_stands_in_the_text(profile: StyleProfile, text: str) -> None:
    explanation = explain(text, profile)
    weights = {feature.name: feature.weight for feature in (*profile.style, *profile.tone)}
    for part in explanation.sentences:
        for found in part.found:
            assert found.evidence in part.text
            assert found.weight == weights[found.name]
    absent = {feature.name for feature in profile.tone if feature.absent}
    for found in explanation.tone_found:
        assert found.evidence == "none" if found.name in absent else set(found.evidence) <= set(normalize(text))


def test_what_it_says_of_a_reply() -> None:
    explanation = explain("なるほど。では、君は海について何を知っているのかね？！")
    assert explanation.sentences == (
        SentenceStyle("なるほど", 0.0, ()),
        SentenceStyle(
            "では、君は海について何を知っているのかね",
            1.0,
            (Found("question", 0.6, "かね"), Found("address", 0.25, "君は"), Found("inquiry", 0.15, "では")),
        ),
    )
    assert explanation.style == 0.5
    evidence = {found.name: found.evidence for found in explanation.tone_found}
    assert evidence == {"kane": "かね", "no_kane": "のかね", "kimi": "君は", "opening": "なるほど", "dewa": "では"}
    assert [found.name for found in explanation.tone_found] == [
        feature.name for feature in SOCRATIC.tone if feature.name in evidence
    ]


def test_the_evidence_of_debris() -> None:
    explanation = explain("「{Fascinating。\\n海は広い。」")
    evidence = {found.name: found.evidence for found in explanation.tone_found}
    assert evidence == {
        "asks_nothing": "none",
        "markup": "{",
        "literal_escape": "\\n",
        "outer_quotes": "「」",
        "latin_debris": "Fascinating",
    }


def test_text_without_a_sentence_has_no_parts() -> None:
    explanation = explain("「……」")
    assert (explanation.style, explanation.tone, explanation.sentences, explanation.tone_found) == (0.0, 0.0, (), ())


def has(text: str, fields: dict[str, Any]) -> bool:
    """Whether the reply has a feature with these fields."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    feature = Feature("it", 0.5, **given)
    return socratic_tone(text, StyleProfile("one", style=(), tone=(feature,), tone_base=0.1)) > 0.5


@pytest.mark.parametrize(
    ("text", "fields", "found"),
    [
        ("海か。", {"ends": ["か"]}, True),
        ("海か空。", {"ends": ["か"]}, False),
        ("空。海か。空。", {"ends": ["か"]}, True),
        ("か。", {"ends": ["か"]}, True),
        ("か。", {"ends": ["か"], "after": 1}, False),
        ("海か。", {"ends": ["か"], "after": 1}, True),
        ("海\nか。", {"ends": ["か"], "after": 1}, False),
        ("海かね。", {"ends": ["か"]}, False),
        ("海かね。", {"ends": ["か"], "then": ["な", "ね"]}, True),
        ("海か。", {"ends": ["か"], "then": ["ね"]}, True),
        ("海ね。", {"ends": ["か"], "then": ["ね"]}, False),
        ("海かねえ。", {"ends": ["か"], "then": ["ね", "ねえ"]}, True),
        ("海かー。", {"ends": ["か"]}, True),
        ("海しか。", {"ends": ["か"], "unless": ["しか"]}, False),
        ("海しか。空か。", {"ends": ["か"], "unless": ["しか"]}, True),
        ("では海か。", {"starts": ["では"]}, True),
        ("空、では海か。", {"starts": ["では"]}, False),
        ("空、では海か。", {"opens": ["では"]}, True),
        ("空, では海か。", {"opens": ["では"]}, True),
        ("空では海か。", {"opens": ["では"]}, False),
        ("空では海か。", {"contains": ["では"]}, True),
        ("空ではない。", {"contains": ["では"], "unless": ["ではな"]}, False),
        ("諸君は海だ。", {"contains": ["君は"], "unless": ["諸君"]}, False),
        ("諸君、君は海だ。", {"contains": ["君は"], "unless": ["諸君"]}, True),
        ("海原だ。", {"contains": ["海"], "unless": ["海", "海原だ"]}, False),
        ("海原だ。", {"contains": ["だ"], "unless": ["海", "海原だ"]}, False),
        ("海か。空だ。", {"contains": ["海"], "first": True}, True),
        ("空だ。海か。", {"contains": ["海"], "first": True}, False),
        ("空だ。", {"contains": ["海"], "absent": True}, True),
        ("空だ。海か。", {"contains": ["海"], "absent": True}, False),
        ("空だ。海か。", {"contains": ["海"], "absent": True, "first": True}, True),
        ("空だ。", {"ends": ["か"], "contains": ["海", "空"]}, True),
        ("ｳﾐか", {"contains": ["ウミ"]}, True),
        ("ウミか", {"contains": ["ｳﾐ"]}, True),
        ("が、海", {"contains": ["か\u3099"]}, True),
        ("㍿の海", {"contains": ["株式会社"]}, True),
        ("空..海", {"contains": [".*"]}, False),
        ("空(a*)|海", {"contains": ["(a*)|"]}, True),
        ("空^$海", {"contains": ["^$"]}, True),
        ("空\\d海", {"contains": ["\\d"]}, True),
    ],
)
def test_what_the_fields_of_a_feature_mean(text: str, fields: dict[str, Any], found: bool) -> None:
    assert has(text, fields) == found
