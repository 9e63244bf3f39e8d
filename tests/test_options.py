from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.config import Config, allowed, flatten, with_values
from socratic_mlflow.options import (
    NOT_GIVEN,
    Option,
    as_params,
    build_config,
    by_name,
    options,
    parse_values,
    to_yaml,
    unknown_name,
)
from socratic_mlflow.presets import PRESETS

FREE = [option for option in options() if option.key != "run.preset"]


def by_key(option: Option) -> str:
    return option.key


def values_for(option: Option) -> tuple[Any, Any]:
    """Two different values that the field takes; the first is not its default."""
    choices = option.spec.metadata["choices"]
    if option.type is bool or choices:
        return next(value for value in choices or (True, False) if value != option.spec.default), option.spec.default
    if option.type is int:
        return 17, 19
    return (0.123, 0.456) if option.type is float else ("one thing", "another")


def test_every_field_has_one_flag_and_one_key_of_its_own() -> None:
    names = Counter(name for option in options() for name in {option.flag, option.key})
    assert set(names.values()) == {1}
    assert {option.key for option in options()} == set(flatten(Config()))
    assert set(by_name()) == set(names)
    assert all(option.flag.isidentifier() for option in options())


@pytest.mark.parametrize("option", FREE, ids=by_key)
def test_default_gives_way_to_preset_then_yaml_then_flag(option: Option, tmp_path: Path) -> None:
    in_yaml, in_flag = values_for(option)
    file = tmp_path / "my.yaml"
    file.write_text(f"{option.key}: {in_yaml}\n", encoding="utf-8")

    def value(given: dict[str, str], yaml_path: str | None = None) -> Any:
        return flatten(build_config({"preset": "embedded"} | given, yaml_path))[option.key]

    assert value({}) == PRESETS["embedded"].get(option.key, option.spec.default)
    assert value({}, str(file)) == in_yaml
    assert value({option.flag: str(in_flag)}, str(file)) == in_flag
    assert value({option.flag: NOT_GIVEN}, str(file)) == in_yaml


def test_a_flag_equal_to_the_default_still_beats_preset_and_yaml(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("preset: embedded\nlearning_rate: 0.5\n", encoding="utf-8")
    assert build_config({}, str(file)).training.learning_rate == 0.5
    assert build_config({"learning_rate": "8e-5"}, str(file)).training.learning_rate == 8e-5


def test_the_preset_itself_may_stand_in_yaml_or_flag(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("run:\n  preset: embedded\n", encoding="utf-8")
    assert build_config({}, str(file)).model.base_model == "embedded"
    assert build_config({"preset": "gemma-2-2b-jpn-it"}, str(file)).model.base_model == "google/gemma-2-2b-jpn-it"
    assert build_config({"preset": NOT_GIVEN}, str(file)).run.preset == "embedded"


@pytest.mark.parametrize("option", options(), ids=by_key)
def test_flag_and_dotted_key_mean_the_same(option: Option) -> None:
    text = str(values_for(option)[0])
    assert parse_values({option.flag: text}) == parse_values({option.key: text}) != {}


@pytest.mark.parametrize("option", options(), ids=by_key)
def test_not_given_counts_as_not_given(option: Option) -> None:
    assert parse_values({option.flag: NOT_GIVEN, option.key: NOT_GIVEN}) == {}


@pytest.mark.parametrize(("cuda", "preset"), [(True, "gemma-2-2b-jpn-it"), (False, "embedded")])
def test_auto_preset_asks_the_machine(cuda: bool, preset: str) -> None:
    for requested in ({}, {"preset": "auto"}, {"preset": NOT_GIVEN}):
        assert build_config(requested, cuda_available=lambda: cuda).run.preset == preset


def test_a_named_preset_does_not_ask_the_machine() -> None:
    def must_not_be_asked() -> bool:
        raise AssertionError("imports torch for nothing")

    assert build_config({"preset": "embedded"}, cuda_available=must_not_be_asked).run.preset == "embedded"


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("epohcs", "epochs"),
        ("epoch", "epochs"),
        ("learning-rate", "learning_rate"),
        ("basemodel", "base_model"),
        ("lora_rank", "lora_r"),
        ("batchsize", "batch_size"),
        ("training.lerning_rate", "training.learning_rate"),
        ("registered_model", "registered_model_name"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_field(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_values({wrong: "1"})
    assert str(caught.value) == f"unknown field {wrong!r}; did you mean {nearest}?"


def test_a_name_like_no_field_is_answered_with_where_to_look() -> None:
    assert unknown_name("zzzzzz") == "unknown field 'zzzzzz'; 'socratic-mlflow train --help' lists all fields"


@pytest.mark.parametrize("text", ["", "  ", "nonsense", "1,5", "3 4", "0x10", "１e"])
@pytest.mark.parametrize("option", [option for option in options() if option.type is not str], ids=by_key)
def test_a_value_of_the_wrong_kind_names_field_value_and_range(option: Option, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_values({option.flag: text})
    message = str(caught.value)
    assert message.startswith(f"{option.flag} ({option.key}) is {text!r}; it takes ")
    assert allowed(option.spec) in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["3.0", "1e3", "nan", "inf"])
def test_a_whole_number_is_asked_for_where_one_is_meant(text: str) -> None:
    with pytest.raises(ValueError, match="it takes a whole number"):
        parse_values({"epochs": text})


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "NaN", "-1e-3", "0", "1.5"])
def test_a_learning_rate_out_of_range_names_the_range(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_values({"learning_rate": text})
    assert str(caught.value) == f"training.learning_rate is {float(text)!r}; allowed: above 0 and at most 1"


@pytest.mark.parametrize("option", [option for option in options() if option.type is str], ids=by_key)
@pytest.mark.parametrize("text", ["", "   ", "\u3000", "a\x00b"])
def test_no_text_field_takes_emptiness_or_a_null_character(option: Option, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_values({option.flag: text})
    assert option.key in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("1", True),
        ("YES", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("no", False),
    ],
)
def test_switches_take_the_usual_words(text: str, value: bool) -> None:
    assert parse_values({"load_in_4bit": text}) == {"quantization.load_in_4bit": value}


@pytest.mark.parametrize("text", [" 5 ", "5", "+5", "05"])
def test_spaces_around_a_value_do_not_count(text: str) -> None:
    assert parse_values({"epochs": text}) == {"training.epochs": 5}


def test_params_are_text_under_dotted_keys() -> None:
    params = as_params(build_config({"preset": "embedded", "epochs": "3"}))
    assert params.keys() == flatten(Config()).keys()
    assert all(section and name for section, _, name in (key.partition(".") for key in params))
    assert all(type(value) is str and value for value in params.values())
    assert params["training.epochs"] == "3"
    assert params["training.learning_rate"] == "0.001"
    assert params["model.base_model"] == "embedded"


@pytest.mark.parametrize("preset", PRESETS)
def test_params_say_the_whole_configuration_again(preset: str) -> None:
    config = build_config({"preset": preset, "learning_rate": "0.0123", "data": "日本語 の/ファイル.json"})
    assert build_config(as_params(config)) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_yaml_round_trip_of_a_preset(preset: str, tmp_path: Path) -> None:
    config = build_config({"preset": preset, "epochs": "7"})
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert build_config({}, str(file)) == config


# What YAML 1.1 would read as something else if it were not quoted, and what folds over lines.
@pytest.mark.parametrize(
    "text", ["null", "yes", "1e-3", "0123", "2026-11-21", "~", "a: b", "#x", "問い", "long words " * 30]
)
def test_yaml_round_trip_of_awkward_text(text: str, tmp_path: Path) -> None:
    config = with_values(build_config({"preset": "embedded"}), {"model.revision": text.strip()})
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert build_config({}, str(file)) == config


@given(st.dictionaries(st.sampled_from([*by_name(), "nonsense"]), st.text(max_size=12), max_size=4))
def test_any_text_gives_a_configuration_or_one_line(given_values: dict[str, str]) -> None:
    try:
        config = build_config(given_values)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert dataclasses.is_dataclass(config)
        assert build_config(as_params(config)) == config
