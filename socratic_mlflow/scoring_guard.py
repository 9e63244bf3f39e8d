"""Requests to `mlflow models serve` are checked before MLflow's scoring server reads them.

By itself that server (MLflow 3.17) answers 500 in plain text to a request without a Content-Type or with a number of 5,000
digits, sends tracebacks to whoever posts a broken table, repeats a wrong request in its error, leaves out unknown params in
silence, and takes a body of any size into memory. It has no place for a check of one's own, so two of its functions are
replaced, in a process that is such a server and nothing else.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from socratic_mlflow.config import shown
from socratic_mlflow.incoming import MOST_BYTES, NAMES, TOO_LARGE, BadRequestError, read_object
from socratic_mlflow.replying import failure

_SERVER = "mlflow.pyfunc.scoring_server"


class RefusedError(MlflowException):
    """An error whose message stays the one sentence that it was made with.

    MLflow's scoring server puts the whole request in front of the message of an MlflowException; nobody wants megabytes of
    it back, or other people's words in a log.
    """

    def __init__(self, sentence: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        self._sentence = " ".join(sentence.split())
        super().__init__(self._sentence, error_code=error_code)

    @property
    def message(self) -> str:
        """The sentence."""
        return self._sentence

    @message.setter
    def message(self, value: Any) -> None:
        pass


def failed(error: Exception) -> RefusedError:
    """What is raised where answering failed (status 500)."""
    return RefusedError(failure(error), INTERNAL_ERROR)


def guard_scoring_server(read_params: Callable[[Any], Any]) -> None:
    """Where this process is MLflow's scoring server, which loads its model before it makes its endpoints: guard those."""
    if f"{_SERVER}.app" not in sys.modules:
        return
    server: Any = sys.modules[_SERVER]
    if not hasattr(server.invocations, "__wrapped__"):
        server.invocations = guarded(server.invocations, read_params)
        server._async_catch_mlflow_exception = bounded(server._async_catch_mlflow_exception)


def bounded(catching: Callable[..., Any]) -> Callable[..., Any]:
    """`catching`, which MLflow puts around its endpoint, so that a body is refused before it is read.

    A client that goes before its request is whole is no error: MLflow's server would log a traceback for each.
    """
    from starlette.requests import ClientDisconnect

    def around(endpoint: Callable[..., Any]) -> Any:
        @functools.wraps(endpoint)
        async def checked(request: Any) -> Any:
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                raise RefusedError("the request needs the header Content-Length")
            if int(length) > MOST_BYTES:
                raise RefusedError(TOO_LARGE)
            try:
                return await endpoint(request)
            except ClientDisconnect:
                raise RefusedError("the client went before its request was whole") from None

        return catching(checked)

    return around


def guarded(invocations: Callable[..., Any], read_params: Callable[[Any], Any]) -> Callable[..., Any]:
    """`invocations` that raises RefusedError, which becomes one sentence in JSON, for all that cannot be answered."""

    @functools.wraps(invocations)
    def wrapper(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
        try:
            return invocations(_checked(data, content_type, read_params), "application/json", model, input_schema)
        except RefusedError:
            raise
        except BadRequestError as error:
            raise RefusedError(str(error)) from None
        except MlflowException as error:
            raise _brief(error) from None
        except Exception as error:
            raise failed(error) from error

    return wrapper


def _checked(data: bytes, content_type: str | None, read_params: Callable[[Any], Any]) -> dict[str, Any]:
    """The request as MLflow's server takes it; BadRequestError for what it does not take, or takes for something else."""
    kind, _, rest = (content_type or "").lower().partition(";")
    if kind.strip() != "application/json" or rest.replace(" ", "").strip(";") not in ("", "charset=utf-8"):
        raise BadRequestError("the request needs the header Content-Type: application/json (in UTF-8)")
    request = read_object(data)
    if "inputs" in request:
        _only(request, ("inputs", "params"))
        given = request.get("params")
    elif "messages" in request:
        _only(request, ("messages", *NAMES))
        given = {name: value for name, value in request.items() if name in NAMES}
    else:
        raise BadRequestError("the request needs 'inputs' (with 'params' beside it), or 'messages'")
    read_params(given)
    wanted = _spelled(given or {})
    if "inputs" in request:
        return {"inputs": request["inputs"], "params": wanted}
    return {"messages": request["messages"], **wanted}


def _only(request: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [name for name in request if name not in known]:
        raise BadRequestError(f"unknown field {shown(unknown[0])}; beside {known[0]!r} there are {', '.join(known[1:])}")


def _spelled(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` as MLflow's schema wants it: null is left out, and one stop text is a list of one."""
    present = {name: value for name, value in given.items() if value is not None}
    return present | ({"stop": [present["stop"]]} if isinstance(present.get("stop"), str) else {})


def _brief(error: MlflowException) -> RefusedError:
    """What MLflow itself says of a wrong request, without the request and without its traceback."""
    sentence = error.message.rpartition("Error: ")[2].strip() or error.message
    return RefusedError(" ".join(sentence.split())[:300])
