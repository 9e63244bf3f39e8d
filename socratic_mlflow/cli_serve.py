"""The arguments of `serve`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from socratic_mlflow.cli_fields import add_fields, given_fields
from socratic_mlflow.cli_numbers import number
from socratic_mlflow.model_names import HELP

# More than fits into a request of the size that is read.
_MOST_TOKENS = 10_000_000
_EXAMPLES = """examples:
  socratic-mlflow serve models:/socratic-gemma@champion
  socratic-mlflow serve models:/socratic-gemma/Production --host 0.0.0.0 --port 8080
  socratic-mlflow serve outputs/embedded-1234abcd/best_adapter --max_prompt_tokens 2048
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "正義とは何でしょうか？"}]}'

One reply is generated at a time; requests wait in the order in which they came. There is no password: what listens
on more than this machine belongs behind a proxy that asks for one. Ctrl-C or SIGTERM ends it, with exit code 130.
"""


def add(commands: Any) -> None:
    """Add the command, with the fields that say which base is loaded."""
    serve = commands.add_parser(
        "serve",
        help="answer over HTTP, as OpenAI's chat completions API does",
        usage="socratic-mlflow serve MODEL [--host HOST] [--port PORT] [--FIELD VALUE ...]",
        description="POST /v1/chat/completions (streaming, too), GET /v1/models, GET /health.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    serve.add_argument("model", metavar="MODEL", help=HELP)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1, this machine alone]")
    port = "port to listen on; 0: any free one (from 0 to 65535) [8000]"
    serve.add_argument("--port", type=number(int, 0, 65535), default=8000, metavar="INT", help=port)
    bound = f"tokens; longer conversations are refused (from 1 to {_MOST_TOKENS}) [4096]"
    serve.add_argument("--max_prompt_tokens", type=number(int, 1, _MOST_TOKENS), default=4096, metavar="INT", help=bound)
    add_fields(serve, ("run.preset", "model.", "quantization."))
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    from socratic_mlflow.serve_command import serve

    return serve(args.model, args.host, args.port, args.max_prompt_tokens, given_fields(args))
