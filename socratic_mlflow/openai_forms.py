"""What OpenAI's chat completions API says on the wire: requests read, answers and errors written. Knows nothing of HTTP."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from socratic_mlflow.config import shown
from socratic_mlflow.dialogues import Message
from socratic_mlflow.incoming import NAMES, BadRequestError, ReplyParams, conversations, parse_params
from socratic_mlflow.replying import Answer

# What clients send of their own accord and what changes no reply.
_WITHOUT_EFFECT = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
# What this server cannot do, and the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
}
_KNOWN = ("model", "messages", "stream", "stream_options", "max_completion_tokens", *NAMES, *_WITHOUT_EFFECT, *_NEUTRAL)


@dataclass(frozen=True)
class ChatRequest:
    """One request: `model` may be empty; `usage` asks for the token counts at the end of a stream."""

    model: str
    messages: list[Message]
    params: ReplyParams
    stream: bool
    usage: bool


def read_request(given: Mapping[str, Any], default_max_tokens: int) -> ChatRequest:
    """The request in a JSON object; BadRequestError (one line) where it is wrong, or asks for what cannot be done here."""
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in _KNOWN:
            raise BadRequestError(f"unknown field {shown(name)}")
        if name in _NEUTRAL and not any(type(value) is type(one) and value == one for one in _NEUTRAL[name]):
            raise BadRequestError(f"{name} {shown(value)} is not supported here; leave it out")
    options = given.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise BadRequestError(f"stream_options is an object with include_usage; got {shown(options)}")
    if not isinstance(given.get("model", ""), str):
        raise BadRequestError(f"model is a text; got {shown(given['model'])}")
    return ChatRequest(
        model=given.get("model", ""),
        messages=_messages(given.get("messages")),
        params=parse_params(_params(given), default_max_tokens),
        stream=_flag("stream", given.get("stream", False)),
        usage=_flag("stream_options.include_usage", options.get("include_usage") or False),
    )


def _params(given: Mapping[str, Any]) -> dict[str, Any]:
    params = {name: given[name] for name in NAMES if name in given}
    if "max_completion_tokens" in given:
        if "max_tokens" in given:
            raise BadRequestError("max_tokens and max_completion_tokens mean the same here; give one of them")
        params["max_tokens"] = given["max_completion_tokens"]
    return params


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequestError(f"{name} is true or false; got {shown(value)}")
    return value


def _messages(given: Any) -> list[Message]:
    if not isinstance(given, list) or not given:
        raise BadRequestError("messages is a non-empty list of messages")
    (messages,) = conversations([[_plain(message) for message in given]])
    return messages


def _plain(message: Any) -> Any:
    """`message` with its role and its text as one string, where a client has sent them in another accepted form."""
    if not isinstance(message, dict):
        return message
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    return {"role": "system" if role == "developer" else role, "content": content}


def _part(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise BadRequestError("a message's content is text, or a list of parts of type text; images and sound are not read")
    return str(part["text"])


@dataclass(frozen=True)
class Completion:
    """One answer on its way: what all of its pieces have in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        return self._around("chat.completion", [choice]) | {"usage": usage(answer)}

    def chunk(self, delta: Mapping[str, str], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return self._around("chat.completion.chunk", [choice])

    def counts(self, answer: Answer) -> dict[str, Any]:
        """The last piece of a stream that was asked for its token counts."""
        return self._around("chat.completion.chunk", []) | {"usage": usage(answer)}

    def _around(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def usage(answer: Answer) -> dict[str, int]:
    """Token counts: prompt, reply (without its end-of-turn marker), and both."""
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}


def error_body(sentence: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": sentence, "type": kind, "param": None, "code": code}}


def listed(model: str, created: int) -> dict[str, Any]:
    """A model as `GET /v1/models` lists it; `created` in seconds since 1970."""
    return {"id": model, "object": "model", "created": created, "owned_by": "socratic-mlflow"}
