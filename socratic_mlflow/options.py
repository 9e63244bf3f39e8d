"""Text from outside (flags, `-P`, YAML, a run's config.yaml) -> a checked Config. `config.py` declares the fields.

Every field has two names: its dotted key (`training.learning_rate`) and a flag (`learning_rate`, or the short name that
the field declares). Both are accepted everywhere. Standard library and, for YAML, PyYAML.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from socratic_mlflow.config import Config, allowed, flatten, shown, with_values
from socratic_mlflow.presets import PRESETS, choose_preset
from socratic_mlflow.run_config import check_inputs, fetch, is_run_config, other_libraries, rerun_folder, taken_over
from socratic_mlflow.yaml_nodes import compose

# MLproject gives every declared parameter this default: it means "not given", so that presets and YAML keep their say.
NOT_GIVEN = "default"
# Bytes. A configuration with a comment on every field has a tenth of it.
_LARGEST = 256 * 1024

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of the configuration as the outside sees it."""

    key: str
    flag: str
    type: type
    spec: dataclasses.Field[Any]


def options() -> list[Option]:
    """All fields, in declared order."""
    found = []
    for section, section_type in get_type_hints(Config).items():
        types = get_type_hints(section_type)
        for spec in dataclasses.fields(section_type):
            flag = spec.metadata["flag"] or spec.name
            found.append(Option(f"{section}.{spec.name}", flag, types[spec.name], spec))
    return found


def by_name() -> dict[str, Option]:
    """Options under their flag and under their dotted key."""
    table = {option.flag: option for option in options()}
    return table | {option.key: option for option in options()}


def unknown_name(name: str, where: str = "") -> str:
    """One line for a field that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, by_name(), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "; 'socratic-mlflow train --help' lists all fields"
    return f"{where}unknown field {name!r}{hint}"


def parse_value(option: Option, value: Any) -> Any:
    """`value` (text, or a scalar from YAML) as the field's type; ValueError with the field's name if it is none."""
    text = str(value).strip()
    if option.type is str:
        if not text:
            raise ValueError(f"{option.flag} ({option.key}) is {shown(value)}; it takes text that is not empty")
        return text
    try:
        return _SCALARS[option.type](text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[option.type]
        limits = f" ({allowed(option.spec)})" if allowed(option.spec) else ""
        raise ValueError(f"{option.flag} ({option.key}) is {shown(value)}; it takes {kind}{limits}") from None


def _plain(text: str) -> str:
    """`text`; ValueError where Python would read a number that a person hardly meant (1_000, full-width digits)."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return text


_SCALARS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: (dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False))[text.lower()],
    int: lambda text: int(_plain(text)),
    float: lambda text: float(_plain(text)),
}


def parse_values(given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """{flag or dotted key: text} -> {dotted key: value}; NOT_GIVEN entries drop out. ValueError names what is wrong."""
    known, values = by_name(), {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown_name(name, where))
        if value != NOT_GIVEN:
            try:
                key = known[name].key
                values[key] = parse_value(known[name], value)
                with_values(Config(), {key: values[key]})
            except ValueError as error:
                raise ValueError(f"{where}{error}") from None
    return values


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML file of sections, dotted keys or flags -> {dotted key: value}; ValueError names file and line.

    Of a run's (`runs:/RUN_ID/config.yaml`), what decides the result.
    """
    known = by_name()
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    text = fetch(path, _LARGEST)[0] if is_run_config(path) else _read_text(Path(path))
    for name, value, line in _yaml_entries(path, text):
        found = parse_values({name: value}, f"{path}:{line}: ")
        key = known[name].key
        # Without this check, sections that repeat each other by reference would be read for hours.
        if key in lines:
            raise ValueError(f"{path}:{line}: {key} is given twice (first in line {lines[key]}); leave one of the two")
        lines[key] = line
        values |= found
    return taken_over(values) if is_run_config(path) else values


def _read_text(file: Path) -> str:
    """The text of `file`; ValueError (one line) where it is none, too large, or no regular file, which might never end."""
    text, reason = "", ""
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            reason = "not a regular file"
        elif file.stat().st_size > _LARGEST and file.is_file():
            reason = f"larger than {_LARGEST // 1024} KiB"
        else:
            text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
    if reason:
        raise ValueError(f"{file}: cannot read the configuration file ({reason})")
    return text


def _yaml_entries(path: str, text: str) -> Iterator[tuple[str, str, int]]:
    """(field, value as it is written, line). Nodes, not loaded values: they know their line, and a date stays text."""
    root = compose(text, path)
    if root is None:
        return
    if root.id != "mapping":
        raise ValueError(f"{path}:{_line(root)}: expected sections or 'field: value' lines, found a {_kind(root)}")
    for key, value in _plain_node(path, root).value:
        if value.id == "mapping":
            for inner_key, inner_value in _plain_node(path, value).value:
                name = f"{_scalar(path, key)}.{_scalar(path, inner_key)}"
                yield name, _scalar(path, inner_value), _line(inner_key)
        else:
            yield _scalar(path, key), _scalar(path, value), _line(key)


def _plain_node(path: str, node: Any) -> Any:
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
        raise ValueError(
            f"{path}:{_line(node)}: expected a plain value, found the tag {shown(node.tag)}; leave the tag out"
        )
    return node


def _scalar(path: str, node: Any) -> str:
    if _plain_node(path, node).id != "scalar":
        raise ValueError(f"{path}:{_line(node)}: expected one value, found a {_kind(node)}")
    return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: Any) -> str:
    return {"scalar": "single value", "sequence": "list"}.get(node.id, str(node.id))


def build_config(
    given: Mapping[str, Any], yaml_path: str | None = None, cuda_available: Callable[[], bool] = lambda: False
) -> Config:
    """Field defaults < preset < YAML < `given` (flags or `-P`), with `preset=auto` decided for this machine.

    `cuda_available` is asked only where the preset is `auto`. ValueError (one line) for anything wrong.
    """
    from_yaml, from_flags = read_yaml(yaml_path) if yaml_path else {}, parse_values(given)
    chosen = from_yaml | from_flags
    requested = with_values(Config(), {"run.preset": chosen.get("run.preset", Config().run.preset)}).run.preset
    preset = choose_preset(requested, requested == "auto" and cuda_available())
    config = with_values(Config(), PRESETS[preset] | chosen | {"run.preset": preset})
    return _rerun(config, yaml_path, from_flags) if yaml_path and is_run_config(yaml_path) else config


def _rerun(config: Config, uri: str, given: Mapping[str, Any]) -> Config:
    """`config` of the run at `uri` with an output_dir of its own; ValueError (one line) where that run read other data."""
    params = fetch(uri, _LARGEST)[1]
    check_inputs(uri, params, config, given.keys())
    if others := other_libraries(params):
        print(f"note   {uri} was made with other versions, so the result may differ: {', '.join(others)}", flush=True)
    if given.get("run.output_dir", "auto") != "auto":
        return config
    return with_values(config, {"run.output_dir": rerun_folder(config, uri)})


def to_yaml(config: Config) -> str:
    """The configuration as sections of YAML that `read_yaml` reads back to the same Config."""
    import yaml

    return str(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True))


def as_params(config: Config) -> dict[str, str]:
    """Dotted key -> text, as MLflow logs it."""
    return {key: str(value) for key, value in flatten(config).items()}
