"""Whatever a person or a client sends as a chat -> conversations. Standard library and pandas; knows nothing of models."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from socratic_mlflow.config import shown
from socratic_mlflow.dialogues import Message

_ROLES = ("user", "model", "assistant", "system")
# A template is rendered once for each reply, so that a chat of thousands of turns would take minutes to prepare.
MOST_MESSAGES, MOST_CONVERSATIONS = 100, 256


class BadRequestError(ValueError):
    """A request that cannot be answered; its text is one sentence for whoever sent it."""


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
    return "nothing" if value is None or value == [] else f"a {type(value).__name__}"
