"""What lies in an output folder, and what that means for a new start: begin, go on, or nothing left to do.

config.yaml     the resolved configuration of the training that lives here
run.yaml        its MLflow run and store; once it has finished, the registered version
checkpoints/    transformers' checkpoint-STEP folders
best_adapter/   the adapter with the best style
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from socratic_mlflow.config import Config, flatten
from socratic_mlflow.options import build_config, to_yaml

# Fields that may differ between a training and its continuation.
_MAY_CHANGE = {"run.output_dir", "run.resume", "registry.promote"}


@dataclass(frozen=True)
class OutputDir:
    """The folder of one training."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of transformers' checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best_adapter(self) -> Path:
        """The folder of the best adapter."""
        return self.folder / "best_adapter"

    def state(self) -> dict[str, str]:
        """What run.yaml holds: run_id, tracking_uri and, once finished, model; empty where nothing was begun."""
        import yaml

        file = self.folder / "run.yaml"
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        except (OSError, ValueError, yaml.YAMLError):
            raise ValueError(f"{file}: cannot be read; choose another output_dir") from None
        return {str(key): str(value) for key, value in loaded.items()} if isinstance(loaded, dict) else {}

    def record(self, config: Config, **values: str) -> None:
        """Write config.yaml and run.yaml (`values` on top of what it holds), each whole or not at all."""
        import yaml

        self.folder.mkdir(parents=True, exist_ok=True)
        _write_whole(self.folder / "config.yaml", to_yaml(config))
        _write_whole(self.folder / "run.yaml", yaml.safe_dump(self.state() | values))

    def newest_checkpoint(self) -> str | None:
        """The checkpoint with the highest step that was written to its end, or None."""
        found = {
            int(match[1]): path
            for path in (self.checkpoints.iterdir() if self.checkpoints.is_dir() else ())
            if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
            # transformers writes this file last.
            and (path / "trainer_state.json").is_file()
        }
        return str(found[max(found)]) if found else None

    def check(self, config: Config, tracking_uri: str, digests: Mapping[str, str]) -> None:
        """Raise ValueError (one line) where `config`, on data of these `digests`, cannot begin or go on in this folder."""
        self._check_place()
        state, resume = self.state(), config.run.resume
        if resume == "must" and not self.newest_checkpoint():
            raise ValueError(f"resume=must, but {self.folder} holds no checkpoint")
        if not state:
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise ValueError(f"output_dir {self.folder} exists and holds no training; choose an empty or a new folder")
            return
        if resume == "never":
            raise ValueError(f"resume=never, but {self.folder} already holds a training; choose another output_dir")
        if state.get("tracking_uri") != tracking_uri:
            raise ValueError(
                f"{self.folder} holds a training that is logged to {state.get('tracking_uri')}, not to {tracking_uri}; "
                "choose another output_dir or set MLFLOW_TRACKING_URI back"
            )
        for name, digest in digests.items():
            if state.get(name, digest) != digest:
                other = "under another style profile" if name.startswith("style") else "on other data"
                raise ValueError(
                    f"{self.folder} holds a training {other} ({name} {state[name][:12]}, not {digest[:12]}); "
                    "choose another output_dir"
                )
        before = flatten(build_config({}, str(self.folder / "config.yaml")))
        for key, value in flatten(config).items():
            if key not in _MAY_CHANGE and before[key] != value:
                raise ValueError(
                    f"{self.folder} holds a training with {key} {before[key]}, not {value}; choose another output_dir"
                )

    def _check_place(self) -> None:
        """Raise ValueError where the folder could not be made: said now, not after an hour's work."""
        try:
            nearest = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        except OSError as error:
            raise ValueError(f"output_dir {self.folder}: {error.strerror}") from None
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise ValueError(f"output_dir {self.folder}: {nearest} is no folder that can be written to")


def locate(config: Config, tracking_uri: str, digests: Mapping[str, str]) -> OutputDir:
    """The folder that `run.output_dir` names; 'auto' is one for each configuration, store and content of the data, so that
    a repeated command finds what it began."""
    if config.run.output_dir != "auto":
        return OutputDir(Path(config.run.output_dir))
    own = {key: value for key, value in flatten(config).items() if key not in _MAY_CHANGE}
    text = json.dumps([own, tracking_uri, dict(digests)], sort_keys=True)
    return OutputDir(Path("outputs") / f"{config.run.preset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


def _write_whole(file: Path, text: str) -> None:
    """Write beside and rename, so that a crash leaves the old file or the new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
