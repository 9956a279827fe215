"""The lane that chooses for itself: inline while the tier is fast, off-loaded when it is not.

A tier that answers in under 100 µs costs less in the caller than a hop to a thread, and is over
before a deadline could stop it. Anything slower, or not yet known, runs on a worker, where a
deadline is real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.lanes.inline import InlineLane
from cascade.lanes.worker import WorkerLane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cascade.breaker import Breaker
    from cascade.facts import Refused, RowsReply
    from cascade.lanes.lane import Served
    from cascade.protocols import Context, Occupancy

__all__ = ["FAST", "AutoLane"]

FAST = 100_000  # ns at the service time's quantile: at most this to go inline
_SLOW = 2 * FAST  # and beyond this back to a worker: twice, so that it does not flap
_KNOWN = 16  # runs before a tier without a measured profile is believed to be fast


class AutoLane:
    """An inline lane and a worker lane over one tier; ``call`` is that of the one in force."""

    def __init__(self, *args: Any, known: bool, worker: Mapping[str, Any]) -> None:
        self._near = InlineLane(*args, pad=worker.get("pad"), cap=worker.get("cap", 1))
        self._far = WorkerLane(*args, **worker)
        self.index = self._near.index
        self.tier = self._near.tier
        self.service = self._near.service
        self.prepare = self._near.prepare
        self.calibration = self._near.calibration
        self.pad = self._far.pad
        self.cap = self._far.cap
        self._known = known
        self._suspected = False  # its breaker is open
        self._etas: list[Callable[[], int]] | None = None
        self.bare = self._near.bare
        self.fault = self._near.fault
        self.inline = False
        self._use(inline=known and self.service.eta() < FAST)
        self.service.on_change = self._reconsider
        self.submit = self._far.submit
        self.cancel = self._far.cancel
        self.adopt = self._far.adopt
        self.timed_out = self._far.timed_out
        self.lose = self._far.lose

    def _use(self, *, inline: bool) -> None:
        self.inline = inline
        lane = self._near if inline else self._far
        self.call = lane.call
        self.eta = lane.eta
        if self._etas is not None:
            self._etas[self.index] = lane.eta

    def _suspect(self, is_open: bool) -> None:  # noqa: FBT001
        self._suspected = is_open
        self._use(inline=not is_open and self._known and self.service.eta() < FAST)

    def _reconsider(self, expected: int) -> None:
        self._known = self._known or self.service.runs >= _KNOWN
        if self.inline and expected > _SLOW:
            self._use(inline=False)
        elif not self.inline and self._known and expected < FAST and not self._suspected:
            self._use(inline=True)

    def use(self, breaker: Breaker) -> None:
        """Have one breaker looked at, wherever the tier runs: on a worker while it is open."""
        self._near.use(breaker)
        breaker.on_change = self._suspect
        self._far.breaker = breaker
        self._use(inline=self.inline)

    def eta_for(self, rank: int) -> Callable[[], int]:
        """Return the ``eta`` of requests of another class."""
        return lambda: self._near.eta() if self.inline else self._far.eta(1, rank)

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""
        return 0 if self.inline else self._far.wait()

    def live(self) -> int:
        """How many calls somebody waits for, on a worker."""
        return self._far.live()

    def resize(self, workers: int) -> None:
        """Have so many workers, for when the tier does not run inline."""
        self._far.resize(workers)

    def occupancy(self) -> Occupancy:
        """Say what the lane is at; what still runs on a worker counts."""
        return self._far.occupancy()

    def announce(self, etas: list[Callable[[], int]]) -> None:
        """Keep one's place in a list of etas up to date: a call less per look."""
        self._etas = etas
        etas[self.index] = self.eta

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Ask the tier outside of the ledger."""
        return self._near.plain(job)

    def call_rows(self, rows: Any, n: int, context: Context) -> RowsReply | Refused:
        """Run n rows at once."""
        return self._near.call_rows(rows, n, context)

    def serve_turn(self, served: list[Served]) -> None:
        """Answer requests of one turn of an event loop."""
        self._near.serve_turn(served)

    @property
    def zombies(self) -> int:
        """Workers that run for nobody."""
        return self._far.zombies

    def retire(self) -> None:
        """Let the workers go once they have nothing to do."""
        self._far.retire()

    def close(self, grace: float = 0.0) -> None:
        """Let what is under way end."""
        self._far.close(grace)
