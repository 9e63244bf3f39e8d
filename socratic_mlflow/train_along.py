"""What each process of a training does but the first, which a person has started."""

from __future__ import annotations

import contextlib
import signal

from socratic_mlflow import torch_settings
from socratic_mlflow.importing import quick_imports
from socratic_mlflow.launching import attend, join, leave
from socratic_mlflow.quiet import quiet_transformers


def train_along() -> int:
    """Hear from the first process what is to be trained, and train along; returns the exit code."""
    attend()
    torch_settings.apply()
    with quick_imports():
        from socratic_mlflow import ranks, trainer
        from socratic_mlflow.output_dir import OutputDir
    quiet_transformers()
    join()
    task = ranks.from_first(None)
    if task is not None:
        config, folder = task
        prepared = trainer.prepare(config, OutputDir(folder))
        # The first process writes a checkpoint then, which takes all of them.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # An agreed stop is no failure, and the first process may be at that checkpoint for long after this one has gone.
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train_along(prepared)
    leave()
    return 0
