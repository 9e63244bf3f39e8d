"""YAML text -> nodes that know their line, for configuration files and style profiles. PyYAML, loaded when it is called."""

from __future__ import annotations

from typing import Any


def compose(text: str, where: str) -> Any:
    """The root node of `text`, None if it is empty; ValueError (one line: `where`, line, problem) if it is no YAML."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        problem = problem or ("nested too deeply" if isinstance(error, RecursionError) else str(error))
        raise ValueError(f"{where}:{line}: not valid YAML ({problem[:100]})") from None
