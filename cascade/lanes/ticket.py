"""The books of a queue: the calls that are in it, and the runs that answer them."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from cascade.facts import Failed, Replied
from cascade.lanes.handle import Handle, aside
from cascade.lanes.lane import Served

if TYPE_CHECKING:
    from cascade.protocols import OnDone

__all__ = ["Run", "Ticket"]


class Ticket(Served):
    """One call in the lane: who waits for it, until when, and where it is."""

    __slots__ = ("context", "gone", "on_done", "rank", "run", "struck", "until")

    def __init__(self, job: Any, submitted: int, on_done: OnDone) -> None:
        super().__init__(job, submitted)
        self.until: int = job.until
        self.rank: int = job.rank
        self.on_done = on_done
        self.run: Run | None = None
        self.gone = False  # nobody waits any more
        self.struck = False
        self.context = contextvars.copy_context()

    def tell(self) -> None:
        """Give who waits the fact."""
        assert self.fact is not None  # noqa: S101  it is over
        aside(self.on_done, self.fact)


class Run:
    """What one worker is at: its tickets, and how many of them are still waited for."""

    __slots__ = ("expected", "handle", "lost", "started", "tickets", "waiting", "why")

    def __init__(self, tickets: list[Ticket], started: int, needs: int, why: str) -> None:
        self.tickets = tickets
        self.waiting = len(tickets)
        self.handle = Handle(None, [ticket.job for ticket in tickets])
        self.started = started
        self.expected = started + needs  # when it should be over, ns
        self.lost = 0  # when the last who waited for it left, ns
        self.why = why  # it went when it did
        for ticket in tickets:
            ticket.run = self

    def inside(self) -> int:
        """Nanoseconds that the tier itself took: one time for all who were answered together."""
        facts = (ticket.fact for ticket in self.tickets)
        times = {(x.started, x.finished) for x in facts if isinstance(x, (Replied, Failed))}
        return sum(finished - started for started, finished in times)
