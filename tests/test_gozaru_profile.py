"""The second profile that ships: ござる speech is told from polite, casual and Socratic speech, and the other way round."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from socratic_mlflow.style import explain, socratic_style, socratic_tone
from socratic_mlflow.style_profile import PLACES, StyleProfile, parse_profile, read_profile, to_yaml

GOZARU = [
    "かたじけない。拙者、その言葉を忘れぬでござる。",
    "ほう、お主は約束を破られたと申すのでござるか。それは腹も立つでござろう。",
    "左様でござるな。友とは、困った時に黙って隣に座る者のことにござる。",
    "拙者には難しいことは分からぬ。されど、逃げるのは恥ではござらぬ。",
    "そなたの問いは、まことに深うござる。拙者も若き頃、同じことで悩んだものでござるよ。",
    "貴殿が案ずることはござらぬ。明日になれば、道はおのずと開けるでござろう。",
    "しからば、一つ伺いたい。お主が守りたいものは、名誉でござろうか、それとも家族でござろうか。",
    "いや、それは違うでござる。急いては事を仕損じると、昔から申す。まずは茶でも飲まれよ。",
    "ご無事で何よりにござる。拙者、三日も前からお待ち申しておった。",
    "金が足りぬと申されるか。ならば無駄を一つずつ削るほかござらん。",
    "早起きは苦手でござったが、剣の稽古を始めてからは苦になりませぬ。おぬしも試してみるでござるか？",
    "それがし、料理のことはとんと存ぜぬ。なれど、飯は熱いうちに食うのが一番でござるぞ！",
    "承知いたした。この件、拙者にお任せくだされ。必ずやり遂げるでござる。",
    "人の心は、天気のように移ろうものでござる。ゆえに、今日の怒りを明日まで持ち越してはならぬのでござるよ。",
]

POLITE = [
    "ありがとうございます。そのお言葉は忘れません。",
    "約束を破られたのですか。それは腹が立ったでしょうね。",
    "友達とは、困った時に黙って隣に座ってくれる人のことだと思います。",
    "心配することはございません。明日になれば、道は開けるでしょう。",
    "かしこまりました。この件は私にお任せください。",
    "ご主人様はお元気ですか？私は料理のことは分かりませんが、温かいうちに召し上がってください。",
]

CASUAL = [
    "それは違うじゃん。まずはお茶でも飲みなよ。",
    "めっちゃ分かる。俺も早起きは苦手だよ。",
    "そうだね、お金は大事だよね。",
]

SOCRATIC_REPLIES = [
    "なるほど。では、君は約束を破った友を、もう友とは呼ばないのかね？",
    "ふむ、君の言う道とは何だろうか。それは誰が開くものなのかね？",
    "君は急いでいるようだ。では、急ぐことで君は何を得るのかね？",
    "ああ、面白い。君が恐れているのは失敗そのものかね、それとも人の目だろうか？",
    "そうだね。では、君の言う名誉は、誰もいない島でも名誉なのだろうか？",
    "なるほど、金が足りないのだね。では君について聞こう。足りるとは、どういうことかね？",
]

SCORES = [(socratic_style, 0.15), (socratic_tone, 0.25)]


@pytest.fixture(scope="module")
def gozaru() -> StyleProfile:
    return read_profile("gozaru")


def names(text: str, profile: StyleProfile) -> set[str]:
    """The tone features that the reply has."""
    return {found.name for found in explain(text, profile).tone_found}


@pytest.mark.parametrize(("score", "margin"), SCORES)
def test_gozaru_replies_score_above_all_others(
    gozaru: StyleProfile, score: Callable[[str, StyleProfile], float], margin: float
) -> None:
    least = min(score(reply, gozaru) for reply in GOZARU)
    for reply in (*POLITE, *CASUAL, *SOCRATIC_REPLIES):
        assert least > score(reply, gozaru) + margin, reply


@pytest.mark.parametrize(("score", "margin"), SCORES)
def test_under_the_socratic_profile_it_is_the_other_way_round(
    score: Callable[[str, StyleProfile], float], margin: float
) -> None:
    socratic = read_profile("socratic")
    least = min(score(reply, socratic) for reply in SOCRATIC_REPLIES)
    for reply in (*GOZARU, *POLITE, *CASUAL):
        assert least > score(reply, socratic) + margin, reply


@pytest.mark.parametrize("reply", [*POLITE, *CASUAL, "では、休みましょう。", "それ、いいじゃん！"])
def test_modern_speech_comes_to_nothing(gozaru: StyleProfile, reply: str) -> None:
    assert socratic_style(reply, gozaru) == 0.0
    assert socratic_tone(reply, gozaru) == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        "敵ではござらぬ",
        "道はござらん。",
        "間もなく雨でござろう…",
        "昨夜のことでござった！",
        "よろしゅうござりまする。",
        "良き日に御座候。",
        "まだ迷いがござるが、行くしかあるまい。",
        "「春でござるなあ」",
        "春でござる\n",
    ],
)
def test_the_verb_counts_in_every_form(gozaru: StyleProfile, reply: str) -> None:
    assert socratic_style(reply, gozaru) >= 0.55
    assert "gozaru" in names(reply, gozaru)
    assert not {"no_gozaru", "polite", "casual"} & names(reply, gozaru)


@pytest.mark.parametrize(
    ("reply", "has", "has_not"),
    [
        ("お主は行くのでござるか？", {"gozaru", "asks", "listener"}, {"feeling", "negation"}),
        ("それで良いのではござらぬか。", {"gozaru", "asks", "negation"}, {"feeling"}),
        ("良き朝でござるな。", {"gozaru", "feeling"}, {"asks"}),
        ("拙者は知らぬ。", {"speaker", "negation", "no_gozaru"}, {"gozaru", "listener"}),
        ("心より御礼申し上げたく存じ候。", {"words"}, {"polite"}),
        ("お主人様はどちらにお住まいですか。", {"polite", "no_gozaru"}, {"listener"}),
        ("本日もありがとうございます。", {"polite", "no_gozaru"}, {"gozaru", "words"}),
        ("人はいつか死ぬ。", {"no_gozaru"}, {"negation"}),
        ("今日は悪天候。", {"no_gozaru"}, {"words"}),
        ("いざという時に備える。", {"no_gozaru"}, {"words"}),
        ("ござりますか。よろしゅうござります。", {"gozaru"}, {"polite"}),
    ],
)
def test_what_a_reply_has(gozaru: StyleProfile, reply: str, has: set[str], has_not: set[str]) -> None:
    assert names(reply, gozaru) >= has
    assert not names(reply, gozaru) & has_not


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: reply + "そうですね。",
        lambda reply: reply + "マジで最高じゃん。",
        lambda reply: reply + "**",
        lambda reply: reply + "\\n",
        lambda reply: f"「{reply}」",
        lambda reply: reply + " okay",
    ],
    ids=["polite", "casual", "markup", "literal_escape", "outer_quotes", "latin_debris"],
)
def test_what_breaks_the_voice_lowers_the_tone(gozaru: StyleProfile, spoil: Callable[[str], str]) -> None:
    for reply in GOZARU:
        assert socratic_tone(spoil(reply), gozaru) < socratic_tone(reply, gozaru)


def test_a_sentence_with_everything_scores_one(gozaru: StyleProfile) -> None:
    assert socratic_style("お主に罪はござらぬ。", gozaru) == 1.0


def test_the_weights_have_the_documented_range(gozaru: StyleProfile) -> None:
    assert all(feature.weight >= 0 for feature in gozaru.style)
    assert math.isclose(sum(feature.weight for feature in gozaru.style), 1.0)
    assert math.isclose(gozaru.tone_base + sum(f.weight for f in gozaru.tone if f.weight > 0), 1.0)


def test_no_phrase_stands_twice(gozaru: StyleProfile) -> None:
    for feature in (*gozaru.style, *gozaru.tone):
        for place in (*PLACES, "unless"):
            phrases = getattr(feature, place)
            assert len(set(phrases)) == len(phrases), (feature.name, place)


def test_it_survives_a_round_trip(gozaru: StyleProfile) -> None:
    assert parse_profile(to_yaml(gozaru), "copy") == gozaru
    assert gozaru.name == "gozaru"
