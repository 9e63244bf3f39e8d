"""Keep third-party noise down, so that a person sees the lines that matter. Warnings that a user can act on stay."""

from __future__ import annotations

import logging
import os
import warnings


def quiet() -> None:
    """Raise other libraries' log levels; called once by the command line before they are imported.

    What is hushed: SQL migration lines of a new MLflow database, progress bars of loading and downloading weights,
    bitsandbytes' hint at an optional package, MLflow's notice that registry stages are deprecated (this project sets
    aliases as well), git and pip probes.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in (
        "alembic",
        "bitsandbytes",
        "peft",
        "accelerate",
        "git",
        "huggingface_hub",
        "kernels",
        "matplotlib",
        "urllib3",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def quiet_transformers() -> None:
    """transformers' own switches, which exist only once it is imported, and what loading a quantized base says.

    Serving calls this in other people's processes, so it touches no more than that.
    """
    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
