"""What a run is given: its row, what it may know of who waits, and how it can be stopped."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Handle", "aside"]

_NOTHING: Mapping[str, Any] = {}


def aside(function: Callable[..., object], *args: Any) -> None:
    """Call what another has brought; what goes wrong there is shown, and stops nobody else."""
    try:
        function(*args)
    except (Exception, SystemExit):  # noqa: BLE001  it may raise anything
        shown = (*sys.exc_info(), threading.current_thread())
        threading.excepthook(threading.ExceptHookArgs(shown))


class Handle:
    """The context of one run, on behalf of one request or of several.

    A tier that can be stopped says how with ``stop_with``; any other may look at ``cancelled()``.
    """

    __slots__ = ("_jobs", "_stop", "row", "stopped")

    def __init__(self, row: Any, jobs: Sequence[Any]) -> None:
        self.row = row
        self._jobs = jobs
        self._stop: Callable[[], None] | None = None
        self.stopped = False

    @property
    def tenant(self) -> str | None:
        """On whose behalf the run is made; None for a batch of several tenants."""
        tenants = {job.tenant for job in self._jobs}
        return tenants.pop() if len(tenants) == 1 else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller passed along; nothing for a batch of several requests."""
        return self._jobs[0].metadata if len(self._jobs) == 1 else _NOTHING

    def remaining(self) -> float:
        """Seconds until the last deadline of those who wait."""
        left: float = max(job.remaining() for job in self._jobs)
        return left

    @property
    def abandoned(self) -> bool:
        """Whether a batch was given up by its caller, which is no fault of the tier."""
        return all(getattr(job, "abandoned", False) for job in self._jobs)

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.stopped or all(job.cancelled() for job in self._jobs)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Say how this run can be stopped, from another thread."""
        self._stop = stop
        if self.stopped:  # it was stopped before it could say so
            stop()

    def stop(self) -> None:
        """Stop the run, if it has said how."""
        self.stopped = True
        if self._stop is not None:
            aside(self._stop)
