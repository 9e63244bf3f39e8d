"""Reply text -> how Socratic it sounds, as numbers in [0, 1]. Standard library only; knows nothing of models.

A sentence scores 0.6 if it ends as a question does in this style, 0.25 if it addresses the listener as 君, 0.15 if it
opens an inquiry; a text scores the mean over its sentences.
"""

from __future__ import annotations

import re
import unicodedata

QUESTION_WEIGHT, ADDRESS_WEIGHT, INQUIRY_WEIGHT = 0.6, 0.25, 0.15

# A sentence ends at a run of these (not at a decimal point); quotes that close behind them belong to the one that ended.
_SENTENCE_END = re.compile(r"(?:[。!?…\n\r\v\f\x85\u2028\u2029]|\.(?!\d))+")
# ではないかね ends in かね, and のだろうか in だろうか: the two endings cover all documented ones.
_QUESTION = re.compile(r"(?:かね|だろうか)(?:え|ぇ|ー|ね)?$")
_ADDRESS = re.compile(r"君[はがの]")
# では opens an inquiry at the start of a sentence or clause; 「ではない」「ではありません」 negate something instead.
_INQUIRY = re.compile(r"(?:^|[、,])(?:それ)?では(?!な[いかくけ]|あり|ござ)|について")


def sentences(text: str) -> list[str]:
    """The sentences of `text`, normalized (NFKC) and without the punctuation, quotes and emoji around them."""
    normal = unicodedata.normalize("NFKC", text)
    parts = (_bare(part) for part in _SENTENCE_END.split(normal))
    return [part for part in parts if part]


def _bare(part: str) -> str:
    return part.strip("".join({char for char in part if not char.isalnum()}))


def sentence_style(sentence: str) -> float:
    """The score of one sentence as `sentences` gives it."""
    return (
        QUESTION_WEIGHT * bool(_QUESTION.search(sentence))
        + ADDRESS_WEIGHT * bool(_ADDRESS.search(sentence))
        + INQUIRY_WEIGHT * bool(_INQUIRY.search(sentence))
    )


def socratic_style(text: str) -> float:
    """Mean sentence score in [0, 1]; 0.0 for text without a sentence."""
    scores = [sentence_style(sentence) for sentence in sentences(text)]
    return sum(scores) / len(scores) if scores else 0.0
