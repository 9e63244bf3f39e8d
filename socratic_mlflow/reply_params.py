"""How a reply is wanted (temperature, top_p, max_tokens, seed, stop): defaults, ranges and what is wrong with a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from socratic_mlflow.config import Config, shown
from socratic_mlflow.conversations import BadRequestError

_MOST_STOPS, _LONGEST_STOP = 4, 100
_MOST_TOKENS = 8192
_HIGHEST_SEED = 2**63 - 1
# MLflow declares a parameter by a value of its type: it can spell neither an absent number nor an empty list of texts.
_NO_SEED, _NO_STOP = -1, ""


@dataclass(frozen=True)
class ReplyParams:
    """The params of one request. `temperature` 0 is greedy; `seed` None draws other replies each time; texts in `stop`
    end a reply and are no part of it."""

    max_tokens: int = Config().evaluation.max_new_tokens
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


NAMES = ("temperature", "top_p", "max_tokens", "seed", "stop")


def declared(max_tokens: int) -> dict[str, Any]:
    """{param: default} as a model's signature shows them; each default parses to that of `ReplyParams`."""
    return {"temperature": 0.0, "top_p": 1.0, "max_tokens": max_tokens, "seed": _NO_SEED, "stop": [_NO_STOP]}


def parse_params(given: Mapping[str, Any] | None, default_max_tokens: int) -> ReplyParams:
    """`given` by name, null meaning the default; BadRequestError (one line) for an unknown name, type or range."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise BadRequestError(f"params is an object of {', '.join(NAMES)}; got {shown(given)}")
    if unknown := [name for name in given if name not in NAMES]:
        raise BadRequestError(f"unknown param {shown(unknown[0])}; there are {', '.join(NAMES)}")
    values = {name: value for name, value in given.items() if value is not None}
    return ReplyParams(
        temperature=_number("temperature", values.get("temperature", 0.0), 0, 2),
        top_p=_number("top_p", values.get("top_p", 1.0), 0, 1, above=True),
        max_tokens=_whole("max_tokens", values.get("max_tokens", default_max_tokens), 1, _MOST_TOKENS),
        seed=_seed(values.get("seed", _NO_SEED)),
        stop=_stops(values.get("stop", [])),
    )


def _number(name: str, value: Any, low: float, high: float, above: bool = False) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not low <= value <= high or (above and value == low) or not math.isfinite(value):
        between = f"above {low} and at most {high}" if above else f"from {low} to {high}"
        raise BadRequestError(f"{name} is a number {between}; got {shown(value)}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequestError(f"{name} is a whole number from {low} to {high}; got {shown(value)}")
    return value


def _seed(value: Any) -> int | None:
    seed = _whole("seed", value, _NO_SEED, _HIGHEST_SEED)
    return None if seed == _NO_SEED else seed


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > _MOST_STOPS or not all(map(_is_stop, texts)):
        raise BadRequestError(
            f"stop is a text, or a list of at most {_MOST_STOPS}, each of at most {_LONGEST_STOP} characters; "
            f"got {shown(value)}"
        )
    return tuple(text for text in texts if text != _NO_STOP)


def _is_stop(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _LONGEST_STOP
