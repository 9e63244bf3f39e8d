"""Style profiles: what is read, what is refused and with which words, and that a profile survives being written."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import GOOD

from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import MEASURED, normalize, sentences, socratic_style, socratic_tone
from socratic_mlflow.style_profile import MEASURES, Feature, StyleProfile, parse_profile, read_profile, shipped, to_yaml


def test_the_good_one_is_read() -> None:
    assert parse_profile(GOOD, "mine.yaml") == StyleProfile(
        name="mine",
        what="mine alone",
        style=(Feature("ending", 0.7, ends=("やで",)),),
        tone=(Feature("ending", 0.5, ends=("ねん",), after=2),),
        tone_base=0.4,
    )


def test_lists_can_be_repeated_with_anchors() -> None:
    text = GOOD.replace("[やで]", "&ending [やで]").replace("[ねん]", "*ending")
    assert parse_profile(text, "mine.yaml") == parse_profile(GOOD.replace("ねん", "やで"), "mine.yaml")


def test_what_needs_no_field_has_a_default() -> None:
    least = "name: a\nstyle: [{name: b, weight: 1, ends: [c]}]\ntone: [{name: d, weight: -1, measure: markup}]"
    profile = parse_profile(least, "least.yaml")
    assert (profile.what, profile.tone_base) == ("", 0.0)
    assert profile.style == (Feature("b", 1.0, ends=("c",)),)
    assert profile.tone == (Feature("d", -1.0, measure="markup"),)


def test_the_shipped_profiles_are_read() -> None:
    assert "socratic" in shipped()
    for name in shipped():
        assert read_profile(name).name == name


def test_the_shipped_yaml_is_the_default_profile(repository: Path) -> None:
    folder = repository / "socratic_mlflow" / "profiles"
    text = (folder / "socratic.yaml").read_text(encoding="utf-8")
    assert parse_profile(text, "socratic.yaml") == SOCRATIC == read_profile("socratic")
    comment, _, rest = text.partition("\n")
    assert comment.startswith("# ")
    assert rest == to_yaml(SOCRATIC)


def test_a_file_is_read_with_and_without_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "mine.yaml").write_text(GOOD, encoding=encoding)
        assert read_profile(str(tmp_path / "mine.yaml")).name == "mine"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.yaml", "No such file or directory"),
        (".", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("fifo", "not a regular file"),
        ("latin1.yaml", "not UTF-8 text"),
        ("a\0b", "null byte"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes(b"name: \xe9")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=rf"cannot be read \(.*{reason}\); give a YAML file or one of .*socratic"):
        read_profile(name)


def test_of_a_file_that_is_too_long_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    # Beyond the limit, and what is buffered, stands what is no UTF-8.
    (tmp_path / "long.yaml").write_bytes(b"#" * 1_000_000 + b"\xff")
    with pytest.raises(ValueError, match=r"long\.yaml:1: too many characters; allowed: at most 100000"):
        read_profile(str(tmp_path / "long.yaml"))
    (tmp_path / "long.yaml").write_text(GOOD + "#" * (100_000 - len(GOOD)), encoding="utf-8")
    assert read_profile(str(tmp_path / "long.yaml")).name == "mine"


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD.replace("0.7", "7"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml:5: weight is '7'") as caught:
        read_profile(str(file))
    assert str(caught.value).startswith(f"{file}:5: ")


def test_the_names_of_the_measures_are_those_that_are_computed() -> None:
    assert tuple(sorted(MEASURES)) == tuple(sorted(MEASURED))


def findable(before: str, after: str) -> Callable[[str], bool]:
    return lambda phrase: (
        sentences(before + phrase + after) == [normalize(before + phrase + after)] and normalize(phrase).strip() != ""
    )


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
NAMES = st.from_regex(r"[\w-]{1,12}", fullmatch=True)
WHAT = st.one_of(st.just(""), TEXT.filter(lambda text: text.strip() != ""))


def phrases(before: str, after: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(TEXT.filter(findable(before, after)), min_size=1, max_size=3).map(tuple)


PLACE = st.one_of(
    st.fixed_dictionaries({"ends": phrases("あ", "")}, optional={"then": phrases("あ", ""), "after": st.integers(0, 100)}),
    st.fixed_dictionaries({"starts": phrases("", "あ")}),
    st.fixed_dictionaries({"opens": phrases("", "あ"), "contains": phrases("あ", "あ")}),
)
UNLESS = st.fixed_dictionaries({}, optional={"unless": phrases("あ", "あ")})
FLAGS = st.fixed_dictionaries({}, optional={"first": st.booleans(), "absent": st.booleans()})
MEASURE = st.sampled_from(MEASURES).map(lambda measure: {"measure": measure})


def features(fields: st.SearchStrategy[dict[str, Any]], low: float, high: float) -> st.SearchStrategy[tuple[Feature, ...]]:
    built = st.builds(
        lambda name, weight, what, given: Feature(name, weight, what, **given), NAMES, st.floats(low, high), WHAT, fields
    )
    return st.lists(built, min_size=1, max_size=3, unique_by=lambda feature: feature.name).map(tuple)


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


VALID = st.builds(
    StyleProfile,
    name=NAMES,
    what=WHAT,
    style=features(merged(PLACE, UNLESS), 0, 0.33),
    tone=features(st.one_of(MEASURE, merged(PLACE, UNLESS, FLAGS)), -1, 1),
    tone_base=st.floats(0, 1),
)


@settings(deadline=None)
@given(VALID)
def test_a_profile_survives_being_written(profile: StyleProfile) -> None:
    read = parse_profile(to_yaml(profile), "written")
    assert read == profile
    assert read.digest() == profile.digest()


@settings(deadline=None)
@given(VALID, st.text())
def test_any_profile_scores_any_text(profile: StyleProfile, text: str) -> None:
    assert 0.0 <= socratic_style(text, profile) <= 1.0
    assert 0.0 <= socratic_tone(text, profile) <= 1.0


CHANGES: dict[str, Any] = {
    "name": "other", "weight": 0.25, "ends": ("が",), "then": ("な",), "starts": ("が",), "opens": ("が",),
    "contains": ("が",), "unless": ("が",), "after": 1, "first": True, "absent": True, "measure": "markup",
}  # fmt: skip


def test_the_digest_is_of_what_scores() -> None:
    feature = Feature("it", 0.5, "what", ends=("か",))
    profile = StyleProfile("one", (feature,), (feature,), 0.1, "what")
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Feature)} - {"what"}
    others = [dataclasses.replace(feature, **{name: value}) for name, value in CHANGES.items()]
    profiles = [
        profile,
        *(dataclasses.replace(profile, style=(other,)) for other in others),
        *(dataclasses.replace(profile, tone=(other,)) for other in others),
        dataclasses.replace(profile, name="two"),
        dataclasses.replace(profile, tone_base=0.2),
        dataclasses.replace(profile, tone=(feature, others[0])),
    ]
    assert len({one.digest() for one in profiles}) == len(profiles)


def test_the_digest_is_not_of_descriptions() -> None:
    feature = Feature("it", 0.5, ends=("か",))
    described = dataclasses.replace(feature, what="what it is")
    plain = StyleProfile("one", (feature,), (feature,))
    assert StyleProfile("one", (described,), (described,), what="what they are").digest() == plain.digest()
    assert len(plain.digest()) == 64


def test_the_digest_of_the_default_is_the_same_in_every_process() -> None:
    program = "from socratic_mlflow.style_profile import read_profile; print(read_profile('socratic').digest())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == SOCRATIC.digest() == read_profile("socratic").digest()
