"""What a router keeps per event loop: fairness, turns that requests share, and deliveries."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from cascade.batching import knee
from cascade.facts import Refused
from cascade.lanes.lane import Served, answered
from cascade.lanes.loop import LoopLane
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    PORTION = 16  # callers woken in one turn of the loop, until it is known how long they hold it

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
        self._portion = float(self.PORTION)
        self._woken = self._woken_at = 0  # callers in the latest turn, and when

    def serve(self, plan: Plan) -> None:
        """Make a plan's lanes known to the loop, and the other way round."""
        for lane in plan.lanes:
            if isinstance(lane, LoopLane):
                lane.loop = self.asyncio
        if plan is self.plan:
            return
        self.plan, self.clock = plan, plan.clock
        self.turns = tuple(Turn(self, lane) if lane.cap > 1 else None for lane in plan.lanes)

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

    # -- waking those who wait -------------------------------------------------------------------

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

    def deliver(self, futures: Iterable[asyncio.Future[None]]) -> None:
        """Wake those who await these futures, in the loop's own thread."""
        self._arrived.extend(futures)
        if not self._delivering:
            self._delivering = True
            self._deliver()

    def _deliver(self) -> None:
        """Wake as many as hold the loop for a fair time, and the others in its next turns."""
        arrived, now = self._arrived, self.clock()
        if self._woken and now > self._woken_at:
            fair = self._woken * self.FAIR / (now - self._woken_at)
            self._portion = min(max((self._portion + fair) / 2, 4.0), 256.0)
        self._delivering = False  # whoever comes from now on wakes the loop himself
        woken = 0
        while arrived and woken < self._portion:
            future = arrived.popleft()
            if not future.done():
                future.set_result(None)
                woken += 1
        self._woken, self._woken_at = (woken, now) if arrived else (0, 0)
        if arrived and not self._delivering:
            self._delivering = True
            self.asyncio.call_soon(self._deliver)


class Seat(Served):
    """A request in a turn, and the future that it awaits."""

    __slots__ = ("future",)

    def __init__(self, request: Request, future: asyncio.Future[None]) -> None:
        self.job, self.submitted = request, request.routed  # as the parent's: a call less
        self.row, self.prepared, self.fact = None, 0, None
        self.future = future


class Turn:
    """The requests that ask one inline tier in one turn of the loop; they run together.

    The next batch runs when the callers of the last one have all been woken: they may ask again.
    """

    def __init__(self, loop: Loop, lane: Any) -> None:
        self._loop = loop
        self._lane = lane
        self._waiting: list[Seat] = []
        self._calm = 0
        self._due = False  # the next batch comes by itself

    def seat(self, request: Request) -> Seat:
        """Have a request answered together with the others of this turn."""
        loop = self._loop.asyncio
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)
        seat = Seat(request, loop.create_future())
        self._waiting.append(seat)
        return seat

    def fact(self, seat: Seat) -> Fact:
        """Return what came of it, once its future is done."""
        if seat.fact is None:  # its deadline had passed
            return Refused(self._lane.index, Reason.DEADLINE, self._loop.clock())
        return answered(seat.fact)

    def _flush(self, _: object = None) -> None:
        """Run one batch; what is beyond it has another turn, so that none is long."""
        live = [seat for seat in self._waiting if not seat.future.done()]
        cap = knee(self._lane.service.curve, self._lane.cap)
        part, self._waiting = live[:cap], live[cap:]
        self._due = bool(part)
        if not part:
            return
        self._calm = self._calm + 1 if len(part) < 2 else 0
        if self._calm >= _CALM:
            self._loop.crowded = False
            self._calm = 0
        self._lane.serve_turn(part)
        woken = self._loop.asyncio.create_future()  # after all of them, and they go on first
        woken.add_done_callback(self._flush)
        self._loop.deliver([*(seat.future for seat in part), woken])
