"""The loop lane: an asynchronous tier, awaited in the event loop of its caller.

The same queue, bounds and facts as for workers; what runs is a task, and stopping it is cancelling
that.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from cascade.batching import NORMAL, DeadlineQueue
from cascade.decide import BREAKER, OVERLOAD
from cascade.facts import Failed, Refused, Replied, RowsReply, TimedOut
from cascade.lanes.handle import Handle
from cascade.lanes.lane import EXITS, TierLane
from cascade.lanes.worker import Ticket
from cascade.protocols import Occupancy
from cascade.tiers.faults import as_tier_error
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cascade.facts import Fact
    from cascade.protocols import Context, OnDone

__all__ = ["LoopLane"]

_NANO = 1_000_000_000


class LoopLane(TierLane):
    """Awaits ``workers`` calls at a time; ``limit`` at most may wait. Used from one loop."""

    def __init__(
        self, *args: Any, workers: int = 64, limit: int = 256, cap: int = 1,
        pad: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.workers = workers
        self.limit = limit
        self.cap = cap
        self.pad = pad
        self.loop: asyncio.AbstractEventLoop | None = None
        self._queue: DeadlineQueue[Ticket] = DeadlineQueue()
        self._tasks: dict[Ticket, asyncio.Task[None]] = {}
        self._closing = False

    def eta_for(self, rank: int) -> Callable[[], int]:
        """Return the ``eta`` of requests of another class."""
        return partial(self.eta, 1, rank)

    def eta(self, rows: int = 1, rank: int = NORMAL) -> int:
        """Nanoseconds until an answer; negative: a refusal."""
        if self._broken():
            return BREAKER
        queue = self._queue
        if len(queue) >= self.limit and not queue.behind(rank):
            return OVERLOAD
        queued = queue.ahead(rank)
        own = self.service.eta(rows)
        return own + own * (queued // self.workers) if queued else own

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""
        queued = len(self._queue)
        return self.service.curve.time(1) * (queued // self.workers + 1) if queued else 0

    def resize(self, workers: int) -> None:
        """Await so many calls at a time."""
        self.workers = workers

    def occupancy(self) -> Occupancy:
        """Say what the lane is at."""
        return Occupancy(len(self._tasks), len(self._queue), self.workers, broken=self._is_open())

    def submit(self, job: Any, on_done: OnDone) -> Ticket:
        """Start the call, or have it wait for its turn."""
        ticket = Ticket(job, self._clock(), on_done)
        full = len(self._queue) >= self.limit
        evicted = self._queue.evict(ticket.rank) if full else None
        turned = ticket if self._closing or (full and evicted is None) else evicted
        if turned is not None:
            turned.fact = Refused(self.index, Reason.OVERLOAD, ticket.submitted)
            turned.on_done(turned.fact)
        if turned is ticket:
            return ticket
        self._queue.push(ticket)
        self._pump()
        return ticket

    def _pump(self) -> None:
        while len(self._queue) and len(self._tasks) < self.workers:
            batch = self._queue.take(self._clock(), 1, self.service.curve)
            for ticket in batch.dropped:
                self._end(ticket, Refused(self.index, Reason.DEADLINE, self._clock()))
            for ticket in batch.taken:
                self._begin(ticket)

    def _begin(self, ticket: Ticket) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(ticket))
        self._tasks[ticket] = task

        def over(_: asyncio.Task[None]) -> None:
            self._tasks.pop(ticket, None)
            self._pump()

        task.add_done_callback(over)  # also of one that is cancelled before its first step

    async def _serve(self, ticket: Ticket) -> None:
        fact: Fact
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
                confidence = self.calibration.one(value, confidence, handle.row)
            known, cost = self.tier.remarks(raw)
            fact = Replied(
                self.index, value, confidence, ticket.submitted, started, finished,
                ticket.prepared, known, cost,
            )  # fmt: skip
            self.service.observe_rows(finished - started, 1)
        except EXITS:
            raise
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            if not ticket.gone:  # else it was cancelled
                self._struck()
            fault = as_tier_error(self.tier.name, error)
            now = self._clock()
            fact = Failed(
                self.index, fault, ticket.submitted, started, max(finished, now), ticket.prepared
            )
        self._end(ticket, fact)

    def _end(self, ticket: Ticket, fact: Fact) -> None:
        if not ticket.gone:
            ticket.fact = fact
            ticket.on_done(fact)

    def cancel(self, ticket: Ticket) -> bool:
        """Stop waiting for a call; its task is cancelled."""
        if ticket.fact is not None:
            return False
        ticket.gone = True
        if not self._queue.remove(ticket) and (task := self._tasks.get(ticket)) is not None:
            task.cancel()
            self.service.outlasted(self._clock() - ticket.submitted)
        return True

    def adopt(self, ticket: Ticket, job: Any, on_done: OnDone) -> bool:  # noqa: ARG002
        """Have another wait for a call that is under way."""
        if ticket.fact is not None or ticket.gone:
            return False
        ticket.on_done = on_done
        return True

    def timed_out(self, ticket: Ticket) -> TimedOut:
        """Return the fact of a call that ran out of time."""
        self._struck()
        now = self._clock()
        started = ticket.submitted if ticket in self._tasks else now
        return TimedOut(self.index, ticket.submitted, started, now)

    def call(self, job: Any) -> Fact:
        """Refuse: only an AsyncRouter can await."""
        raise NotImplementedError

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Have the loop ask the tier outside of the ledger, from another thread."""
        assert self.loop is not None  # noqa: S101  set when the AsyncRouter was entered
        if self.prepare is not None:
            job = Handle(self.prepare(job.row), (job,))
        answer = self.tier.predict_async(job)  # type: ignore[attr-defined]
        return self.tier.read(asyncio.run_coroutine_threadsafe(answer, self.loop).result())

    def call_rows(self, rows: Any, n: int, context: Context) -> RowsReply:
        """Have the loop answer a batch, from another thread."""
        assert self.loop is not None  # noqa: S101  set when the AsyncRouter was entered
        started = self._clock()
        answer = self.tier.predict_rows_async(rows, context)  # type: ignore[attr-defined]
        raw = asyncio.run_coroutine_threadsafe(answer, self.loop).result(context.remaining())
        finished = self._clock()
        values, confidences = self.tier.read_rows(raw, n)
        return RowsReply(values, confidences, started, finished, self.tier.remarks(raw)[0])

    def retire(self) -> None:
        """Nothing to let go of."""

    def close(self, grace: float = 0.0) -> None:  # noqa: ARG002  the AsyncRouter has waited
        """Take nothing more."""
        self._closing = True
        for ticket in self._queue.clear():
            self._end(ticket, Refused(self.index, Reason.OVERLOAD, self._clock()))
