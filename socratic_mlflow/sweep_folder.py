"""The output folder of a sweep: what may lie in it, and which study is its own.

A study bears its folder's name. In a storage that several sweeps share, two folders of one name must not be taken for one:
folder and study hold the same random id from the first start on. Knows nothing of MLflow.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from socratic_mlflow.files import beside, read_text, write_whole
from socratic_mlflow.lock import LOCK_FILE
from socratic_mlflow.redaction import without_credentials

_ID_FILE = Path("study.id")
_ID = "folder_id"
_OWN_FILES = {LOCK_FILE, "journal", "logs", "study.db", _ID_FILE.name, beside(_ID_FILE).name}


def check_folder(folder: Path) -> None:
    """Raise ValueError where the folder holds anything but a sweep, or could not be made."""
    try:
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise ValueError(f"output_dir {folder}: {error.strerror}") from None
    if other := sorted(name for name in found if name.removesuffix("-journal") not in _OWN_FILES and name[:6] != "trial-"):
        raise ValueError(f"output_dir {folder} exists and holds no sweep ({other[0]}); choose an empty or a new folder")


def tie(folder: Path, study: Any, storage: str) -> None:
    """Have folder and study know each other; ValueError (one line) where one of them belongs to another.

    For somebody who is alone in the folder.
    """
    ours, theirs, place = _id_in(folder), study.user_attrs.get(_ID, ""), without_credentials(storage)
    if theirs and theirs != ours:
        raise ValueError(
            f"the study {study.study_name} in {place} belongs to another folder of that name, or to {folder} before it "
            "was deleted; choose another output_dir, or, where nobody needs it any more, "
            f"'optuna delete-study --study-name {study.study_name} --storage {place}'"
        )
    if ours and not theirs and any(folder.glob("trial-*")):
        raise ValueError(
            f"output_dir {folder} holds a sweep whose study is not in {place} as {study.study_name}; give the --storage "
            "and the name of the folder that it was begun with, or choose another output_dir"
        )
    if not theirs:
        ours = ours or uuid.uuid4().hex
        write_whole(folder / _ID_FILE, f"{ours}\n")
        study.set_user_attr(_ID, ours)


def _id_in(folder: Path) -> str:
    """The folder's id; '' where it has none yet."""
    try:
        return read_text(folder / _ID_FILE, 100).strip()
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise ValueError(f"{folder / _ID_FILE} {error}; restore it or choose another output_dir") from None
