"""Two models on the same questions: which is better, and whether that is more than the choice of questions."""

from __future__ import annotations

import numpy as np
import pytest

from socratic_mlflow.comparison import FEWEST_QUESTIONS, Scored, differences, verdicts


def scored(name, styles, hollow=0.0):
    rows = [{"socratic_style": style, "socratic_tone": 0.5} for style in styles]
    return Scored(name, {"hollow_share": hollow}, rows)


GOOD, BAD = scored("good", [0.6, 0.7, 0.5, 0.8] * 10), scored("bad", [0.1, 0.2, 0.1, 0.3] * 10)


def test_a_clear_difference_is_called_real_whichever_comes_first():
    assert differences(GOOD, BAD)["socratic_style"].mean == pytest.approx(0.475)
    style, tone = verdicts(GOOD, BAD)
    assert style.startswith("style: good scores higher, and the difference is real (+0.475, 95% interval +0.4")
    assert tone == "tone: no real difference (+0.000, 95% interval +0.000 to +0.000); other questions could turn it round"
    assert verdicts(BAD, GOOD)[0].startswith("style: good scores higher, and the difference is real (-0.475")


def test_a_difference_that_two_questions_carry_is_not_called_real():
    ours = scored("a", [1.0, 0.0, *[0.5] * 38])
    theirs = scored("b", [0.0, 0.9, *[0.5] * 38])
    assert verdicts(ours, theirs)[0].startswith("style: no real difference (+0.002, 95% interval -0.0")


@pytest.mark.parametrize("count", [1, 2, FEWEST_QUESTIONS - 1])
def test_few_questions_settle_nothing(count):
    style, tone = verdicts(scored("a", [1.0] * count), scored("b", [0.0] * count))
    assert style.startswith("style: too few questions to tell (+1.000")
    assert tone.startswith("tone: too few questions to tell")


def test_from_so_many_on_equals_are_rarely_called_different():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        ours, theirs = (scored(name, rng.beta(2, 2, FEWEST_QUESTIONS)) for name in "ab")
        wrong += "is real" in verdicts(ours, theirs)[0]
    # 5% would be 10 of 200; the percentile interval is a little narrow at so few.
    assert wrong <= 24


def test_a_collapsed_model_is_the_worse_one_whatever_it_scores():
    fallen = scored("fallen", [1.0] * 40, hollow=1.0)
    for ours, theirs in ((fallen, BAD), (BAD, fallen)):
        first, style, _ = verdicts(ours, theirs)
        assert first.startswith("fallen has collapsed (100% of the replies are ")
        assert first.endswith("is the worse one, whatever it scores")
        assert "scores higher" in style
    assert len(verdicts(fallen, fallen)) == 2


def test_unequal_numbers_of_questions_are_refused():
    with pytest.raises(ValueError, match="needs the same questions; 40 and 3"):
        verdicts(GOOD, scored("c", [0.1, 0.2, 0.3]))
