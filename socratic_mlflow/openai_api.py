"""One loaded model behind OpenAI's chat completions API, as a FastAPI application. Knows nothing of MLflow.

MLflow's own servers were read: `mlflow.genai.agent_server` speaks the Responses API only (no chat/completions),
calls a plain function on the event loop, so that nothing else is answered meanwhile, and keeps generating for a client that
has gone; `ChatModel` takes one conversation and no plain text, which would take batches from `mlflow models serve`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from socratic_mlflow.incoming import MOST_BYTES, TOO_LARGE, BadRequestError, read_object
from socratic_mlflow.openai_forms import ChatRequest, Completion, error_body, listed, read_request
from socratic_mlflow.replying import Answer, Replier, UnwantedError, failure

# Seconds between two looks at whether a client that waits for a whole reply is still there.
_LOOK_S = 0.2
# Proxies (nginx, for one) would otherwise hold a stream back until it is whole.
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_STOPPING = "the server is being stopped"


class Desk:
    """Where requests wait for the one model, in the order in which they came."""

    def __init__(self, replier: Replier, names: tuple[str, ...], default_max_tokens: int) -> None:
        """`names` are what clients may call the model; the first is what answers call it."""
        self.replier, self.names, self.default_max_tokens = replier, names, default_max_tokens
        self.created = int(time.time())
        self.closing = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")

    def read(self, body: bytes) -> ChatRequest:
        """The request in `body`; BadRequestError (one line), or HTTPException (404) where it is for another model."""
        asked = read_request(read_object(body), self.default_max_tokens)
        self.check_model(asked.model)
        return asked

    def check_model(self, name: str) -> None:
        """HTTPException (404) where clients may not call the model `name`."""
        if name and name not in self.names:
            raise HTTPException(404, f"there is no model {name[:100]!r} here; this server has {self.names[0]}")

    def begin(
        self,
        prompt: list[int],
        asked: ChatRequest,
        is_gone: Callable[[], bool],
        hear: Callable[[str], object] | None = None,
    ) -> asyncio.Future[Answer | None]:
        """The answer, some time; None where nobody wants it any more, or the server stops, before it is finished."""

        def is_over() -> bool:
            return self.closing or is_gone()

        def work() -> Answer | None:
            try:
                return self.replier.answer([prompt], asked.params, hear, is_over)[0]
            except UnwantedError:
                return None

        return asyncio.get_running_loop().run_in_executor(self._worker, work)


def make_app(desk: Desk) -> FastAPI:
    """The application: POST /v1/chat/completions, GET /v1/models, GET /v1/models/NAME, GET /health."""
    app = FastAPI(title="socratic-mlflow", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(BadRequestError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Exception, _failed)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [listed(desk.names[0], desk.created)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        desk.check_model(name)
        return listed(name, desk.created)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        # In threads: megabytes take a while, and the replies to others go on meanwhile.
        asked = await asyncio.to_thread(desk.read, await _body(request))
        prompt = await asyncio.to_thread(desk.replier.prompt, asked.messages, asked.params)
        completion = Completion(desk.names[0])
        if asked.stream:
            events = _stream(desk, prompt, asked, completion)
            return StreamingResponse(events, media_type="text/event-stream", headers=_UNBUFFERED)
        return await _whole(desk, prompt, asked, completion, request)

    return app


async def _body(request: Request) -> bytes:
    """The body, read no further than is taken."""
    # A web page of somebody else can send a request, but not with this header.
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise BadRequestError("the request needs the header Content-Type: application/json")
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise BadRequestError(TOO_LARGE)
    except asyncio.CancelledError:
        # The server has waited long enough for the end of it.
        raise HTTPException(503, _STOPPING) from None
    return bytes(body)


async def _whole(desk: Desk, prompt: list[int], asked: ChatRequest, completion: Completion, request: Request) -> Response:
    gone = False
    future = desk.begin(prompt, asked, lambda: gone)
    while not (await asyncio.wait({future}, timeout=_LOOK_S))[0]:
        gone = gone or await request.is_disconnected()
    if (answer := future.result()) is None:
        return JSONResponse(error_body(_STOPPING, "server_error"), 503)
    return JSONResponse(completion.whole(answer))


async def _stream(desk: Desk, prompt: list[int], asked: ChatRequest, completion: Completion) -> AsyncIterator[str]:
    """The reply as server-sent events. Where the client goes, this generator is closed, and generating ends with it."""
    gone = False
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    put, tell = heard.put_nowait, asyncio.get_running_loop().call_soon_threadsafe
    try:
        future = desk.begin(prompt, asked, lambda: gone, lambda piece: tell(put, piece))
        future.add_done_callback(lambda _: put(None))
        yield _event(completion.chunk({"role": "assistant", "content": ""}))
        while (piece := await heard.get()) is not None:
            yield _event(completion.chunk({"content": piece}))
        yield _end(future, asked, completion)
    finally:
        gone = True


def _end(future: asyncio.Future[Answer | None], asked: ChatRequest, completion: Completion) -> str:
    """The last events of a stream, its status line being long gone: where it failed, an error among them."""
    if error := future.exception():
        return _event(error_body(failure(error), "server_error"))
    answer = future.result()
    if answer is None:
        return _event(error_body(_STOPPING, "server_error"))
    events = [completion.chunk({}, answer.finish)]
    if asked.usage:
        events.append(completion.counts(answer))
    return "".join(map(_event, events)) + "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(str(error)), 400)


async def _http_error(request: Request, error: Exception) -> Response:
    """A wrong path, method or model; or a server that stops."""
    assert isinstance(error, HTTPException)
    code = "model_not_found" if "there is no model" in str(error.detail) else None
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    return JSONResponse(error_body(str(error.detail), kind, code), error.status_code, error.headers)


async def _left(request: Request, error: Exception) -> Response:
    """Nobody reads this."""
    return Response(status_code=400)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(failure(error), "server_error"), 500)
