"""MLflow's store, for commands that look at what is there: none is made, and one that does not answer is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote


@contextmanager
def present_store() -> Iterator[None]:
    """Have MLflow quiet and brief, and its errors be of one line: ValueError where there is no store or where it refuses,
    ConnectionError where it goes away in the middle."""
    from socratic_mlflow.quiet import quiet

    quiet()
    from mlflow.exceptions import MlflowException

    from socratic_mlflow.run_lifecycle import be_brief, store_trouble
    from socratic_mlflow.store_errors import is_outage, one_line, why

    be_brief()
    _check_exists()
    if trouble := store_trouble():
        raise ValueError(f"MLflow at {_address()} cannot be reached: {trouble}")
    try:
        yield
    except MlflowException as error:
        if is_outage(error):
            raise ConnectionError(
                f"MLflow has stopped answering ({why(error)}); run the same command again later"
            ) from None
        raise ValueError(f"MLflow refuses: {one_line(error)}") from None


def _check_exists() -> None:
    """ValueError (one line) where the store would be a new, empty one in this folder."""
    import mlflow

    from socratic_mlflow.tracking import absolute

    uri = absolute(mlflow.get_tracking_uri())
    path = next((uri.removeprefix(scheme) for scheme in ("sqlite:///", "file://", "file:") if uri.startswith(scheme)), uri)
    path = path.partition("?")[0]
    # MLflow's own default has the folder's name quoted as in a URL.
    if path.startswith("/") and not Path(path).exists() and not Path(unquote(path)).exists():
        raise ValueError(
            f"there is no MLflow store at {_address()}; run this where you trained, or set MLFLOW_TRACKING_URI"
        )


def _address() -> str:
    import mlflow

    from socratic_mlflow.redaction import without_credentials

    return without_credentials(mlflow.get_tracking_uri())
