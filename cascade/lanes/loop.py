"""The loop lane: an asynchronous tier, awaited in the event loop of its caller.

The same queue, bounds and facts as for workers; what runs is a task, and stopping it is cancelling
that. Each event loop has a queue of its own: what waits in one is never touched by another. One who
would take over a call of another loop, which may end at any time, has a call of his own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cascade.batching import NORMAL, DeadlineQueue, expected_wait, wait_ahead
from cascade.decide import BREAKER, OVERLOAD
from cascade.facts import Failed, Refused, Replied, RowsReply, TimedOut
from cascade.lanes.handle import Handle, aside
from cascade.lanes.lane import EXITS, QueueingLane
from cascade.lanes.rows import reported
from cascade.lanes.ticket import Ticket
from cascade.protocols import Occupancy
from cascade.tiers.faults import NotAsked, as_tier_error
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cascade.facts import Fact
    from cascade.protocols import Context, OnDone

    Running = asyncio.AbstractEventLoop

__all__ = ["CALLER", "LoopLane"]

_LOOK = 0.1  # s after which a thread looks whether the loop that it waits for has ended

CALLER: ContextVar[Running | None] = ContextVar("cascade_caller", default=None)
"""The event loop on whose behalf a thread works."""


class _Share:
    """What one event loop has of the lane; touched in that loop alone."""

    def __init__(self) -> None:
        self.queue: DeadlineQueue[_Call] = DeadlineQueue()
        self.tasks: dict[_Call, asyncio.Task[None]] = {}


class _Call(Ticket):
    """One call: the event loop that it is made in, and what that has of the lane."""

    __slots__ = ("cut", "expected", "loop", "share")

    def __init__(self, job: Any, submitted: int, on_done: OnDone, share: _Share) -> None:
        super().__init__(job, submitted, on_done)
        self.loop = asyncio.get_running_loop()
        self.share = share
        self.cut = False  # it failed because its loop has ended
        self.expected = 0  # when it should be over, once it runs


class LoopLane(QueueingLane):
    """Awaits ``workers`` calls at a time; ``limit`` at most may wait. So for each event loop."""

    def __init__(self, *args: Any, workers: int = 64, **kwargs: Any) -> None:
        super().__init__(*args, workers=workers, **kwargs)
        self.loop: Running | None = None  # the latest one to have been entered
        self._shares: weakref.WeakKeyDictionary[Running, _Share] = weakref.WeakKeyDictionary()
        # Guards the dictionary, and calls that change hands; one may be destroyed in it.
        self._sharing = threading.RLock()
        self._closing = False

    def _share(self) -> _Share:
        """Return what the running loop has, or in a thread the loop that it works for."""
        loop = _running() or self._caller()
        share = self._shares.get(loop)
        if share is None:
            with self._sharing:
                share = self._shares.setdefault(loop, _Share())
        return share

    def _known(self) -> dict[Running, _Share]:
        """Return what each loop has, as it is now: others may enter meanwhile."""
        with self._sharing:
            return dict(self._shares.items())

    def _caller(self) -> Running:
        """Return the loop that this thread works for, or else one that lives."""
        for loop in (CALLER.get(), self.loop, *self._known()):
            if loop is not None and not loop.is_closed():
                return loop
        raise self._loopless()

    # -- asking ----------------------------------------------------------------------------------

    def eta(self, rows: int = 1, rank: int = NORMAL) -> int:
        """Nanoseconds until an answer, as in front of workers; negative: a refusal."""
        if self._broken():
            return BREAKER
        share = self._share()
        queue = share.queue
        if len(queue) >= self.limit and not queue.behind(rank):
            return OVERLOAD
        queued = queue.ahead(rank)
        own = self.service.eta(rows, idle=not share.tasks)
        if not queued and len(share.tasks) < self.workers:
            return own
        curve, rest = self.service.curve, self._rest(share)
        return expected_wait(own, queued, 1, self.workers, curve, rest)

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs; outside of loops, the longest."""
        own = _running()
        if own is None:  # in a thread, or between two loops
            return max(map(self._wait_in, self._living()), default=0)
        share = self._shares.get(own)
        return 0 if share is None else self._wait_in(share)

    def _wait_in(self, share: _Share) -> int:
        """Nanoseconds that a call of one loop would wait."""
        queued = len(share.queue)
        if not queued and len(share.tasks) < self.workers:
            return 0
        return wait_ahead(queued, 1, self.workers, self.service.curve, self._rest(share))

    def _rest(self, share: _Share) -> int:
        """What is left of the call that will be over first; 0 while another may begin."""
        running = share.tasks.copy()
        if len(running) < self.workers:
            return 0
        return max(0, min(call.expected for call in running) - self._clock())

    def resize(self, workers: int) -> None:
        """Await so many calls at a time."""
        self.workers = workers

    def occupancy(self) -> Occupancy:
        """Say what the lane is at, in all loops together."""
        shares = self._living()
        running, queued = (sum(len(x) for x in some) for some in (
            [share.tasks for share in shares], [share.queue for share in shares],
        ))  # fmt: skip
        workers = self.workers * max(1, len(shares))
        return Occupancy(running, queued, workers, broken=self._is_open())

    def live(self) -> int:
        """How many calls somebody waits for, in all loops together."""
        return sum(len(share.queue) + len(share.tasks) for share in self._living())

    def _living(self) -> list[_Share]:
        """Return what the loops have that have not ended: in others nobody waits."""
        return [share for loop, share in self._known().items() if not loop.is_closed()]

    # -- one call --------------------------------------------------------------------------------

    def submit(self, job: Any, on_done: OnDone) -> Ticket:
        """Start the call, or have it wait for its turn."""
        share = self._share()
        ticket = _Call(job, self._clock(), on_done, share)
        full, refused = len(share.queue) >= self.limit, None
        if self._closing or (full and not share.queue.behind(ticket.rank)):
            refused = Reason.OVERLOAD
        elif self._kept_away():
            refused = Reason.BREAKER
        turned = ticket if refused else share.queue.evict(ticket.rank) if full else None
        if turned is not None:
            turned.fact = Refused(self.index, refused or Reason.OVERLOAD, ticket.submitted)
            turned.tell()
        if turned is ticket:
            return ticket
        share.queue.push(ticket)
        self._pump(share)
        return ticket

    def _pump(self, share: _Share) -> None:
        while len(share.queue) and len(share.tasks) < self.workers:
            batch = share.queue.take(self._clock(), 1, self.service.curve)
            for ticket in batch.dropped:
                self._end(ticket, Refused(self.index, Reason.DEADLINE, self._clock()))
            for ticket in batch.taken:
                self._begin(share, ticket)

    def _begin(self, share: _Share, ticket: _Call) -> None:
        ticket.expected = self._clock() + self.service.curve.time(1)
        task = ticket.loop.create_task(self._serve(ticket), context=ticket.context)
        share.tasks[ticket] = task

        def over(_: asyncio.Task[None]) -> None:
            share.tasks.pop(ticket, None)
            self._pump(share)

        task.add_done_callback(over)  # also of one that is cancelled before its first step

    async def _serve(self, ticket: _Call) -> None:
        fact: Fact
        cut = False
        started = finished = self._clock()
        handle = Handle(ticket.job.row, (ticket.job,))
        try:
            if self.prepare is not None:
                handle.row = self.prepare(ticket.job.row)
                ticket.prepared = self._clock() - started
                started = self._clock()
            raw = await self.tier.predict_async(handle)  # type: ignore[attr-defined]
            finished = self._clock()
            value, confidence = self.tier.read(raw)
            if self.calibration is not None:
                confidence = self.calibration.one(value, confidence, ticket.job.row)
            known, cost = self.tier.remarks(raw)
            fact = Replied(
                self.index, value, confidence, ticket.submitted, started, finished,
                ticket.prepared, known, cost,
            )  # fmt: skip
            self.service.observe_rows(finished - started, 1)
        except EXITS:
            raise
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            cut = _cut_short(error)
            if not cut:
                self._struck([ticket])
            fault = as_tier_error(self.tier.name, error)
            now = self._clock()
            fact = Failed(
                self.index, fault, ticket.submitted, started, max(finished, now), ticket.prepared
            )
        self._end(ticket, fact, cut=cut)

    def _end(self, ticket: _Call, fact: Fact, *, cut: bool = False) -> None:
        with self._sharing:
            if ticket.gone:
                return
            ticket.fact, ticket.cut = fact, cut
        aside(ticket.on_done, fact)

    def cancel(self, ticket: _Call) -> bool:
        """Stop waiting for a call; its task is cancelled."""
        with self._sharing:
            if ticket.fact is not None:
                return False
            ticket.gone = True
        self._in_its_loop(ticket, self._stop)
        return True

    @staticmethod
    def _in_its_loop(ticket: _Call, work: Callable[[_Call], None]) -> None:
        """Have something done where a call is made: here and now, if that is here."""
        if ticket.loop is _running():
            work(ticket)
            return
        with contextlib.suppress(RuntimeError):  # it is closed, and so is what it had
            ticket.loop.call_soon_threadsafe(work, ticket)

    def _stop(self, ticket: _Call) -> None:
        share = ticket.share
        if not share.queue.remove(ticket) and ticket in share.tasks:
            share.tasks[ticket].cancel()
            self.service.outlasted(self._clock() - ticket.submitted)

    def adopt(self, ticket: _Call, job: Any, on_done: OnDone) -> bool:
        """Have another wait for a call that is under way; False when it is over or given up.

        One of another event loop is given up, and one that was cut short with it has no fact.
        """
        here = ticket.loop is _running()
        with self._sharing:
            if not here and (ticket.fact is None or ticket.cut):
                ticket.fact, ticket.gone = None, True
            over = ticket.fact is not None or ticket.gone
            if not over:
                ticket.job, ticket.on_done = job, on_done
        if ticket.gone:
            self._in_its_loop(ticket, self._stop)
        if over:
            return False
        if ticket.share.queue.remove(ticket):
            ticket.until, ticket.rank = job.until, job.rank
            ticket.share.queue.push(ticket)
        return True

    def timed_out(self, ticket: _Call) -> TimedOut:
        """Return the fact of a call that ran out of time."""
        self._struck([ticket])
        ticket.struck = True
        now = self._clock()
        started = ticket.submitted if ticket in ticket.share.tasks else now
        return TimedOut(self.index, ticket.submitted, started, now)

    def call(self, job: Any) -> Fact:
        """Refuse: only an AsyncRouter can await."""
        raise NotImplementedError

    # -- from other threads ----------------------------------------------------------------------

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Have a loop ask the tier outside of the ledger, from another thread."""
        if self.prepare is not None:
            job = Handle(self.prepare(job.row), (job,))
        ask = self.tier.predict_async  # type: ignore[attr-defined]
        return self.tier.read(self._awaited(job, ask, job))

    def _awaited(
        self, context: Any, ask: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Any:
        """Have a loop await something for this thread, until the deadline; then it is cancelled.

        Raises:
            NotAsked: the loop has ended, and would never answer.
        """
        loop = self._caller()
        answer = ask(*args)
        try:
            asked = asyncio.run_coroutine_threadsafe(answer, loop)
        except RuntimeError:  # it is closed
            answer.close()
            raise self._loopless() from None

        def stop() -> None:
            if not loop.is_closed():  # else there is nothing to cancel it in
                asked.cancel()

        say_how = getattr(context, "stop_with", None)
        if say_how is not None:
            say_how(stop)
        try:
            while True:
                try:
                    return asked.result(min(_LOOK, context.remaining()))
                except TimeoutError:
                    if asked.done():  # the tier's own, or just now
                        return asked.result()
                    if context.remaining() <= 0:
                        raise
                if loop.is_closed():
                    answer.close()
                    raise self._loopless()
        finally:
            stop()  # of one that is over: nothing

    def _loopless(self) -> NotAsked:
        msg = f"tier {self.tier.name!r}: no event loop is left to await it in"
        return NotAsked(msg, tier=self.tier.name)

    def _run_batch(self, rows: Any, n: int, context: Context) -> RowsReply:
        """Have the loop answer a batch, from another thread; at the deadline it is cancelled."""
        started = self._clock()
        ask = self.tier.predict_rows_async  # type: ignore[attr-defined]
        raw = self._awaited(context, ask, rows, context)
        finished = self._clock()
        values, confidences = self._read_rows(raw, n)
        self.service.observe_rows(finished - started, n)
        return reported(self.tier, raw, RowsReply(values, confidences, started, finished))

    # -- ending ----------------------------------------------------------------------------------

    def retire(self) -> None:
        """Nothing to let go of."""

    def close(self, grace: float = 0.0) -> None:  # noqa: ARG002  the router has waited
        """Take nothing more; what still waits is refused in its own loop."""
        self._closing = True
        for loop, share in self._known().items():
            with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits there
                loop.call_soon_threadsafe(self._refuse_all, share)

    def _refuse_all(self, share: _Share) -> None:
        for ticket in share.queue.clear():
            self._end(ticket, Refused(self.index, Reason.OVERLOAD, self._clock()))


def _cut_short(error: BaseException) -> bool:
    """Whether a task was cancelled, by us or as its loop ends, or destroyed: no fault of a tier."""
    if isinstance(error, GeneratorExit):
        return True
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _running() -> Running | None:
    """Return the event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
