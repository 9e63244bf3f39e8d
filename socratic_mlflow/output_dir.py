"""What lies in an output folder, and what that means for a new start: begin, go on, or nothing left to do.

journal/        what MLflow must receive (`journal.py`)
config.yaml     the resolved configuration of the training that lives here, as its last start had it
run.yaml        its MLflow run and store; once it has finished, the registered version
checkpoints/    transformers' checkpoint-STEP folders, each sealed when it is whole (`checkpoints.py`)
best_adapter/   the adapter with the best style
.lock           who is at work here (`lock.py`)

All of it is data: it is read in bounded pieces, and nothing in it is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from socratic_mlflow.checkpoints import by_step, newest_whole
from socratic_mlflow.config import Config, flatten
from socratic_mlflow.files import beside, read_text, write_whole
from socratic_mlflow.identity import LENGTH, auto_name, identity, may_change
from socratic_mlflow.lock import LOCK_FILE
from socratic_mlflow.options import build_config, read_yaml, to_yaml
from socratic_mlflow.yaml_nodes import compose

_YAML_BYTES = 1 << 16
# The training's history is in it, a few hundred bytes for each step.
_TRAINER_STATE_BYTES = 1 << 28
_MEND = "restore the file or choose another output_dir"
_TEXT = "tag:yaml.org,2002:str"


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

    @property
    def journal(self) -> Path:
        """The folder of the journal."""
        return self.folder / "journal"

    @property
    def config_file(self) -> Path:
        """The configuration of the training that lives here."""
        return self.folder / "config.yaml"

    @property
    def _run_file(self) -> Path:
        return self.folder / "run.yaml"

    def state(self) -> dict[str, str]:
        """What run.yaml holds: run_id, tracking_uri, digests and, once finished, model; empty where nothing was begun.

        ValueError (one line) where run.yaml is damaged.
        """
        try:
            text = read_text(self._run_file, _YAML_BYTES)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(_damaged(self._run_file, str(error))) from None
        state = self._parsed(text)
        if not state.get("tracking_uri"):
            raise ValueError(_damaged(self._run_file, "has no tracking_uri"))
        return state

    def _parsed(self, text: str) -> dict[str, str]:
        """The entries of run.yaml's text, which are all text: YAML's other types and tags are refused, not built."""
        try:
            root = compose(text, str(self._run_file))
        except ValueError as error:
            raise ValueError(f"{error}; {_MEND}") from None
        entries = root.value if root is not None and root.id == "mapping" else []
        if any(node.id != "scalar" or node.tag != _TEXT for entry in entries for node in entry):
            raise ValueError(_damaged(self._run_file, "holds something else than text"))
        return {key.value: value.value for key, value in entries}

    def record(self, config: Config, **values: str | None) -> None:
        """Write config.yaml and run.yaml (`values` on top of what it holds; None drops one), each whole or not at all.

        ValueError (one line) where they cannot be written.
        """
        import yaml

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.config_file, to_yaml(config))
            state = {name: value for name, value in (self.state() | values).items() if value is not None}
            write_whole(self._run_file, yaml.safe_dump(state, allow_unicode=True))
        except OSError as error:
            raise ValueError(f"{error.filename}: cannot be written ({error.strerror})") from None

    def resume_point(self, identity: str) -> tuple[Path | None, list[tuple[Path, str]]]:
        """The newest whole checkpoint of the training `identity`, and those above it that are not whole, each with why.

        ValueError (one line) where the folder cannot be read.
        """
        try:
            return newest_whole(self.checkpoints, identity)
        except OSError as error:
            raise ValueError(f"{self.checkpoints}: cannot be read ({error.strerror})") from None

    def newest_checkpoint(self) -> str | None:
        """The newest whole checkpoint of the training that config.yaml and run.yaml tell of, or None."""
        state = self.state()
        checkpoint = self.resume_point(identity(self._recorded(), state))[0] if state else None
        return str(checkpoint) if checkpoint else None

    def changes(self, config: Config) -> dict[str, str]:
        """{field: 'old -> new'} of all that may differ and does, since the last `record`; empty where nothing was begun."""
        differing = self._differing(config) if self.state() else {}
        return {key: change for key, change in differing.items() if may_change(key)}

    def check(self, config: Config, tracking_uri: str, digests: Mapping[str, str]) -> None:
        """Raise ValueError (one line) where `config`, on data of these `digests`, cannot begin or go on in this folder."""
        self._check_place()
        state = self.state()
        if config.run.resume == "never" and (state or self._has_checkpoints()):
            raise ValueError(f"resume=never, but {self.folder} already holds a training; choose another output_dir")
        if not state:
            self._check_free(config)
            if config.run.resume == "must":
                raise ValueError(f"resume=must, but {self.folder} holds no checkpoint")
            return
        self._check_store(state, tracking_uri)
        self._check_data(state, digests)
        self._check_fields(state, config)
        newest, passed_over = self.resume_point(identity(config, digests))
        if newest:
            self._check_length(config, newest)
        elif config.run.resume == "must":
            found = [f"{path.name} is {reason}" for path, reason in passed_over]
            none = f"no whole checkpoint ({'; '.join(found)})" if found else "no checkpoint"
            raise ValueError(f"resume=must, but {self.folder} holds {none}")

    def _recorded(self) -> Config:
        """The configuration in config.yaml; ValueError (one line) where it is damaged or missing."""
        try:
            # Read here first, because what follows knows no limit and would wait for a pipe.
            read_text(self.config_file, _YAML_BYTES)
        except FileNotFoundError:
            raise ValueError(_damaged(self.config_file, "is missing")) from None
        except ValueError as error:
            raise ValueError(_damaged(self.config_file, str(error))) from None
        try:
            sections = {key.partition(".")[0] for key in read_yaml(str(self.config_file))}
            config = build_config({}, str(self.config_file))
        except ValueError as error:
            raise ValueError(f"{error}; {_MEND}") from None
        # The rest of a file that was cut off would be taken from the defaults.
        if missing := [part.name for part in fields(Config) if part.name not in sections]:
            raise ValueError(_damaged(self.config_file, f"has no section {missing[0]}"))
        return config

    def _differing(self, config: Config) -> dict[str, str]:
        before = flatten(self._recorded())
        return {key: f"{before[key]} -> {value}" for key, value in flatten(config).items() if before[key] != value}

    def _has_checkpoints(self) -> bool:
        try:
            return bool(by_step(self.checkpoints))
        except OSError:
            # What cannot be listed must not be taken for empty.
            return True

    def _check_place(self) -> None:
        """Raise ValueError where the folder could not be made: said now, not after an hour's work."""
        try:
            nearest = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        except OSError as error:
            raise ValueError(f"output_dir {self.folder}: {error.strerror}") from None
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise ValueError(f"output_dir {self.folder}: {nearest} is no folder that can be written to")

    def _check_free(self, config: Config) -> None:
        """Raise ValueError where the folder holds anything but what an earlier start left before its run.yaml."""
        left = {LOCK_FILE, self.journal.name, beside(self.config_file).name, beside(self._run_file).name}
        try:
            found = {path.name for path in self.folder.iterdir()} - left if self.folder.exists() else set()
            if "config.yaml" in found and read_text(self.config_file, _YAML_BYTES) == to_yaml(config):
                found.remove("config.yaml")
        except (OSError, ValueError):
            found = {"something"}
        if found:
            raise ValueError(f"output_dir {self.folder} exists and holds no training; choose an empty or a new folder")

    def _check_store(self, state: Mapping[str, str], tracking_uri: str) -> None:
        if state["tracking_uri"] != tracking_uri:
            raise ValueError(
                f"{self.folder} holds a training that is logged to {state['tracking_uri']}, not to {tracking_uri}; "
                "choose another output_dir or set MLFLOW_TRACKING_URI back"
            )

    def _check_data(self, state: Mapping[str, str], digests: Mapping[str, str]) -> None:
        for name, digest in digests.items():
            if state.get(name, digest) != digest:
                other = "under another style profile" if name.startswith("style") else "on other data"
                raise ValueError(
                    f"{self.folder} holds a training {other} ({name} {state[name][:12]}, not {digest[:12]}); "
                    "choose another output_dir"
                )

    def _check_fields(self, state: Mapping[str, str], config: Config) -> None:
        # A finished training would not be registered once more under the new name: better said than passed over.
        fixed = {"registry.registered_model_name"} if "model" in state else set()
        refused = [
            f"{key} {change}" for key, change in self._differing(config).items() if key in fixed or not may_change(key)
        ]
        if refused:
            raise ValueError(
                f"{self.folder} holds another training, which cannot go on with {', '.join(refused)}; "
                "choose another output_dir"
            )

    def _check_length(self, config: Config, newest: Path) -> None:
        """Raise ValueError where a shortened training would end before its newest checkpoint."""
        changed = [f"{key} {change}" for key, change in self.changes(config).items() if key in LENGTH]
        if not changed:
            return
        step, epoch = _reached(newest)
        # max_steps, where it is given, decides alone.
        limit = config.training.max_steps
        if limit < step if limit else config.training.epochs < epoch:
            raise ValueError(
                f"{self.folder} holds a training at step {step} (epoch {epoch:g}), which lies behind the end of one with "
                f"{', '.join(changed)}; give more or choose another output_dir"
            )


def locate(config: Config, tracking_uri: str, digests: Mapping[str, str]) -> OutputDir:
    """The folder that `run.output_dir` names; 'auto' is one for each configuration, store and content of the data, so that
    a repeated command finds what it began."""
    if config.run.output_dir != "auto":
        return OutputDir(Path(config.run.output_dir))
    return OutputDir(Path("outputs") / auto_name(config, tracking_uri, digests))


def _damaged(file: Path, what: str) -> str:
    return f"{file}: {what}; {_MEND}"


def _reached(checkpoint: Path) -> tuple[int, float]:
    """(optimizer step, epochs with a fraction) at which `checkpoint` was saved; ValueError (one line) if it says none."""
    file = checkpoint / "trainer_state.json"
    try:
        state = json.loads(read_text(file, _TRAINER_STATE_BYTES))
        # Rounded: the epoch is a sum of fractions.
        return int(state["global_step"]), round(float(state["epoch"]), 6)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ValueError(_damaged(file, "does not say how far the training is")) from None
