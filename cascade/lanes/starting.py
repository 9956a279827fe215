"""Threads and gates, as they are when a signal's handler raises in between."""

from __future__ import annotations

import _thread
import contextlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ["elsewhere", "open_gate", "start"]

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


def elsewhere(work: Callable[..., None], *args: Any) -> None:
    """Do something in another thread, from a finaliser: this one may hold any lock just now.

    So it is no ``threading.Thread``, whose start takes locks of its own.
    """
    with contextlib.suppress(RuntimeError):  # none is to be had, or the interpreter ends
        _thread.start_new_thread(work, args)


def _begins(work: threading.Thread) -> bool:
    for _ in range(_LOOKS):
        if work.ident is not None:
            return True
        time.sleep(0.001)
    return False
