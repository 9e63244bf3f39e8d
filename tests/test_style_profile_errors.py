"""What is wrong in a profile's file is said in one line, with the file, the line and what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import GOOD

from socratic_mlflow.style_profile import parse_profile, to_yaml


def error(text: str) -> str:
    """What `parse_profile` says of it, in one line."""
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        parse_profile(text, "mine.yaml")
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message.removeprefix("mine.yaml:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: mine", "nam: mine", "1: unknown field 'nam'; a profile has name, what, style, tone_base, tone"),
        ("name: mine\n", "", "1: a profile needs the field 'name'"),
        ("name: mine", "? [a]\n: b", "1: unknown field a list; a profile has"),
        ("name: mine", "<<: {name: mine}", "1: unknown field '<<'; a profile has"),
        ("name: mine", "name: mine\nname: yours", "2: field 'name' stands twice"),
        ("name: mine", "name: my style", "1: name is 'my style'; allowed: 1 to 60 letters, digits, _ and -"),
        ("name: mine", "name: ../mine", "1: name is '../mine'; allowed"),
        ("name: mine", 'name: "a\\nb"', "1: name is 'a\\nb'; allowed"),
        ("name: mine", "name: " + "x" * 61, f"1: name is '{'x' * 40}'...; allowed"),
        ("name: mine", "name: [mine]", "1: name is a list; allowed"),
        ("name: mine", "name: ", "1: name is ''; allowed"),
        ("name: mine", "name: !!python/name:os.system mine", "1: a tag ('!...'); allowed: plain text,"),
        ("what: mine alone", "what: {}", "2: what is a mapping; allowed: text, not empty"),
        ("what: mine alone", 'what: "\\a"', "2: what is '\\x07'; allowed: text, not empty, without control characters"),
        ("what: mine alone", 'what: "\\ud800"', "2: what is '\\ud800'; allowed"),
        ("what: mine alone", "style: 5", "3: field 'style' stands twice"),
        ("- name: ending\n  weight: 0.7\n  ends: [やで]", "- 5", "4: a feature must be 'field: value' lines"),
        ("weight: 0.7", "wait: 0.7", "5: unknown field 'wait'; a feature has name, weight, what, ends, starts, opens"),
        ("  weight: 0.7\n", "", "4: a feature needs the field 'weight'"),
        ("name: ending\n  weight: 0.7", "weight: 0.7", "4: a feature needs the field 'name'"),
        ("weight: 0.7", "weight: much", "5: weight is 'much'; allowed: a number from -1 to 1"),
        *(
            ("weight: 0.7", f"weight: {value}", f"5: weight is {shown}; allowed: a number from -1 to 1")
            for value, shown in {
                **{word: repr(word) for word in ("nan", ".nan", ".inf", "-.inf", "1e999", "1.01", "-1.01", "~", "true")},
                "": "''",
                "[0.5]": "a list",
                "{a: 1}": "a mapping",
                '"' + "9" * 5000 + '"': f"'{'9' * 40}'...",
            }.items()
        ),
        ("weight: 0.7", "weight: -0.7", "4: the weights under style must be at least 0 and add up to at most 1"),
        ("tone_base: 0.4", "tone_base: 2", "7: tone_base is '2'; allowed: a number from 0 to 1"),
        ("tone_base: 0.4", "tone_base: .nan", "7: tone_base is '.nan'; allowed"),
        ("after: 2", "after: 1.5", "12: after is '1.5'; allowed: a whole number from 0 to 100"),
        ("after: 2", "after: 101", "12: after is '101'; allowed"),
        ("first: false", "first: no", "13: first is 'no'; allowed: true or false"),
        ("first: false", "absent: [true]", "13: absent is a list; allowed: true or false"),
        ("first: false", "measure: markup", "9: a feature needs phrases (ends, starts, opens, contains) or a measure,"),
        ("ends: [ねん]\n  after: 2", "absent: true", "9: a feature needs phrases (ends, starts,"),
        ("ends: [ねん]\n  after: 2\n  first: false", "measure: noise", "11: measure is 'noise'; allowed: one of markup,"),
        ("ends: [ねん]\n  after: 2", "measure: markup", "9: a feature with a measure has no fields but name, weight, what"),
        ("ends: [ねん]\n  after: 2", "starts: [せや]\n  after: 2", "9: then and after belong to ends, which"),
        ("ends: [ねん]\n  after: 2", "starts: [せや]\n  then: [な]", "9: then and after belong to ends, which"),
        ("ends: [やで]", "ends: [やで]\n  first: true", "4: measure, first and absent are for features"),
        ("ends: [やで]", "measure: markup", "4: measure, first and absent are for features under tone"),
        ("first: false", "\n- {name: ending, weight: 0, ends: [な]}", "9: two features under tone are called 'ending'"),
        *(
            ("ends: [やで]", f"ends: {value}", "6: ends must be a list of 1 to 200 phrases, such as [")
            for value in ("やで", "[]", "{}", "~", f"[{', '.join(f'や{number}' for number in range(201))}]")
        ),
        *(
            ("ends: [やで]", f"ends:\n  - ねん\n  - {value}", f"8: {message}")
            for value, message in {
                "[やで]": "a phrase of ends is a list; allowed: text, not empty, without control characters",
                '""': "a phrase of ends is ''; allowed: text",
                '"\\u3000"': "a phrase of ends is '\\u3000'; allowed: text",
                '"や\\0で"': "a phrase of ends is 'や\\x00で'; allowed: text",
                "や" * 41: "ends has a phrase of 41 characters; allowed: at most 40",
                "やで？": "ends cannot find 'やで？': marks that end a sentence or surround it are cut off",
                "や。で": "ends cannot find 'や。で': marks",
                '"や\\nで"': "ends cannot find 'や\\nで': marks",
                "「やで」": "ends cannot find '「やで」': marks",
                "や\\nで": "ends cannot find 'や\\\\nで': marks",
                '"\\u200b\\ufe0f"': "ends cannot find '\\u200b\ufe0f': nothing in it is visible",
                "｡": "ends cannot find '｡': marks",
            }.items()
        ),
        ("ends: [やで]", "starts: [「せや]", "6: starts cannot find '「せや': marks"),
        ("ends: [やで]", "opens: [「せや]", "6: opens cannot find '「せや': marks"),
        ("ends: [やで]", "contains: [せや。]", "6: contains cannot find 'せや。': marks"),
        ("ends: [やで]", "ends: [やで]\n  then: [な！]", "7: then cannot find 'な！': marks"),
        ("ends: [やで]", "ends: [やで]\n  unless: [やで, やで！]", "7: unless cannot find 'やで！': marks"),
        ("ends: [やで]", "ends: *nothing", "6: not valid YAML (found undefined alias 'nothing')"),
        ("ends: [やで]", "ends: [やで", "7: not valid YAML ("),
        ("ends: [やで]", "ends: [\0]", "6: not valid YAML (special characters are not allowed)"),
        ("ends: [やで]", f"ends: {'[' * 1000}", "1: not valid YAML (nested too deeply)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_and_what_is_allowed(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) >= 1
    assert error(GOOD.replace(old, new, 1)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "1: a profile must be 'field: value' lines; fields: name,")
            for text in ("", "# nothing", "5", "~", "- a", "[]")
        ),
        ("{}", "1: a profile needs the field 'name'"),
        ("&a [*a]", "1: a profile must be"),
        ("name: mine\nstyle: []\ntone: []", "2: style must be a list of features that is not empty"),
        ("name: mine\nstyle: &a [*a]\ntone: *a", "2: a feature must be 'field: value' lines"),
        ("&a {name: *a, style: *a, tone: *a}", "1: style must be a list of features that is not empty"),
        (f"---\n{GOOD}---\n{GOOD}", "15: not valid YAML (but found another document)"),
        ("a: b: c", "1: not valid YAML (mapping values are not allowed here)"),
        ("name: mine\n\tstyle:", "2: not valid YAML ("),
        ('"' + "x" * 200_000 + '"', "1: too many characters; allowed: at most 100000"),
        ("*" + "x" * 50_000, "1: not valid YAML (found undefined alias 'xxx"),
        ("[" * 50_000, "1: not valid YAML (nested too deeply)"),
        ("!!python/object/apply:os.system [ls]", "1: a tag ('!...'); allowed"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_profile_at_all(text: str, message: str) -> None:
    assert error(text).startswith(message)


BITS = [
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "- ",
    "&a ",
    "*a",
    "!x ",
    "|",
    '"',
    "#",
    "\n",
    "\n  ",
    "\t",
    "\0",
    "\ufeff",
    "\ud800",
    "nan",
    "~",
]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 9), st.sampled_from(BITS)), min_size=1, max_size=5))
def test_a_mangled_file_is_read_or_refused_in_one_line(changes: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for start, length, bit in changes:
        text = text[:start] + bit + text[start + length :]
    try:
        profile = parse_profile(text, "mine.yaml")
    except ValueError:
        assert error(text)
    else:
        assert parse_profile(to_yaml(profile), "again") == profile
