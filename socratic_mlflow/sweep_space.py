"""What a sweep searches: a small YAML of fields with a range or choices each, checked against what the fields take.

    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    lora_r: {choices: [4, 8, 16]}

Knows nothing of Optuna. Standard library and PyYAML.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratic_mlflow.config import Config, shown, with_values
from socratic_mlflow.files import read_text
from socratic_mlflow.options import NOT_GIVEN, Option, by_name, parse_value, unknown_name
from socratic_mlflow.yaml_nodes import compose

SHIPPED = Path(__file__).parent / "spaces"
_LARGEST_BYTES = 64 * 1024
_MOST_STEPS = 1_000_000
_RANGE = {"low", "high", "log", "step"}
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool")}
# Where files lie, and by what the trials are compared.
_FIXED = ("run.", "registry.", "evaluation.")
_ENTRY = "an entry is {low: .., high: ..}, with log: true or step: .. where wanted, or {choices: [.., ..]}"


@dataclass(frozen=True)
class Dimension:
    """One searched field, by its `flag`: `choices`, or numbers from `low` to `high`, in a step (None: any) or on a log
    scale."""

    key: str
    flag: str
    type: type
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    def in_words(self) -> str:
        """For people and params: '0.0001 to 0.01, log scale' or 'one of 4, 8'."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        how = ", log scale" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{how}"


def read_space(name: str, preset: str, fixed: Collection[str] = ()) -> list[Dimension]:
    """The dimensions in the YAML file `name`, or for 'default' those that ship for `preset`; those in `fixed` (dotted keys)
    are left out. ValueError (one line: file, line, field) for what cannot be searched."""
    file = SHIPPED / f"{preset}.yaml" if name == NOT_GIVEN else Path(name)
    found: dict[str, Dimension] = {}
    for node, entry in _entries(file):
        where = f"{file}:{node.start_mark.line + 1}: "
        option = _option(str(node.value), where)
        if option.key in found:
            raise ValueError(f"{where}{option.flag} is given twice; leave one of the two")
        try:
            found[option.key] = _dimension(option, _properties(entry))
        except ValueError as error:
            raise ValueError(f"{where}{option.flag}: {error}") from None
    searched = [dimension for key, dimension in found.items() if key not in fixed]
    if not searched:
        left = "; all its fields are given as flags, which fixes them" if found else ""
        raise ValueError(f"{file}: names nothing to search{left}")
    return searched


def _entries(file: Path) -> list[tuple[Any, Any]]:
    try:
        text = read_text(file, _LARGEST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; 'space' is a YAML file of fields to search") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    root = compose(text.removeprefix("\ufeff"), str(file))
    if root is None or root.id != "mapping" or any(key.id != "scalar" for key, _ in root.value):
        raise ValueError(f"{file}: expected 'field: {{low: .., high: ..}}' lines")
    return list(root.value)


def _option(name: str, where: str) -> Option:
    known = by_name()
    if name not in known:
        raise ValueError(unknown_name(name, where))
    if known[name].key.startswith(_FIXED):
        raise ValueError(f"{where}{name} is the same for all trials of a sweep, so it is not searched; give it as a flag")
    return known[name]


def _properties(entry: Any) -> dict[str, Any]:
    """{property: text, or list of texts}; ValueError for anything else."""
    found: dict[str, Any] = {}
    for key, value in entry.value if entry.id == "mapping" else ():
        scalars = value.value if value.id == "sequence" else [value]
        if key.value in found or not all(each.id == "scalar" and each.tag in _PLAIN for each in (key, *scalars)):
            raise ValueError(_ENTRY)
        texts = [str(each.value) for each in scalars]
        found[key.value] = texts if value.id == "sequence" else texts[0]
    if not (found.keys() == {"choices"} or {"low", "high"} <= found.keys() <= _RANGE):
        raise ValueError(_ENTRY)
    if any(isinstance(value, list) != (key == "choices") for key, value in found.items()):
        raise ValueError(_ENTRY)
    return found


def _dimension(option: Option, given: Mapping[str, Any]) -> Dimension:
    if "choices" in given:
        choices = tuple(dict.fromkeys(_value(option, text) for text in given["choices"]))
        if not choices:
            raise ValueError("choices is empty")
        return Dimension(option.key, option.flag, option.type, choices)
    if option.type not in (int, float):
        raise ValueError("is no number, so it takes choices")
    low, high = _value(option, given["low"]), _value(option, given["high"])
    log, step = _truth(given.get("log", "false")), _step(option, given.get("step"))
    if low >= high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if log and low <= 0:
        raise ValueError(f"log: true takes a low above 0, found {low:g}")
    if step and not 1 <= (high - low) / step <= _MOST_STEPS:
        raise ValueError(f"step {step:g} does not go into the range from {low:g} to {high:g} 1 to {_MOST_STEPS} times")
    if log and step:
        raise ValueError("log and step exclude each other; leave one of the two")
    return Dimension(option.key, option.flag, option.type, (), low, high, step, log)


def _value(option: Option, text: str) -> Any:
    """`text` as the field's type; ValueError (one line) where the field does not take it."""
    value = parse_value(option, text)
    with_values(Config(), {option.key: value})
    return value


def _step(option: Option, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        step = option.type(text)
        if step > 0:
            return float(step) if option.type is float else int(step)
    except ValueError:
        pass
    raise ValueError(f"step is {shown(text)}; it takes a {'whole ' if option.type is int else ''}number above 0")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"log is {shown(text)}; it takes true or false")
    return text.lower() == "true"
