"""Configuration fields as flags of a command. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.config import allowed
from socratic_mlflow.options import options
from socratic_mlflow.presets import PRESETS


def add_fields(command: argparse.ArgumentParser, only: tuple[str, ...] = ("",)) -> None:
    """A flag for each field whose dotted key begins with one of `only`, under both of its names."""
    groups: dict[str, Any] = {}
    for option in options():
        if not option.key.startswith(only):
            continue
        section = option.key.partition(".")[0]
        group = groups.setdefault(section, None) or command.add_argument_group(section)
        groups[section] = group
        limits = f" ({allowed(option.spec)})" if allowed(option.spec) else ""
        other = {name: changes[option.key] for name, changes in PRESETS.items() if option.key in changes}
        default = "; ".join([str(option.spec.default), *(f"{name}: {value}" for name, value in other.items())])
        text = f"{option.spec.metadata['help']}{limits} [{default}]".replace("%", "%%")
        names = dict.fromkeys((f"--{option.flag}", f"--{option.key}"))
        group.add_argument(*names, dest=option.key, metavar=option.type.__name__.upper(), help=text)


def given_fields(args: argparse.Namespace) -> dict[str, Any]:
    """{dotted key: value as it was typed} of the fields that stand on the command line."""
    return {option.key: value for option in options() if (value := getattr(args, option.key, None)) is not None}
