"""The pyfunc model: messages -> reply. Formats chats just as training does (`tokens.py`); knows nothing of the Trainer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from socratic_mlflow.config import Config, with_values
from socratic_mlflow.dialogues import Message

# One conversation of one message.
INPUT_EXAMPLE = [[{"role": "user", "content": "正義とは何でしょうか？"}]]

_ROLES = ("user", "model", "assistant")


def serving_settings(config: Config, base_revision: str) -> dict[str, Any]:
    """What of a training's configuration its model needs to answer, as dotted keys; the base at just that revision."""
    keys = {
        "model": ("base_model", "attn_implementation", "trust_remote_code"),
        "quantization": ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"),
        "evaluation": ("max_new_tokens", "generation_batch_size"),
    }
    settings = {f"{part}.{key}": getattr(getattr(config, part), key) for part, names in keys.items() for key in names}
    base = config.model.base_model
    # A folder is found again from any working directory.
    settings["model.base_model"] = str(Path(base).resolve()) if Path(base).is_dir() else base
    return settings | {"model.revision": base_revision}


def conversations(model_input: Any) -> list[list[Message]]:
    """Any accepted input as a list of conversations, each ending with a user message.

    Accepted: a string; a list of strings; one conversation of messages; a list of conversations; {'messages': [...]} or
    a list of those; a DataFrame with a column `messages`, with columns `role` and `content` (one conversation), or with
    one column of strings. Raises ValueError (one line) for anything else.
    """
    if isinstance(model_input, pd.DataFrame):
        model_input = _from_frame(model_input)
    if hasattr(model_input, "tolist"):
        model_input = model_input.tolist()
    if isinstance(model_input, str | dict):
        model_input = [model_input]
    if not isinstance(model_input, list) or not model_input:
        raise ValueError(f"expected a question, messages or a list of them; got {_kind(model_input)}")
    if all(isinstance(item, dict) and "messages" not in item for item in model_input):
        return [_conversation(model_input)]
    return [_conversation(item) for item in model_input]


def _from_frame(frame: pd.DataFrame) -> Any:
    if "messages" in frame.columns:
        return frame["messages"].tolist()
    if {"role", "content"} <= set(frame.columns):
        return frame[["role", "content"]].to_dict(orient="records")
    if len(frame.columns) == 1:
        return frame.iloc[:, 0].tolist()
    raise ValueError(
        f"a DataFrame needs a column 'messages', columns 'role' and 'content', or one column of questions; "
        f"this one has {', '.join(map(str, frame.columns))}"
    )


def _conversation(item: Any) -> list[Message]:
    if isinstance(item, str):
        item = [{"role": "user", "content": item}]
    if isinstance(item, dict):
        item = item.get("messages")
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not isinstance(item, list) or not item:
        raise ValueError(f"a conversation is a non-empty list of messages; got {_kind(item)}")
    messages = [_message(message) for message in item]
    roles = ["user" if message["role"] == "user" else "model" for message in messages]
    if roles != ["user", "model"] * (len(roles) // 2) + ["user"]:
        raise ValueError("a conversation alternates between user and model (or assistant) and ends with user")
    return messages


def _message(message: Any) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if role not in _ROLES:
        raise ValueError(f"a message needs a role, one of {', '.join(_ROLES)}; got {role!r}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError("a message needs text as its content")
    if re.search("[\0\ud800-\udfff]", content):
        raise ValueError("a message holds NUL or half a surrogate pair, which no text does")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
    return "nothing" if value is None or value == [] else f"a {type(value).__name__}"


def _any_input(predict: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Bring the input into the form that the type hint declares before MLflow checks it against that hint."""

    @functools.wraps(predict)
    def wrapper(
        self: SocraticModel, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None
    ) -> list[str]:
        return predict(self, context, conversations(model_input), params)

    return wrapper


class SocraticModel(PythonModel):
    """Base (quantized as in training) + adapter. `predict` gives one reply (str) for each conversation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load base and adapter; ValueError where the adapter does not fit the base, or the base is not the one it had."""
        from socratic_mlflow.model import base_revision, load_adapter, load_base, load_tokenizer, resolve_dtype
        from socratic_mlflow.quiet import quiet_transformers
        from socratic_mlflow.tokens import ChatFormat

        quiet_transformers()
        settings = dict(context.model_config)
        if "base" in context.artifacts:
            settings["model.base_model"] = context.artifacts["base"]
        self.config = resolve_dtype(with_values(Config(), settings))
        if Path(self.config.model.base_model).is_dir() and base_revision(self.config.model) != self.config.model.revision:
            raise ValueError(
                f"{self.config.model.base_model}: its weights have changed since this adapter was trained on them"
            )
        self.chat = ChatFormat(load_tokenizer(self.config.model))
        base = load_base(self.config.model, self.config.quantization)
        self.model = load_adapter(base, context.artifacts["adapter"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: list[list[dict[str, str]]],
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """One reply for each conversation, greedily, at most `evaluation.max_new_tokens` tokens long."""
        from socratic_mlflow.evaluation import Sampling, generate

        limits = self.config.evaluation
        sampling = Sampling(max_new_tokens=limits.max_new_tokens)
        replies = generate(self.model, self.chat, model_input, sampling, limits.generation_batch_size)
        return [reply.text for reply in replies]


# MLflow wraps `predict` in its check as soon as the class stands, so the conversion goes around that from here.
SocraticModel.predict = _any_input(SocraticModel.predict)  # type: ignore[method-assign]
