"""`socratic-mlflow serve`: load a model and answer over HTTP until the process is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from socratic_mlflow.model_names import check_base_fields, check_full, full_name, load_full
from socratic_mlflow.options import parse_values
from socratic_mlflow.quiet import quiet

if TYPE_CHECKING:
    from socratic_mlflow.named_model import NamedModel
    from socratic_mlflow.openai_api import Desk

# How long a server that stops waits for the end of requests and for clients to take what is theirs.
_PATIENCE_S = 5


def serve(model: str, host: str, port: int, max_prompt_tokens: int, given: Mapping[str, Any]) -> int:
    """Serve `model` on `host` and `port` until Ctrl-C or SIGTERM, which raise KeyboardInterrupt once all is closed."""
    quiet()
    fields = parse_values(given)
    name = full_name(model)
    # Before the model is loaded, which may take minutes.
    check_base_fields([name], fields)
    check_full(name)
    with _listening(host, port) as listener:
        from socratic_mlflow.interruption import Interruption

        with Interruption():
            from socratic_mlflow.progress import say

            say(f"loading {name} ...")
            desk = _desk(load_full(name, fields), model, max_prompt_tokens)
            _say_where(host, listener.getsockname()[1], desk, say)
            _run(desk, listener)
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """A listening socket, whose clients wait until the model is loaded; ValueError (one line) where there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        # A server that was just stopped leaves its port waiting for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Now and not when the model is loaded: until somebody listens, Linux gives the same port to another as well.
        listener.listen()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot listen on {host} port {port}: {why}; give another --host or --port") from None
    return listener


def _desk(named: NamedModel, given: str, max_prompt_tokens: int) -> Desk:
    from socratic_mlflow.openai_api import Desk
    from socratic_mlflow.replying import Replier

    limits = named.config.evaluation
    replier = Replier(named.model, named.chat, limits.generation_batch_size, max_prompt_tokens)
    return Desk(replier, _names(named, given), limits.max_new_tokens)


def _names(named: NamedModel, given: str) -> tuple[str, ...]:
    """What clients may call the model: its short name, as answers call it, and the name it was loaded by."""
    short = named.version.name if named.version else Path(named.name).resolve().name
    return (short, given, named.name)


def _say_where(host: str, port: int, desk: Desk, say: Any) -> None:
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"ready  {address}/v1/chat/completions (model {desk.names[0]}); Ctrl-C ends it")
    chat = '{"messages": [{"role": "user", "content": "正義とは何でしょうか？"}]}'
    say(f"try    curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{chat}'")


def _run(desk: Desk, listener: socket.socket) -> None:
    import uvicorn

    from socratic_mlflow.openai_api import make_app

    class Server(uvicorn.Server):
        """Replies that are being generated end with the server, which would otherwise wait for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            desk.closing = True
            super().handle_exit(sig, frame)

    # What fails is in the log already (`failure`), once; clients that are cut off or send no HTTP are nobody's concern.
    config = uvicorn.Config(make_app(desk), log_level="critical", access_log=False, timeout_graceful_shutdown=_PATIENCE_S)
    Server(config).run(sockets=[listener])
    if desk.closing:
        # uvicorn raises the signal that stopped it once more when all is closed; it was seen to come to nothing there.
        raise KeyboardInterrupt
