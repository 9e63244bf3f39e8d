"""The process of one trial: `socratic-mlflow train`, which ends, with a checkpoint, when the worker behind it is gone.

A worker that is killed can tell nobody; but the pipe that is this process' standard input then closes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _end_with_the_worker() -> None:
    # Not sys.stdin, whose lock would be in the way of this process' own end.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from socratic_mlflow.cli import main

    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    sys.exit(main(["train", *sys.argv[1:]]))
