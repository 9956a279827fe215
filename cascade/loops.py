"""What a router keeps per event loop: fairness, turns that requests share, and deliveries."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from cascade.batching import knee
from cascade.facts import Refused
from cascade.lanes.lane import Served
from cascade.lanes.loop import LoopLane
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.engine import Request
    from cascade.facts import Fact
    from cascade.plan import Plan
    from cascade.protocols import Clock

__all__ = ["Loop", "Turn"]

_CALM = 8  # turns of one request each after which batching stops


class Loop:
    """One event loop as the router sees it.

    ``held`` is how long (ns) inline work has held the loop since it last turned; from ``FAIR`` on
    requests give way first. When several had to at once the loop is ``crowded``: inline tiers that
    batch are then run once per turn for all.
    """

    FAIR = 500_000
    HIT = 3_000  # what checking, a hit or the closing of the books are taken to cost

    def __init__(self, running: asyncio.AbstractEventLoop) -> None:
        self.asyncio = running
        self.plan: Plan | None = None
        self.clock: Clock = time.monotonic_ns
        self.held = 0
        self.active = 0  # requests on their way up
        self.crowded = False
        self.turns: tuple[Turn | None, ...] = ()
        self._giving_way = 0
        self._arrived: deque[asyncio.Future[None]] = deque()
        self._delivering = False

    def serve(self, plan: Plan) -> None:
        """Make a plan's lanes known to the loop, and the other way round."""
        if plan is self.plan:
            return
        self.plan, self.clock = plan, plan.clock
        self.turns = tuple(Turn(self, lane) if lane.cap > 1 else None for lane in plan.lanes)
        for lane in plan.lanes:
            if isinstance(lane, LoopLane):
                lane.loop = self.asyncio

    # -- fairness --------------------------------------------------------------------------------

    async def give_way(self) -> None:
        """Let everything else that is ready have its turn."""
        if not self._giving_way:
            self.asyncio.call_soon(self._turned)
        self._giving_way += 1
        await asyncio.sleep(0)

    def _turned(self) -> None:
        if self._giving_way > 1:
            self.crowded = True
        self._giving_way = self.held = 0

    # -- what workers deliver --------------------------------------------------------------------

    def delivery(self, future: asyncio.Future[None]) -> Callable[[Fact], None]:
        """Return what completes a call that this future awaits, from any thread.

        The loop is woken once for all that has come in until it looks.
        """

        def done(_: Fact) -> None:
            self._arrived.append(future)
            if not self._delivering:
                self._delivering = True
                try:
                    self.asyncio.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits
                    self._delivering = False

        return done

    def _deliver(self) -> None:
        self._delivering = False
        arrived = self._arrived
        while arrived:
            future = arrived.popleft()
            if not future.done():
                future.set_result(None)

    async def quiet(self) -> None:
        """Wait until no request is on its way up."""
        while self.active:  # noqa: ASYNC110  an event would cost every request
            await asyncio.sleep(0.002)


class Seat(Served):
    """A request in a turn, and the future that it awaits."""

    __slots__ = ("future",)

    def __init__(self, request: Request, future: asyncio.Future[None]) -> None:
        self.job, self.submitted = request, request.routed  # as the parent's: a call less
        self.row, self.prepared, self.fact = None, 0, None
        self.future = future


class Turn:
    """The requests that ask one inline tier in one turn of the loop; they run together."""

    def __init__(self, loop: Loop, lane: Any) -> None:
        self._loop = loop
        self._lane = lane
        self._waiting: list[Seat] = []
        self._calm = 0

    def seat(self, request: Request) -> Seat:
        """Have a request answered together with the others of this turn."""
        loop = self._loop.asyncio
        if not self._waiting:
            loop.call_soon(self._flush)
        seat = Seat(request, loop.create_future())
        self._waiting.append(seat)
        return seat

    def fact(self, seat: Seat) -> Fact:
        """Return what came of it, once its future is done."""
        if seat.fact is None:  # its deadline had passed
            return Refused(self._lane.index, Reason.DEADLINE, self._loop.clock())
        return seat.fact

    def _flush(self) -> None:
        """Run one batch; what is beyond it has the next turn, so that none is long."""
        live = [seat for seat in self._waiting if not seat.future.done()]
        cap = knee(self._lane.service.curve, self._lane.cap)
        part, self._waiting = live[:cap], live[cap:]
        if self._waiting:
            self._loop.asyncio.call_soon(self._flush)
        self._calm = self._calm + 1 if len(part) < 2 else 0
        if self._calm >= _CALM:
            self._loop.crowded = False
            self._calm = 0
        self._lane.serve(part)
        for seat in part:
            seat.future.set_result(None)
