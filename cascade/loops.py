"""What a router keeps per event loop: fairness, shared turns, deliveries; and threads beside it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cascade.admission import Priority
from cascade.batching import turn_size
from cascade.facts import Failed, Refused
from cascade.flight import Follower
from cascade.lanes.lane import EXITS, Served, answered
from cascade.lanes.loop import CALLER, LoopLane
from cascade.tiers.faults import as_tier_error
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cascade.engine import Request
    from cascade.facts import Fact
    from cascade.flight import Verdict
    from cascade.plan import Plan
    from cascade.protocols import Clock, QueuedLane

__all__ = ["AsyncFollower", "Loop", "Loops", "Turn", "in_thread"]

_CALM = 8  # turns of one request each after which batching stops
_FEW = 4.0  # callers woken in one turn, however long they hold the loop


class Loop:
    """One event loop as the router sees it.

    ``held`` is how long (ns) inline work has held the loop since somebody gave way; from ``FAIR``
    on requests do so first. When several have to at once the loop is ``crowded``: inline tiers that
    batch are then run once per turn for all.
    """

    FAIR = 500_000
    SHARE = 10_000  # ns for each of those who wait for their turn
    HIT = 3_000  # what checking, a hit or the closing of the books are taken to cost
    WAKE = 200_000  # ns for all who are woken in one turn, and for a batch; the ledger comes on top
    PORTION = 16  # so many, until it is known how long they hold the loop

    def __init__(self, running: asyncio.AbstractEventLoop) -> None:
        self.asyncio = running
        self.plan: Plan | None = None
        self.clock: Clock = time.monotonic_ns
        self.held = 0
        self.active = 0  # requests on their way up
        self.crowded = False
        self._turns: tuple[Turn | None, ...] = ()  # of the latest plan's lanes
        # And of each plan's that is still in use: its requests are its own tiers' to answer.
        self._of_plan: WeakKeyDictionary[Plan, tuple[Turn | None, ...]] = WeakKeyDictionary()
        self._waiting = 0  # to have their turn
        self._of_class: dict[Priority, deque[asyncio.Future[None]]] = {
            priority: deque() for priority in Priority
        }  # who waits to be woken
        self._arrived = self._of_class[Priority.NORMAL]  # and whose answers have come
        self._delivering = False
        self._opening: asyncio.Task[Plan] | None = None
        self._portion = float(self.PORTION)
        self._woken = self._woken_at = 0  # callers in the latest turn, and when

    async def open(self, work: Callable[[], Plan]) -> Plan:
        """Have the tiers opened in a thread: in one, for all who ask meanwhile."""
        opening = self._opening
        if opening is None:
            opening = self._opening = self.asyncio.create_task(in_thread(work))
            opening.add_done_callback(self._opened)
        return await asyncio.shield(opening)

    def _opened(self, _: object) -> None:
        self._opening = None  # else it would keep its plan for as long as the loop lives

    def serve(self, plan: Plan) -> None:
        """Make a plan's lanes known to the loop, and the other way round."""
        for lane in plan.lanes:
            if isinstance(lane, LoopLane):
                lane.loop = self.asyncio
        if plan is self.plan:
            return
        self.plan, self.clock = plan, plan.clock
        if plan not in self._of_plan:
            turns = tuple(Turn(self, lane) if lane.cap > 1 else None for lane in plan.lanes)
            self._of_plan[plan] = turns
        self._turns = self._of_plan[plan]

    def turn(self, plan: Plan, tier: int) -> Turn | None:
        """Return where a plan's requests meet at a tier; None where that runs each alone."""
        return (self._turns if plan is self.plan else self._of_plan[plan])[tier]

    # -- fairness --------------------------------------------------------------------------------

    async def give_way(self, priority: Priority | None = None) -> None:
        """Let everything else that is ready have its turn, and those who gave way before.

        While somebody waits so, whoever has had his share does too: nobody overtakes for long, but
        by his class.
        """
        self._waiting += 1
        self.crowded = self.crowded or self._waiting > 1
        future = self.asyncio.create_future()
        self._of_class[priority or Priority.NORMAL].append(future)
        if not self._delivering:
            self._delivering = True
            self.asyncio.call_soon(self._deliver)
        try:
            await future
        finally:
            self._waiting -= 1
            self.held = self.FAIR - self.SHARE if self._waiting else 0

    # -- waking those who wait -------------------------------------------------------------------

    async def wait(self, request: Request, lane: QueuedLane, ticket: Any = None) -> Fact:
        """Have a lane answer on a worker, and await it until the request's deadline.

        With a ``ticket``, for a call that another has begun, or if that cannot be taken over for
        one of the request's own. At the deadline the call stays pending: settling the request hands
        it to those who have more time, or ends it.
        """
        future = self.asyncio.create_future()
        done = self.delivery(future)
        request.keep()
        if ticket is None or not (lane.adopt(ticket, request, done) or ticket.fact):
            ticket = lane.submit(request, done)
        fact: Fact | None = ticket.fact
        if fact is not None:  # it is over, or refused
            return answered(fact)
        request.pending = lane, ticket
        left = max(0.0, (request.until - request.plan.clock()) / 1e9)
        timer = self.asyncio.call_later(left, _resolve, future, None)
        try:
            await future
        finally:
            timer.cancel()
        if ticket.fact is not None:
            request.pending = None
            return answered(ticket.fact)
        return lane.timed_out(ticket)

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
        self.see()
        (first, arrived, last), woken = self._of_class.values(), 0
        self._delivering = False  # whoever comes from now on wakes the loop himself
        while (waiting := first or arrived or last) and woken < int(self._portion):
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                woken += 1
        self._woken, self._woken_at = woken, self.clock()
        if waiting and not self._delivering:
            self._delivering = True
            self.asyncio.call_soon(self._deliver)
        elif woken > _FEW:
            self.asyncio.call_soon(self.see, self._woken_at)

    def see(self, woken_at: int | None = None) -> None:
        """See how long those held the loop who were woken last, and so how many it can be.

        With ``woken_at``, only where no others have been woken since.
        """
        if woken_at not in {None, self._woken_at}:
            return
        held = self.clock() - self._woken_at
        if self._woken and held > 0:
            fair = self._woken * self.WAKE / held
            self._portion = min(max((self._portion + fair) / 2, _FEW), 64.0)
        self._woken = 0


class Loops:
    """The event loops that a router serves; each has a thread."""

    def __init__(self) -> None:
        self._known: dict[asyncio.AbstractEventLoop, Loop] = {}
        self._entering = threading.Lock()

    def running(self) -> Loop:
        """Return the one that runs here; those that have ended are forgotten."""
        running = asyncio.get_running_loop()
        with self._entering:
            for ended in [one for one in self._known if one.is_closed()]:
                del self._known[ended]
            loop = self._known.get(running)
            if loop is None:
                loop = self._known[running] = Loop(running)
        return loop

    def active(self) -> int:
        """Count the requests that are on their way up."""
        return sum(loop.active for loop in list(self._known.values()))


class AsyncFollower(Follower):
    """A follower that waits in its event loop."""

    def __init__(self, own: Request) -> None:
        self._asyncio = asyncio.get_running_loop()
        self._done = self._asyncio.create_future()
        super().__init__(own, own.until, self._ring)

    def _ring(self) -> None:  # by the leader, in whatever thread it is
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._asyncio.call_soon_threadsafe(_resolve, self._done, None)

    async def wait(self, seconds: float) -> Verdict | None:
        """Wait for the verdict, at most so long."""
        timer = self._asyncio.call_later(max(0.0, seconds), _resolve, self._done, None)
        try:
            await self._done
        finally:
            timer.cancel()
        return self.verdict


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


class Seat(Served):
    """A request in a turn, and the future that it awaits."""

    __slots__ = ("future",)

    def __init__(self, request: Request, future: asyncio.Future[None], submitted: int) -> None:
        self.job, self.submitted = request, submitted  # as the parent's: a call less
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

    def seat(self, request: Request, submitted: int) -> Seat:
        """Have a request, which asks from then on (ns), answered with the others of this turn."""
        loop = self._loop.asyncio
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)
        seat = Seat(request, loop.create_future(), submitted)
        self._waiting.append(seat)
        return seat

    def fact(self, seat: Seat) -> Fact:
        """Return what came of it, once its future is done."""
        if seat.fact is None:  # its deadline had passed
            return Refused(self._lane.index, Reason.DEADLINE, self._loop.clock())
        return answered(seat.fact)

    def _flush(self, _: object = None) -> None:
        """Run one batch; what is beyond it has another turn, so that none is long."""
        self._loop.see()
        live = [seat for seat in self._waiting if not seat.future.done()]
        cap = turn_size(self._lane.service.curve, self._lane.cap, Loop.WAKE)
        part, self._waiting = live[:cap], live[cap:]
        self._due = bool(part)
        if not part:
            return
        self._calm = self._calm + 1 if len(part) < 2 else 0
        if self._calm >= _CALM:
            self._loop.crowded = False
            self._calm = 0
        self._run(part)
        woken = self._loop.asyncio.create_future()  # after all of them, and they go on first
        woken.add_done_callback(self._flush)
        self._loop.deliver([*(seat.future for seat in part), woken])

    def _run(self, part: list[Seat]) -> None:
        lane = self._lane
        try:
            lane.serve_turn(part)
        except BaseException as error:  # noqa: BLE001  a mistake in there must strand nobody
            now, own = self._loop.clock(), isinstance(error, EXITS)
            fault = error if own else as_tier_error(lane.tier.name, error)
            for seat in part:
                if seat.fact is None:
                    seat.fact = Failed(lane.index, fault, seat.submitted, now, now)


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a daemon thread of its own, which cannot hold up the exit.

    It runs in the caller's context.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        CALLER.set(loop)
        try:
            result = work()
        except StopIteration as caught:  # no future takes one
            error = RuntimeError("what ran in a thread raised StopIteration")
            error.__cause__ = caught
        except BaseException as caught:  # noqa: BLE001  it is raised where it is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, result, error)

    caller = contextvars.copy_context()
    threading.Thread(target=caller.run, args=(run,), name="cascade-work", daemon=True).start()
    return await future
