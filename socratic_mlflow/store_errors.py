"""What a store raises, as one of three: it is away, it refuses this one thing, the run is gone; and why, in words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from socratic_mlflow.redaction import redact

# What a person needs to know of the chain of messages that a failed request brings.
_REASONS = {
    r"Connection refused|Failed to establish a new connection": "connection refused",
    r"NameResolutionError|Name or service not known|getaddrinfo": "its name cannot be resolved",
    r"timed out|[Tt]imeout": "no answer in time",
    r"Connection aborted|Connection reset|RemoteDisconnected": "the connection broke off",
    r"too many (5\d\d) error responses|error code (5\d\d)": "it answers with error 5xx",
}

Result = TypeVar("Result")


class AwayError(Exception):
    """MLflow cannot be reached, or not now: the same may work later."""


class RefusedError(Exception):
    """MLflow has understood, and says no: the same will not work later."""


class GoneError(Exception):
    """The run is deleted."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Whatever a store raises as one of this module's three errors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (AwayError, RefusedError, GoneError):
        raise
    except MlflowException as error:
        text = why(error)
        # An answer that is not JSON is a proxy's, and says nothing of what MLflow thinks.
        if "Response body: '" in str(error):
            raise AwayError(text) from None
        if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"):
            raise RefusedError(text) from None
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise GoneError(text) from None
        raise AwayError(text) from None
    except (TypeError, OverflowError, UnicodeError) as error:
        # No server's doing: what was to be sent is not what it should be.
        raise RefusedError(f"{type(error).__name__}: {why(error)}") from None
    except Exception as error:
        raise AwayError(f"{type(error).__name__}: {why(error)}") from None


def is_outage(error: BaseException | None) -> bool:
    """Whether `error`, of any call of MLflow's, or what it was raised in the handling of, means that the same call may
    work later."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if error is None:
        return False
    try:
        with store_errors():
            raise error
    except (RefusedError, GoneError):
        return is_outage(error.__context__)
    except AwayError:
        known = isinstance(error, MlflowException | RequestException | ConnectionError | TimeoutError)
        return known or is_outage(error.__context__)


def is_missing(error: Any) -> bool:
    """Whether MLflow answers that it has no such thing (an alias that nothing bears is an invalid value to it)."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def patiently(call: Callable[[], Result]) -> Result:
    """What `call` returns; it is made again after 1, 2 and 4 seconds where MLflow goes away in the middle of it."""
    for wait_s in (1, 2, 4):
        try:
            return call()
        except Exception as error:
            if not is_outage(error):
                raise
        time.sleep(wait_s)
    return call()


def why(error: BaseException) -> str:
    """Why a request to MLflow failed, in a few words, without secrets."""
    known = (words for pattern, words in _REASONS.items() if re.search(pattern, str(error)))
    return next(known, one_line(error))


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error's message without line breaks and secrets, at most `limit` characters."""
    return redact(" ".join(str(error).split()))[:limit]
