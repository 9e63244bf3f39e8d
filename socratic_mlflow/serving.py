"""The pyfunc model: messages -> reply. Formats chats just as training does (`tokens.py`); knows nothing of the Trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from socratic_mlflow.config import Config, shown, with_values
from socratic_mlflow.incoming import BadRequestError, ReplyParams, check_cost, conversations, declared, parse_params
from socratic_mlflow.replying import MAX_PROMPT_TOKENS, Replier, UnwantedError
from socratic_mlflow.scoring_guard import ADMITTED, RefusedError, failed, gave_up, guard_scoring_server

# One conversation of one message.
INPUT_EXAMPLE = [[{"role": "user", "content": "正義とは何でしょうか？"}]]

# Tokens; a server may be given another bound by MLflow's SERVING_MODEL_CONFIG.
_BOUND = "serving.max_prompt_tokens"


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
    return settings | {"model.revision": base_revision, _BOUND: MAX_PROMPT_TOKENS}


def input_example(config: Config) -> tuple[Any, dict[str, Any]]:
    """(conversations, params with their defaults): MLflow reads the params of the model's signature from it."""
    return INPUT_EXAMPLE, declared(config.evaluation.max_new_tokens)


def _any_input(predict: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Bring the input into the form that the type hint declares before MLflow checks it against that hint."""

    @functools.wraps(predict)
    def wrapper(
        self: SocraticModel, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None
    ) -> list[str]:
        try:
            return predict(self, context, conversations(model_input), params)
        except BadRequestError as error:
            raise RefusedError(str(error)) from None
        except UnwantedError:
            raise gave_up() from None
        except MlflowException:
            raise
        except Exception as error:
            raise failed(error) from error

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
        # A version from before this bound has none.
        bound = settings.pop(_BOUND, MAX_PROMPT_TOKENS)
        if type(bound) is not int or bound < 1:
            raise ValueError(f"{_BOUND} is {shown(bound)}; allowed: a whole number at least 1")
        self.config = resolve_dtype(with_values(Config(), settings))
        if Path(self.config.model.base_model).is_dir() and base_revision(self.config.model) != self.config.model.revision:
            raise ValueError(
                f"{self.config.model.base_model}: its weights have changed since this adapter was trained on them"
            )
        self.chat = ChatFormat(load_tokenizer(self.config.model))
        base = load_base(self.config.model, self.config.quantization)
        self.model = load_adapter(base, context.artifacts["adapter"])
        self.replier = Replier(self.model, self.chat, self.config.evaluation.generation_batch_size, bound)
        guard_scoring_server(self.prepare)

    def read_params(self, given: Any) -> ReplyParams:
        """The params of a request; BadRequestError (one line) for an unknown one, and for a wrong type or range."""
        return parse_params(given, self.config.evaluation.max_new_tokens)

    def prepare(self, talks: Mapping[str, Any], given: Any) -> tuple[list[list[int]], ReplyParams]:
        """(prompts as token ids, params) of a server's request {'inputs' or 'messages': ...} with the params `given`.

        BadRequestError (one line) where it cannot be answered, or would keep the server too long.
        """
        wanted = self.read_params(given)
        asked = conversations(talks.get("inputs", talks))
        check_cost(len(asked), wanted)
        return [self.replier.prompt(messages, wanted) for messages in asked], wanted

    def predict(
        self,
        context: PythonModelContext,
        model_input: list[list[dict[str, str]]],
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """One reply for each conversation, all with the same `params` (see `incoming.py`), greedily by default."""
        if admitted := ADMITTED.get():
            answers = self.replier.answer(admitted.prompts, admitted.params, is_over=admitted.is_over)
        else:
            wanted = self.read_params(params)
            prompts = [self.replier.prompt(messages, wanted) for messages in model_input]
            answers = self.replier.answer(prompts, wanted)
        return [answer.text for answer in answers]


# MLflow wraps `predict` in its check as soon as the class stands, so the conversion goes around that from here.
SocraticModel.predict = _any_input(SocraticModel.predict)  # type: ignore[method-assign]
