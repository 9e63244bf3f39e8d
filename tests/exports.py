"""`socratic-mlflow export` as a test asks for it, and what it wrote; registered versions to export."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tiny
import yaml

from socratic_mlflow import cli
from socratic_mlflow.model import base_revision
from socratic_mlflow.promotion import Candidate
from socratic_mlflow.registry import Version, register


def export(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str, str]:
    """(exit code, stdout, stderr)."""
    try:
        code: Any = cli.main(["export", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def files(folder: Path) -> set[str]:
    """The paths of all files in `folder`."""
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def front_matter(folder: Path) -> tuple[Any, str]:
    """(what stands above the card of `folder`, all of its text)."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1]), text


def card_code(folder: Path) -> str:
    """The card's own code, which does not know this project; only its reply is made shorter."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "socratic" not in code
    return str(code).replace("max_new_tokens=128", "max_new_tokens=12")


def run_card(folder: Path) -> str:
    """What the card's own code prints in its folder."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(card_code(folder), {})
    return printed.getvalue().strip()


def registered(adapter: Path, base_model: Path | str, **values: Any) -> Version:
    """The champion that a training on `base_model` makes of `adapter`, under the default name."""
    config = tiny.config(base_model, evaluation__max_new_tokens=6, **values)
    with mlflow.start_run() as run:
        candidate = Candidate(
            adapter=adapter,
            run_id=run.info.run_id,
            step=40,
            metrics={"socratic_style": 0.5, "socratic_tone": 0.5, "hollow_share": 0.0, "loss": 1.0},
            base_revision=base_revision(config.model),
            data_digest="digest of the data",
            questions_digest="digest of the questions",
            profile_digest="digest of the profile",
            max_new_tokens=6,
        )
        return register(candidate, config, lambda uri: {})


@contextlib.contextmanager
def hub_base(folder: Path, cache: Path, commit: str) -> Iterator[str]:
    """The base in `folder` as the Hub's cache has it once it was downloaded; yields its name there."""
    name = "somebody/tiny-base"
    place = cache / "models--somebody--tiny-base"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots").mkdir()
    (place / "snapshots" / commit).symlink_to(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        yield name
