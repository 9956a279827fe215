"""The breaker, pure: a tier that mostly fails is left alone for a while, then tried once.

It opens when, within a sliding window, at least a share of at least so many calls failed; it lets
one call through after a pause, whose length is jittered so that processes do not return in step;
and it closes with the first success (Nygard, *Release It!*, 2007). Successes are counted by whoever
runs the tier anyway, so that a sound call costs nothing. Whoever looks whether it would keep a call
away changes nothing by it; the one that is let through is counted where it is made.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker"]

_JITTER = 0.2  # of the pause, at most
_KEPT = 1_000  # failures that are remembered


@attrs.define(eq=False)
class Breaker:
    """Times in ns; ``chance`` gives numbers in [0, 1), for the jitter.

    >>> breaker = Breaker(rate=0.5, minimum=2, window=1_000, pause=100, chance=lambda: 0.0)
    >>> breaker.failed(0, successes=0), breaker.failed(1, successes=0)
    (None, None)
    >>> breaker.refuses(50, 0), breaker.refuses(101, 0), breaker.refuses(102, 0)
    (True, False, False)
    >>> breaker.admits(102, 0), breaker.admits(103, 0), breaker.refuses(103, 0)
    (True, False, True)
    >>> breaker.admits(104, successes=1)
    True
    """

    rate: float
    minimum: int
    window: int
    pause: int
    chance: Callable[[], float]
    lock: AbstractContextManager[Any] = attrs.field(factory=nullcontext)  # where threads share it
    on_change: Callable[[bool], None] | None = None  # hears, under the lock, whether it is open
    opened: int = 0  # how often
    _failures: deque[tuple[int, int]] = attrs.field(factory=lambda: deque(maxlen=_KEPT))
    _until: int | None = None  # no call before; None while it is closed
    _sound: int = 0  # successes when it opened

    @property
    def is_open(self) -> bool:
        """Whether calls are kept away, but for a probe."""
        return self._until is not None

    def failed(self, now: int, successes: int) -> None:
        """Take in a failure; ``successes`` counts those of the tier since it was opened."""
        with self.lock:
            until = self._shut(successes)
            if until is not None:
                if now >= until:  # it was the probe
                    self._open(now, successes)
                return
            failures = self._failures
            failures.append((now, successes))
            while failures[0][0] < now - self.window:
                failures.popleft()
            calls = len(failures) + successes - failures[0][1]
            if calls >= self.minimum and len(failures) >= self.rate * calls:
                self._open(now, successes)

    def _open(self, now: int, successes: int) -> None:
        self.opened += 1
        self._failures.clear()
        self._until = now + round(self.pause * (1.0 + _JITTER * self.chance()))
        self._sound = successes
        if self.on_change is not None:
            self.on_change(True)  # noqa: FBT003

    def _shut(self, successes: int) -> int | None:
        """Close it where the probe, or a call that was under way, has succeeded; under the lock."""
        if self._until is not None and successes > self._sound:
            self._until = None
            if self.on_change is not None:
                self.on_change(False)  # noqa: FBT003
        return self._until

    def refuses(self, now: int, successes: int) -> bool:
        """Whether to keep away; to ask costs no call its chance."""
        if self._until is None:
            return False
        with self.lock:
            until = self._shut(successes)
            return until is not None and now < until

    def admits(self, now: int, successes: int) -> bool:
        """Whether a call may be made, here and now: one may once the pause is over."""
        if self._until is None:
            return True
        with self.lock:
            until = self._shut(successes)
            if until is None:
                return True
            if now < until:
                return False
            self._until = now + self.pause  # one probe at a time
            return True
