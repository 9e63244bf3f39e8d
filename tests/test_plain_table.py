"""What is written into a terminal: tables and lines whose text comes from elsewhere."""

from __future__ import annotations

import pytest

from socratic_mlflow.plain_table import printable, safe, table

STEERING = ["\x1b[31m", "\x07", "\x9b", "\u202e", "\u2028", "\r", "\v", "\x7f", "\ud800", "\U000e0001"]


@pytest.mark.parametrize("text", STEERING)
def test_what_could_steer_a_terminal_is_escaped_in_a_cell_and_in_a_reply_alike(text):
    assert safe(f"君{text}") == printable(f"君{text}") == "君" + text.encode("unicode_escape").decode()


@pytest.mark.parametrize("text", ["学習率　比較", "👩‍👧", "a\u00a0b", "$x_{$"])
def test_what_people_write_stays(text):
    assert safe(text) == printable(text) == text


def test_a_cell_is_one_line_and_a_reply_may_have_several():
    assert safe("a\n\tb") == "a\\n\\tb"
    assert printable("a\n\tb") == "a\n\tb"
    assert len(table(["x"], [["a\nb"]]).splitlines()) == 3
