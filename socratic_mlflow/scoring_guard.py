"""Requests to `mlflow models serve` are checked before MLflow's scoring server reads them, and end when it gives them up.

By itself that server (MLflow 3.17) answers 500 in plain text to a request without a Content-Type or with a number of 5,000
digits, sends tracebacks to whoever posts a broken table, repeats a wrong request in its error, leaves out unknown params in
silence, and takes a body of any size into memory. After a while it answers 504, but the thread that computes goes on,
and once all threads do so, every other request gets a 504 too. It has no place for a check of one's own, so two of its
functions are replaced, in a process that is such a server and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from socratic_mlflow.config import shown
from socratic_mlflow.incoming import MOST_BYTES, NAMES, TOO_LARGE, BadRequestError, ReplyParams, read_object
from socratic_mlflow.replying import failure

# ({'inputs' or 'messages': whatever it is}, params as given) -> (prompts as token ids, params); BadRequestError where they
# cannot be answered.
Prepare = Callable[[Any, Any], tuple[list[list[int]], ReplyParams]]

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


@dataclass(frozen=True)
class Admitted:
    """A request that can be answered: `request` as MLflow's server takes it; `deadline` on the monotonic clock."""

    request: Mapping[str, Any]
    prompts: Sequence[list[int]]
    params: ReplyParams
    deadline: float

    def is_over(self) -> bool:
        """Whether the server has given it up."""
        return time.monotonic() >= self.deadline


# MLflow's server takes the context of a request along into the thread that computes its answer.
ADMITTED: ContextVar[Admitted | None] = ContextVar("ADMITTED", default=None)


def guard_scoring_server(prepare: Prepare) -> None:
    """Where this process is MLflow's scoring server, which loads its model before it makes its endpoints: guard those."""
    if f"{_SERVER}.app" not in sys.modules:
        return
    server: Any = sys.modules[_SERVER]
    if not hasattr(server.invocations, "__wrapped__"):
        server.invocations = guarded(server.invocations)
        server._async_catch_mlflow_exception = admitting(server._async_catch_mlflow_exception, prepare)


def admitting(catching: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    """`catching`, which MLflow puts around its endpoint, so that only what can be answered comes to that.

    A body that is too large is refused before it is read. The others are checked in threads of their own, whatever those
    that compute are doing. A client that goes before its request is whole is no error, for which MLflow's server would log
    a traceback.
    """
    from starlette.requests import ClientDisconnect

    checkers = ThreadPoolExecutor(2, thread_name_prefix="check")

    def around(endpoint: Callable[..., Any]) -> Any:
        @functools.wraps(endpoint)
        async def checked(request: Any) -> Any:
            deadline = time.monotonic() + MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()
            _check_size(request.headers.get("content-length", ""))
            try:
                body = await request.body()
            except ClientDisconnect:
                raise RefusedError("the client went before its request was whole") from None
            admit = functools.partial(_admit, body, request.headers.get("content-type"), prepare, deadline)
            ADMITTED.set(await asyncio.get_running_loop().run_in_executor(checkers, admit))
            return await endpoint(request)

        return catching(checked)

    return around


def _check_size(content_length: str) -> None:
    if not content_length.isdecimal():
        raise RefusedError("the request needs the header Content-Length")
    if int(content_length) > MOST_BYTES:
        raise RefusedError(TOO_LARGE)


def _admit(body: bytes, content_type: str | None, prepare: Prepare, deadline: float) -> Admitted:
    """The request in `body`; RefusedError, which becomes one sentence in JSON, where it cannot be answered."""
    if time.monotonic() >= deadline:
        raise gave_up()
    try:
        talks, given = _checked(body, content_type)
        prompts, params = prepare(talks, given)
    except BadRequestError as error:
        raise RefusedError(str(error)) from None
    except Exception as error:
        raise failed(error) from error
    return Admitted(_spelled(talks, given), prompts, params, deadline)


def gave_up() -> RefusedError:
    """What is raised for a request that the server has given up (status 504, which it has sent by itself before)."""
    return RefusedError("the request took longer than this server allows", DEADLINE_EXCEEDED)


def guarded(invocations: Callable[..., Any]) -> Callable[..., Any]:
    """`invocations` that answers the request that was admitted, and raises RefusedError where that fails."""

    @functools.wraps(invocations)
    def wrapper(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
        admitted = ADMITTED.get()
        assert admitted is not None
        try:
            return invocations(admitted.request, "application/json", model, input_schema)
        except RefusedError:
            raise
        except MlflowException as error:
            raise _brief(error) from None
        except Exception as error:
            raise failed(error) from error

    return wrapper


def _checked(data: bytes, content_type: str | None) -> tuple[dict[str, Any], Any]:
    """({'inputs' or 'messages': whatever it is}, params as given).

    BadRequestError for what MLflow's server does not take, or takes for something else.
    """
    kind, _, rest = (content_type or "").lower().partition(";")
    if kind.strip() != "application/json" or rest.replace(" ", "").strip(";") not in ("", "charset=utf-8"):
        raise BadRequestError("the request needs the header Content-Type: application/json (in UTF-8)")
    request = read_object(data)
    if "inputs" in request:
        _only(request, ("inputs", "params"))
        return {"inputs": request["inputs"]}, request.get("params")
    if "messages" in request:
        _only(request, ("messages", *NAMES))
        return {"messages": request["messages"]}, {name: request[name] for name in NAMES if name in request}
    raise BadRequestError("the request needs 'inputs' (with 'params' beside it), or 'messages'")


def _only(request: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [name for name in request if name not in known]:
        raise BadRequestError(f"unknown field {shown(unknown[0])}; beside {known[0]!r} there are {', '.join(known[1:])}")


def _spelled(talks: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A right request as MLflow's schema wants it: null is left out, and one stop text is a list of one."""
    params = {name: value for name, value in (given or {}).items() if value is not None}
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    return {**talks, "params": params} if "inputs" in talks else {**talks, **params}


def _brief(error: MlflowException) -> RefusedError:
    """What MLflow itself says of a wrong request, without the request and without its traceback."""
    sentence = error.message.rpartition("Error: ")[2].strip() or error.message
    return RefusedError(" ".join(sentence.split())[:300])
