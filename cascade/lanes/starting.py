"""Threads and gates, as they are when a signal's handler raises in between."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

__all__ = ["open_gate", "start"]

_LOOKS = 50  # a millisecond apart


def open_gate(gate: threading.Lock) -> None:
    """Open a gate, which may be open: who opened it was interrupted before he could note it."""
    try:
        gate.release()
    except RuntimeError:
        return


def start(work: threading.Thread) -> tuple[bool, BaseException | None]:
    """Start a thread; return whether it has begun, and what a signal's handler raised meanwhile.

    Neither: there is no thread to be had.
    """
    try:
        work.start()
    except (RuntimeError, MemoryError) as error:
        interrupt = error.__context__  # of which waiting for the thread may have made another error
        if interrupt is None or "new thread" in str(error):
            return False, None
        return _begins(work), interrupt
    except BaseException as interrupt:  # noqa: BLE001  the caller raises it
        return _begins(work), interrupt
    return True, None


def _begins(work: threading.Thread) -> bool:
    for _ in range(_LOOKS):
        if work.ident is not None:
            return True
        time.sleep(0.001)
    return False
