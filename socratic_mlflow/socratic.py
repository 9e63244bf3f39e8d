"""The Socratic style in Japanese: which phrases count, and for how much. The default profile of `style.py`.

The same profile as YAML, to begin one's own with, is profiles/socratic.yaml (a test keeps the two equal). Standard library
only.
"""

from __future__ import annotations

from typing import Any

from socratic_mlflow.style_profile import Feature, StyleProfile
from socratic_mlflow.tone_weights import BASE, WEIGHTS

# What may follow かね and だろうか: だろうかね, かねえ.
_SOFTENED = ("え", "ね", "ねえ")
# か behind の, or behind a verb or adjective in its plain form. Not behind nouns: 静か and 何か end as 善か does.
_PLAIN_KA = tuple(f"{before}か" for before in "のうるいたくすむぶぐぬ")
_WONDERED = tuple(f"{asked}だろう" for asked in ("何", "誰", "なぜ", "どう", "どこ"))
_PLAIN_QUESTION = (
    *(*_PLAIN_KA, "ことか", "べきか", "かな", "かい", "だい", "何だ", "誰だ", "なぜだ", "どうだ", "どこだ"),
    *(*_WONDERED, *(f"{wondered}ね" for wondered in _WONDERED), "のだろう", "のだろうね"),
)
# Words that end as a question does.
_NO_QUESTION = (
    *("静かな", "確かな", "豊かな", "細かな", "僅かな", "愚かな", "ずかな", "やかな", "らかな"),
    *("細かい", "温かい", "暖かい", "こまかい", "らかい", "はるか", "おかね"),
)
_POLITE_KA = ("ですか", "でしたか", "ますか", "ましたか", "ませんか", "でしょうか", "ましょうか")
_POLITE = ("です", "でした", "ます", "ました", "ません", "でしょう", "ましょう", "ください", "下さい")
_PARTICLES = (
    *("か", "かい", "かな", "かなあ", "かね", "かねえ", "な", "なあ", "ね", "ねえ", "よ", "よね", "わ", "ぞ", "とも"),
    *("が", "から", "けど", "けども", "けれど", "けれども", "し", "の", "のに", "ので", "もの", "ら", "っけ", "って"),
)
# Plain verbs that end as the polite ます and ました do.
_PLAIN_MASU = (
    *(f"{stem}{ending}" for stem in "かさすだやら騙覚冷醒励済澄悩" for ending in ("ます", "ました")),
    *("はげます", "はげました", "ますます"),
)
_NOT_AN_OPENING = ("ではない", "ではなか", "ではなく", "ではなけ", "ではあり", "ではござ")
_NOT_DEWA = (*_NOT_AN_OPENING, *(f"それ{phrase}" for phrase in _NOT_AN_OPENING))
_OPENING = ("なるほど", "そうだ", "そうなの", "ふむ", "うむ", "ああ")
_NO_OPENING = ("そうだとす", "そうだとし", "ああい", "ああし", "うむを")
# 君 and a particle, a comma or 自身; not 君主 and 君臨.
_KIMI = tuple(f"君{after}" for after in "はがのにをもとへでなたらかこよっだしさほまやば、,自")
_NOT_KIMI = ("諸君", "主君", "暴君", "名君", "細君", "父君", "姫君", "若君", "君が代")


def _tone(name: str, what: str, **where: Any) -> Feature:
    return Feature(name, WEIGHTS[name], what, **where)


SOCRATIC = StyleProfile(
    name="socratic",
    what="Socrates in Japanese: plain speech, 君, 「…かね？」, a question back",
    style=(
        Feature(
            "question",
            0.6,
            "ends as a question does in this style",
            ends=("かね", "だろうか"),
            then=_SOFTENED,
            unless=("おかね",),
        ),
        Feature("address", 0.25, "addresses the listener as 君", contains=("君は", "君が", "君の")),
        Feature(
            "inquiry",
            0.15,
            "opens an inquiry (ではない and the like negate something instead)",
            opens=("では", "それでは"),
            contains=("について",),
            unless=_NOT_DEWA,
        ),
    ),
    tone_base=BASE,
    tone=(
        _tone(
            "kane",
            "a plain question in かね, with something before it",
            ends=("かね",),
            then=_SOFTENED,
            unless=(*(f"{question}ね" for question in _POLITE_KA), "おかね"),
            after=2,
        ),
        _tone(
            "no_kane",
            "a question in のかね, which asks for the reason",
            ends=("のかね", "ことかね"),
            then=_SOFTENED,
            after=2,
        ),
        _tone("darouka", "a question in だろうか", ends=("だろうか",), then=_SOFTENED, after=2),
        _tone(
            "plain_question",
            "a question in のか, ないか, かな and other plain endings",
            ends=_PLAIN_QUESTION,
            then=("あ",),
            starts=_WONDERED,
            unless=(*_POLITE_KA, "だろうか", *_NO_QUESTION),
            after=2,
        ),
        _tone("kimi", "speaks to the listener as 君", contains=_KIMI, ends=("君",), unless=_NOT_KIMI),
        _tone("opening", "opens with なるほど, そうだね, ふむ, ああ", starts=_OPENING, unless=_NO_OPENING, first=True),
        _tone("dewa", "goes on with では", opens=("では", "それでは"), unless=_NOT_DEWA),
        _tone("polite", "a sentence ends in です, ます, でしょうか", ends=_POLITE, then=_PARTICLES, unless=_PLAIN_MASU),
        _tone(
            "asks_nothing",
            "no sentence ends as a question does",
            ends=(*_PLAIN_QUESTION, "かね", *_POLITE_KA, "でしょう"),
            then=("あ", *_SOFTENED),
            starts=_WONDERED,
            unless=_NO_QUESTION,
            after=2,
            absent=True,
        ),
        _tone("markup", "leaked markup: braces, tags, asterisks", measure="markup"),
        _tone("literal_escape", "a line break written as backslash and n", measure="literal_escape"),
        _tone("outer_quotes", "quotes around the whole reply", measure="outer_quotes"),
        _tone("latin_debris", "words in lower-case Latin letters", measure="latin_debris"),
    ),
)
