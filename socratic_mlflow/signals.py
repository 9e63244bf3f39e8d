"""Who hears that this process is to stop, for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


def listen(hear: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let SIGTERM, Ctrl-C and a closed terminal reach `hear`; returns who heard them until now, for `restore`."""
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    # nohup, say, has it that a closed terminal does not matter.
    return {each: signal.signal(each, hear) for each in heard if signal.getsignal(each) is not signal.SIG_IGN}


def restore(before: dict[int, Any]) -> None:
    """Undo `listen`."""
    for number, handler in before.items():
        signal.signal(number, handler)
