"""What a request's params may be, and how a reply that still grows is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.incoming import ReplyParams, declared, parse_params
from socratic_mlflow.streaming import Pieces, cut

DEFAULT = ReplyParams(max_tokens=6)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (None, DEFAULT),
        ({}, DEFAULT),
        (declared(6), DEFAULT),
        ({"temperature": None, "seed": None, "stop": None}, DEFAULT),
        ({"temperature": 1, "top_p": 0.5}, ReplyParams(6, 1.0, 0.5)),
        ({"max_tokens": 3, "seed": 2**63 - 1}, ReplyParams(3, seed=2**63 - 1)),
        ({"seed": 0}, ReplyParams(6, seed=0)),
        ({"stop": "。"}, ReplyParams(6, stop=("。",))),
        ({"stop": ["。", "", "\n"]}, ReplyParams(6, stop=("。", "\n"))),
    ],
)
def test_params_are_read_with_their_defaults(params, expected):
    assert parse_params(params, 6) == expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "params is an object of temperature, top_p, max_tokens, seed, stop; got []"),
        ({"top_k": 3}, "unknown param 'top_k'; there are temperature, top_p, max_tokens, seed, stop"),
        ({"temperature": -0.1}, "temperature is a number from 0 to 2; got -0.1"),
        ({"temperature": float("nan")}, "temperature is a number from 0 to 2; got nan"),
        ({"temperature": True}, "temperature is a number from 0 to 2; got True"),
        ({"temperature": "1"}, "temperature is a number from 0 to 2; got '1'"),
        ({"top_p": 0}, "top_p is a number above 0 and at most 1; got 0"),
        ({"top_p": float("inf")}, "top_p is a number above 0 and at most 1; got inf"),
        ({"max_tokens": 0}, "max_tokens is a whole number from 1 to 8192; got 0"),
        ({"max_tokens": 10**400}, "max_tokens is a whole number from 1 to 8192; got 1000"),
        ({"max_tokens": 2.0}, "max_tokens is a whole number from 1 to 8192; got 2.0"),
        ({"seed": -2}, "seed is a whole number from -1 to 9223372036854775807; got -2"),
        ({"seed": 2**63}, "seed is a whole number from -1"),
        ({"stop": ["a"] * 5}, "stop is a text, or a list of at most 4, each of at most 100 characters"),
        ({"stop": ["a", 1]}, "stop is a text, or a list of at most 4"),
        ({"stop": "a" * 101}, "stop is a text, or a list of at most 4"),
    ],
)
def test_wrong_params_are_one_clear_line(params, message):
    with pytest.raises(ValueError) as caught:
        parse_params(params, 6)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_text_is_cut_at_the_first_of_its_stop_texts():
    assert cut("君は。どう思う", ("思", "。")) == ("君は", True)
    assert cut("君は", ("。",)) == ("君は", False)
    assert cut("君は", ()) == ("君は", False)


def test_an_end_that_may_become_a_stop_text_waits_until_that_is_certain():
    pieces = Pieces(("END",))
    assert [pieces.more(text) for text in ("aE", "N", "x", "END", "y")] == ["a", "", "ENx", "", ""]
    assert pieces.stopped


@given(st.text("abE 。", max_size=30), st.lists(st.text("abE 。", min_size=1, max_size=3), max_size=3))
def test_the_pieces_add_up_to_the_reply(text, stop):
    pieces, said, read = Pieces(stop), "", ""
    for character in text:
        if not pieces.stopped:
            read += character
            said += pieces.more(character)
    whole, stopped = cut(read.strip(), stop)
    assert said == pieces.text
    assert said + pieces.rest(whole) == whole
    assert stopped == pieces.stopped
