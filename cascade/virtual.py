"""Virtual time: a clock for routers, and an event loop that never waits; for tests."""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["VirtualClock", "VirtualLoop", "run_virtual"]

T = TypeVar("T")


class VirtualClock:
    """A clock to give to a router: time passes when the test, or a scripted tier, says so.

    >>> clock = VirtualClock()
    >>> before = clock()
    >>> clock.advance(0.5)
    >>> clock() - before
    500000000
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = round(start * 1e9)
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Return the time in integer nanoseconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += round(seconds * 1e9)


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait for timers: it moves its loop's time there.

    Without a timer only a thread or a socket can wake the loop: in real time, or never.
    """

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        loop = self.loop
        if timeout is None:
            found = super().select(loop.patience)
            if not found:
                raise RuntimeError(_stuck(loop))
            return found
        found = super().select(0)
        if not found:
            loop.now += max(0.0, timeout)
        return found


def _stuck(loop: VirtualLoop) -> str:
    tasks = [task.get_coro() for task in asyncio.all_tasks(loop)]
    waiting = ", ".join(sorted(getattr(task, "__qualname__", repr(task)) for task in tasks))
    return (
        f"nothing is left to wait for: no timer is set, and no thread or socket woke the loop in "
        f"{loop.patience:g} s (loop.patience) of real time; what waits: {waiting or 'no task'}"
    )


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it.

    ``loop.clock`` is the clock to give to a router. Threads do not see virtual time: have the
    router made by :func:`cascade.testing.async_router_for`, or use asynchronous tiers. Where no
    timer is left, a thread or a socket has ``loop.patience`` seconds of real time to wake the loop;
    after that nothing ever will, which is a RuntimeError.

    >>> loop = VirtualLoop()
    >>> before = loop.clock()
    >>> loop.run_until_complete(asyncio.sleep(60))
    >>> (loop.clock() - before) / 1e9
    60.0
    >>> loop.close()
    """

    patience = 10.0

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    def clock(self) -> int:
        """Return the virtual time in integer nanoseconds."""
        return round(self.now * 1e9)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait for no thread: a time limit would have passed before any could end."""


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(loop)`` in virtual time, as ``asyncio.run`` would in real time.

    Tasks and asynchronous generators that are left are ended; threads are not waited for.

    >>> async def main(loop):
    ...     before = loop.time()
    ...     await asyncio.sleep(3600)
    ...     return loop.time() - before
    >>> run_virtual(main)
    3600.0
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop: Any = runner.get_loop()
        return runner.run(main(loop))
