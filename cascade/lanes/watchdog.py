"""The watchdog: stops runs in callers' threads that pass their deadline.

One daemon thread polls a slot per running call, every other millisecond while there are any: no
timer, condition or heap per run. It sleeps when nothing has run for a while; it ends with its plan.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.lanes.handle import Handle
    from cascade.protocols import Clock

__all__ = ["Watchdog", "in_time"]

T = TypeVar("T")

_POLL = 0.0015  # s
_CALM = 400  # polls without a run after which it sleeps


class _Over(AbstractContextManager["None"]):
    """A run that is watched."""

    __slots__ = ("_dog", "_slot")

    def __init__(self, dog: Watchdog, slot: tuple[int, Handle]) -> None:
        self._dog = dog
        self._slot = slot

    def __enter__(self) -> None:
        self._dog.slots[id(self)] = self._slot
        self._dog.wake()

    def __exit__(self, *exc_info: object) -> None:
        self._dog.slots.pop(id(self), None)


class Watchdog:
    """Watches runs for all lanes of a plan."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.slots: dict[int, tuple[int, Handle]] = {}
        self._awake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._retired = False

    def over(self, handle: Handle, until: int) -> AbstractContextManager[None]:
        """Watch a run while the block lasts; it is stopped once ``until`` (ns) has passed."""
        return _Over(self, (until, handle))

    def wake(self) -> None:
        """Have the thread look."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._watch, args=(self._awake,), name="cascade-watchdog",
                        daemon=True,
                    )  # fmt: skip
                    # where there are no more to be had, runs go unwatched until one is
                    with contextlib.suppress(RuntimeError, MemoryError):
                        thread.start()
                        self._thread = thread
        if not self._awake.is_set():
            self._awake.set()

    def retire(self) -> None:
        """Let the thread go once there is nothing to watch; a late run has another started."""
        self._retired = True
        self._awake.set()

    def _may_leave(self) -> bool:
        with self._starting:
            me, self._thread = self._thread, None  # first: who begins now sees it, or is seen
            if self.slots:
                self._thread = me
            return self._thread is None

    def _watch(self, awake: threading.Event) -> None:
        calm = 0
        while True:
            if not self.slots:
                calm += 1
                if self._retired and self._may_leave():
                    return
                if calm > _CALM:
                    awake.clear()
                    if not self.slots and not self._retired:  # a run may have begun just now
                        awake.wait()
                    calm = 0
            else:
                calm = 0
                now = self._clock()
                for until, handle in list(self.slots.values()):
                    if now >= until and not handle.stopped:
                        handle.stop()
            time.sleep(_POLL)


def in_time(
    work: Callable[[], T], nanoseconds: int, leave: Callable[[], Callable[[], None] | None]
) -> T | None:
    """Return what comes of some work, or None when it is not over in time, and is left.

    It runs in a daemon thread of its own, for what cannot be stopped, in the caller's context; what
    it raises is raised.
    ``leave`` is called when it is left, and what that returns when it is over after all.
    """
    found: list[tuple[bool, Any]] = []
    late: list[Callable[[], None] | None] = []
    over, ending = threading.Event(), threading.Lock()

    def run() -> None:
        try:
            found.append((True, work()))
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            found.append((False, error))
        with ending:
            over.set()
        for ended in filter(None, late):
            ended()

    caller = contextvars.copy_context()  # it works for the caller's event loop
    threading.Thread(target=caller.run, args=(run,), name="cascade-rows", daemon=True).start()
    if not over.wait(max(0.0, nanoseconds / 1e9)):
        with ending:
            if not over.is_set():  # it may be, just now
                late.append(leave())
                return None
    good, result = found[0]
    if not good:
        raise result
    return result  # type: ignore[no-any-return]
