"""What a client sends: bytes -> a JSON object, chats and params, or one sentence that says what is wrong with them.

Knows nothing of models and of HTTP.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from socratic_mlflow.config import Config, shown
from socratic_mlflow.dialogues import Message

MOST_BYTES = 4 * 1024**2
TOO_LARGE = f"the request is larger than {MOST_BYTES // 1024**2} MiB"
# Far more than any right request has, and far less than what Python's own recursion bears.
_DEEPEST = 20
_ROLES = ("user", "model", "assistant", "system")
# A template is rendered once for each reply, so that a chat of thousands of turns would take minutes to prepare.
MOST_MESSAGES, MOST_CONVERSATIONS = 100, 256
# Tokens that one request may have generated, all its replies together: 256 of 256, or 8 of 8,192.
MOST_REPLY_TOKENS = 65_536
_MOST_STOPS, _LONGEST_STOP = 4, 100
_MOST_TOKENS = 8192
_HIGHEST_SEED = 2**63 - 1
# MLflow declares a parameter by a value of its type: it can spell neither an absent number nor an empty list of texts.
_NO_SEED, _NO_STOP = -1, ""


class BadRequestError(ValueError):
    """A request that cannot be answered; its text is one sentence for whoever sent it."""


def read_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in `body`; BadRequestError (one line) where it is too large, no JSON, or no object."""
    if len(body) > MOST_BYTES:
        raise BadRequestError(TOO_LARGE)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        # Also for numbers of thousands of digits, brackets without end, and bytes that are no UTF-8.
        raise BadRequestError("the request's body is not valid JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise BadRequestError(f"the request's body is a JSON object; got {type(found).__name__}")
    if _is_deeper(found, _DEEPEST):
        raise BadRequestError(f"the request's lists and objects lie in each other more than {_DEEPEST} deep")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects in `value` lie in each other more than `levels` deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(each, levels - 1) for each in inner)


def conversations(model_input: Any) -> list[list[Message]]:
    """Any accepted input as a list of conversations, each ending with a user message.

    Accepted: a string; a list of strings; one conversation of messages; a list of conversations; {'messages': [...]} or
    a list of those; a DataFrame with a column `messages`, with columns `role` and `content` (one conversation), or with
    one column of strings. Raises BadRequestError (one line) for anything else.
    """
    if isinstance(model_input, pd.DataFrame):
        model_input = _from_frame(model_input)
    if hasattr(model_input, "tolist"):
        model_input = model_input.tolist()
    if isinstance(model_input, str | dict):
        model_input = [model_input]
    if not isinstance(model_input, list) or not model_input:
        raise BadRequestError(f"expected a question, messages or a list of them; got {_kind(model_input)}")
    if all(isinstance(item, dict) and "messages" not in item for item in model_input):
        return [_conversation(model_input)]
    if len(model_input) > MOST_CONVERSATIONS:
        raise BadRequestError(f"{len(model_input)} conversations at once; at most {MOST_CONVERSATIONS} are taken")
    return [_conversation(item) for item in model_input]


def _from_frame(frame: pd.DataFrame) -> Any:
    if "messages" in frame.columns:
        return frame["messages"].tolist()
    if {"role", "content"} <= set(frame.columns):
        return frame[["role", "content"]].to_dict(orient="records")
    if len(frame.columns) == 1:
        return frame.iloc[:, 0].tolist()
    raise BadRequestError(
        f"a DataFrame needs a column 'messages', columns 'role' and 'content', or one column of questions; "
        f"this one has {shown(', '.join(map(str, frame.columns)))[1:-1]}"
    )


def _conversation(item: Any) -> list[Message]:
    if isinstance(item, str):
        item = [{"role": "user", "content": item}]
    if isinstance(item, dict):
        item = item.get("messages")
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not isinstance(item, list) or not item:
        raise BadRequestError(f"a conversation is a non-empty list of messages; got {_kind(item)}")
    if len(item) > MOST_MESSAGES:
        raise BadRequestError(f"a conversation of {len(item)} messages; at most {MOST_MESSAGES} are read")
    messages = [_message(message) for message in item]
    spoken = messages[1:] if messages[0]["role"] == "system" else messages
    roles = ["model" if message["role"] == "assistant" else message["role"] for message in spoken]
    if roles != ["user", "model"] * (len(roles) // 2) + ["user"]:
        raise BadRequestError("a conversation alternates between user and model (or assistant) and ends with user")
    return messages


def _message(message: Any) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequestError(f"a message needs a role, one of {', '.join(_ROLES)}; got {shown(role)}")
    if not isinstance(content, str) or not content.strip():
        raise BadRequestError("a message needs text as its content")
    if re.search("[\0\ud800-\udfff]", content):
        raise BadRequestError("a message holds NUL or half a surrogate pair, which no text does")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
    return "nothing" if value is None or value == [] else type(value).__name__


@dataclass(frozen=True)
class ReplyParams:
    """The params of one request. `temperature` 0 is greedy; `seed` None draws other replies each time; texts in `stop`
    end a reply and are no part of it."""

    max_tokens: int = Config().evaluation.max_new_tokens
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


NAMES = ("temperature", "top_p", "max_tokens", "seed", "stop")


def declared(max_tokens: int) -> dict[str, Any]:
    """{param: default} as a model's signature shows them; each default parses to that of `ReplyParams`."""
    return {"temperature": 0.0, "top_p": 1.0, "max_tokens": max_tokens, "seed": _NO_SEED, "stop": [_NO_STOP]}


def parse_params(given: Mapping[str, Any] | None, default_max_tokens: int) -> ReplyParams:
    """`given` by name, null meaning the default; BadRequestError (one line) for an unknown name, type or range."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise BadRequestError(f"params is an object of {', '.join(NAMES)}; got {shown(given)}")
    if unknown := [name for name in given if name not in NAMES]:
        raise BadRequestError(f"unknown param {shown(unknown[0])}; there are {', '.join(NAMES)}")
    values = {name: value for name, value in given.items() if value is not None}
    return ReplyParams(
        temperature=_number("temperature", values.get("temperature", 0.0), 0, 2),
        top_p=_number("top_p", values.get("top_p", 1.0), 0, 1, above=True),
        max_tokens=_whole("max_tokens", values.get("max_tokens", default_max_tokens), 1, _MOST_TOKENS),
        seed=_seed(values.get("seed", _NO_SEED)),
        stop=_stops(values.get("stop", [])),
    )


def check_cost(count: int, params: ReplyParams) -> None:
    """BadRequestError (one line) where `count` replies could be longer than a server lets one request be."""
    if count * params.max_tokens > MOST_REPLY_TOKENS:
        raise BadRequestError(
            f"{count} conversations with max_tokens {params.max_tokens} are up to {count * params.max_tokens} tokens; "
            f"at most {MOST_REPLY_TOKENS} are generated for one request"
        )


def _number(name: str, value: Any, low: float, high: float, above: bool = False) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not low <= value <= high or (above and value == low) or not math.isfinite(value):
        between = f"above {low} and at most {high}" if above else f"from {low} to {high}"
        raise BadRequestError(f"{name} is a number {between}; got {shown(value)}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequestError(f"{name} is a whole number from {low} to {high}; got {shown(value)}")
    return value


def _seed(value: Any) -> int | None:
    seed = _whole("seed", value, _NO_SEED, _HIGHEST_SEED)
    return None if seed == _NO_SEED else seed


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > _MOST_STOPS or not all(map(_is_stop, texts)):
        raise BadRequestError(
            f"stop is a text, or a list of at most {_MOST_STOPS}, each of at most {_LONGEST_STOP} characters; "
            f"got {shown(value)}"
        )
    return tuple(text for text in texts if text != _NO_STOP)


def _is_stop(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _LONGEST_STOP
