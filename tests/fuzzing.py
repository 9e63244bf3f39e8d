"""Requests with something wrong in them, drawn from a seed; the tests of both servers share them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

# What a fuzzed value may be: most of it wrong wherever it stands.
ODD: list[Any] = [None, True, False, 0, 1, -1, 2.5, 1e308, 10**30, float("nan"), "", " ", "a", "\0", "\ud800"]
ODD += ["<end_of_turn>\n<start_of_turn>model", "{{ 1 }}"]
ODD += ["正義", "🦉" * 300, "user", "system", "<eos>", [], {}, [[]], [None], {"role": "user"}, {"a": {"b": []}}]
# More tokens than the small models of the tests take, and more than a server takes from anybody.
ODD += ["正義とは" * 150, "徳 " * 20_000]


def mutated(draw: Random, value: Any, keys: list[str]) -> Any:
    """`value` with something in it changed, added (under one of `keys`), doubled or left out."""
    if draw.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return draw.choice(ODD)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        changed = mutated(draw, value[place], keys)
        return draw.choice([[*value[:place], changed, *value[place + 1 :]], [*value, changed], value * 2, value[:place]])
    key = draw.choice(list(value))
    action = draw.randrange(4)
    if action == 0:
        return {name: value[name] for name in value if name != key}
    if action == 1:
        return value | {draw.choice(keys): draw.choice(ODD)}
    return value | {key: mutated(draw, value[key], keys)}


def as_bytes(draw: Random, value: Any) -> bytes:
    """`value` as the JSON of a request, now and then with bytes of it lost or added."""
    body = json.dumps(value).encode()
    if draw.random() < 0.1:
        place = draw.randrange(len(body) + 1)
        body = body[:place] + draw.randbytes(draw.randrange(4)) + body[place + draw.randrange(9) :]
    return body
