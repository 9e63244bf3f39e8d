from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from socratic_mlflow.config import Config, LoraConfig, TrainingConfig, allowed, flatten, with_values
from socratic_mlflow.options import Option, options

NUMBERS = [option for option in options() if option.type in (int, float)]


def by_key(option: Option) -> str:
    return option.key


def beyond(option: Option) -> list[Any]:
    """The nearest values that lie outside the range of a numeric field."""
    meta = option.spec.metadata
    if option.type is int:
        return [meta["low"] - 1] + ([meta["high"] + 1] if meta["high"] is not None else [])
    low = meta["above"] if meta["above"] is not None else math.nextafter(meta["low"], -math.inf)
    return [low, math.nextafter(meta["high"], math.inf)]


def edges(option: Option) -> list[Any]:
    """The outermost values that a numeric field still takes."""
    meta = option.spec.metadata
    low = meta["low"] if meta["above"] is None else math.nextafter(meta["above"], math.inf)
    return [option.type(low)] + ([option.type(meta["high"])] if meta["high"] is not None else [])


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.epochs = 3  # type: ignore[misc]


def test_two_configurations_share_no_state() -> None:
    assert Config() == Config()
    assert hash(Config()) == hash(Config())


@pytest.mark.parametrize("option", options(), ids=by_key)
def test_every_field_has_a_help_and_a_default_that_is_allowed(option: Option) -> None:
    assert len(option.spec.metadata["help"]) > 3
    assert isinstance(option.spec.default, option.type)
    assert flatten(with_values(Config(), {option.key: option.spec.default})) == flatten(Config())


@pytest.mark.parametrize("option", NUMBERS, ids=by_key)
def test_values_just_outside_the_range_are_refused(option: Option) -> None:
    for value in beyond(option):
        with pytest.raises(ValueError) as caught:
            with_values(Config(), {option.key: value})
        message = str(caught.value)
        assert message == f"{option.key} is {value!r}; allowed: {allowed(option.spec)}"


@pytest.mark.parametrize("option", NUMBERS, ids=by_key)
def test_values_at_the_edge_of_the_range_are_taken(option: Option) -> None:
    for value in edges(option):
        assert flatten(with_values(Config(), {option.key: value}))[option.key] == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("option", [option for option in NUMBERS if option.type is float], ids=by_key)
def test_no_field_takes_nan_or_infinity(option: Option, value: float) -> None:
    with pytest.raises(ValueError, match=option.key):
        with_values(Config(), {option.key: value})


@pytest.mark.parametrize("option", [o for o in options() if o.spec.metadata["choices"]], ids=by_key)
def test_choices_are_exact_and_named_in_the_error(option: Option) -> None:
    for choice in option.spec.metadata["choices"]:
        assert flatten(with_values(Config(), {option.key: choice}))[option.key] == choice
    with pytest.raises(ValueError) as caught:
        with_values(Config(), {option.key: "nonsense"})
    assert str(caught.value).startswith(f"{option.key} is 'nonsense'; allowed: one of ")
    assert all(choice in str(caught.value) for choice in option.spec.metadata["choices"])


def test_allowed_says_the_range_in_words_and_in_full() -> None:
    spec = {option.key: option.spec for option in options()}
    assert allowed(spec["training.epochs"]) == "at least 1 and at most 100000"
    assert allowed(spec["training.learning_rate"]) == "above 0 and at most 1"
    assert allowed(spec["training.seed"]) == "at least 0 and at most 4294967295"
    assert allowed(spec["lora.bias"]) == "one of none, all, lora_only"
    assert allowed(spec["model.revision"]) == ""


def test_flatten_gives_dotted_keys_in_declared_order() -> None:
    flat = flatten(Config())
    assert list(flat) == [option.key for option in options()]
    assert flat["training.learning_rate"] == 8e-5
    assert flat["lora.r"] == 16


def test_with_values_changes_a_copy_and_nothing_else() -> None:
    before = Config()
    after = with_values(before, {"training.epochs": 3, "training.seed": 7, "lora.r": 8})
    assert before == Config()
    changed = {key: value for key, value in flatten(after).items() if value != flatten(before)[key]}
    assert changed == {"training.epochs": 3, "training.seed": 7, "lora.r": 8}


def test_a_section_checks_itself_where_it_is_built_directly() -> None:
    with pytest.raises(ValueError, match=r"^lora\.r is 0; allowed: at least 1"):
        LoraConfig(r=0)
    with pytest.raises(ValueError, match=r"^training\.weight_decay is -0\.1; allowed: at least 0 and at most 1$"):
        TrainingConfig(weight_decay=-0.1)


@pytest.mark.parametrize("name", ["a/b", "models:x", "/", ":"])
def test_a_model_name_that_the_registry_would_refuse_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_values(Config(), {"registry.registered_model_name": name})
    assert str(caught.value).startswith(f"registry.registered_model_name is {name!r}; allowed: ")
