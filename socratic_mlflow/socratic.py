"""The Socratic style in Japanese: which phrases count, and for how much. The default profile of `style.py`.

The same profile as YAML, to begin one's own with, is profiles/socratic.yaml (a test keeps the two equal). Standard library
only.
"""

from __future__ import annotations

from typing import Any

from socratic_mlflow.style_profile import Feature, StyleProfile
from socratic_mlflow.tone_weights import BASE, WEIGHTS

_KANE = ("かね", "かねえ", "かねぇ", "かねー", "かねね")
_DAROUKA = ("だろうか", "だろうかえ", "だろうかぇ", "だろうかー", "だろうかね", "だろうかねえ")
_PLAIN_QUESTION = ("のか", "かな", "かい", "だい", "のだろう", "だろうね", "ものか")
_POLITE_QUESTION = ("でしょうか", "ですか", "ますか", "ませんか", "でしたか", "ましたか", "でしょう")
_POLITE = (
    *("です", "ですね", "ですよ", "ですよね", "ですが", "ですか", "でした", "でしたか", "でしたね"),
    *(
        "ます",
        "ますね",
        "ますよ",
        "ますよね",
        "ますが",
        "ますか",
        "ました",
        "ましたか",
        "ましたね",
        "ましょう",
        "ましょうか",
    ),
    *("ません", "ませんか", "ませんね", "でしょう", "でしょうか", "でしょうね", "ください", "下さい"),
)
# Plain verbs that end as the polite ます does.
_PLAIN_MASU = ("だます", "騙ます", "励ます", "済ます", "すます", "覚ます", "さます", "冷ます", "悩ます", "増ます", "澄ます")
_NOT_AN_OPENING = ("ではない", "ではなか", "ではなく", "ではなけ", "ではあり", "ではござ")
_NOT_DEWA = (*_NOT_AN_OPENING, *(f"それ{phrase}" for phrase in _NOT_AN_OPENING))
_OPENING = ("なるほど", "そうだ", "そうなの", "ふむ", "うむ", "ああ")
_KIMI = tuple(f"君{after}" for after in "はがのにをもとへでな、?!自")


def _tone(name: str, what: str, **where: Any) -> Feature:
    return Feature(name, WEIGHTS[name], what, **where)


SOCRATIC = StyleProfile(
    name="socratic",
    what="Socrates in Japanese: plain speech, 君, 「…かね？」, a question back",
    style=(
        Feature("question", 0.6, "ends as a question does in this style", ends=_KANE + _DAROUKA),
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
        _tone("kane", "a question in かね, with something before it", ends=_KANE, after=2),
        _tone("no_kane", "a question in のかね, which asks for the reason", ends=("のかね", "ことかね"), after=2),
        _tone("darouka", "a question in だろうか", ends=_DAROUKA, after=2),
        _tone("plain_question", "a question in のか, かな and other plain endings", ends=_PLAIN_QUESTION, after=2),
        _tone("kimi", "speaks to the listener as 君", contains=_KIMI, ends=("君",), unless=("諸君", "君主")),
        _tone("opening", "opens with なるほど, そうだね, ふむ, ああ", starts=_OPENING, first=True),
        _tone("dewa", "goes on with では", opens=("では", "それでは"), unless=_NOT_DEWA),
        _tone("polite", "a sentence ends in です, ます, でしょうか", ends=_POLITE, unless=_PLAIN_MASU),
        _tone(
            "asks_nothing",
            "no sentence ends as a question does",
            ends=_KANE + _DAROUKA + _PLAIN_QUESTION + _POLITE_QUESTION,
            absent=True,
        ),
        _tone("markup", "leaked markup: braces, tags, asterisks", measure="markup"),
        _tone("literal_escape", "a line break written as backslash and n", measure="literal_escape"),
        _tone("outer_quotes", "quotes around the whole reply", measure="outer_quotes"),
        _tone("latin_debris", "words in lower-case Latin letters", measure="latin_debris"),
    ),
)
