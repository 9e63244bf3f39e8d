"""What a client reads of a request that got no reply: one sentence and a status, as MLflow's servers pass them on."""

from __future__ import annotations

import logging
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

_logger = logging.getLogger(__name__)


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
    """What a client reads where answering failed (status 500); what failed goes to the server's log."""
    _logger.error("a request could not be answered", exc_info=error)
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError):
        return RefusedError("the server has not enough memory for this request; send less at once", INTERNAL_ERROR)
    return RefusedError("the server failed to answer this request; its log says why", INTERNAL_ERROR)
