"""The worker lane: bounded daemon threads in front of one deadline-ordered queue.

A caller that stops waiting frees its place at once. What runs for nobody any more is stopped where
the tier can be stopped; where it cannot, the worker is a zombie: it counts against the tier's
concurrency until it comes back, and when all are, the lane refuses. The threads are daemons and
are never joined without a limit, so that a hung call holds up neither other tiers nor the exit.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from cascade.batching import (
    NORMAL,
    ArrivalGap,
    Curve,
    DeadlineQueue,
    expected_wait,
    hold,
    knee,
    wait_ahead,
)
from cascade.decide import BREAKER, OVERLOAD
from cascade.facts import Refused, TimedOut
from cascade.lanes.lane import QueueingLane
from cascade.lanes.starting import open_gate, start
from cascade.lanes.ticket import Run, Ticket
from cascade.protocols import Occupancy
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.facts import Fact
    from cascade.protocols import OnDone

__all__ = ["WorkerLane"]

_NANO = 1_000_000_000
_STOPPING = 50_000_000  # ns that a run which can be stopped may take to end
_SMOOTH = 8  # runs that the average of what is around them looks back on


class WorkerLane(QueueingLane):
    """Runs a tier in ``workers`` threads; ``limit`` rows at most may wait, ``cap`` run together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reset()

    def reset(self) -> None:
        """Begin anew, without threads: for a forked child, which inherits none."""
        self._lock = threading.Lock()  # guards everything below
        self._queue: DeadlineQueue[Ticket] = DeadlineQueue()
        self._idle: list[Any] = []  # the gates of workers that wait for work
        self._held: Any = None  # the gate of a worker that waits for one more row
        self._threads = 0
        self._running: set[Run] = set()
        self._lost = 0  # runs that nobody waits for
        self._closing = self._retired = False
        self._arrivals = ArrivalGap()
        self._drained = threading.Condition(self._lock)

    # -- asking ----------------------------------------------------------------------------------

    def eta(self, rows: int = 1, rank: int = NORMAL) -> int:
        """Nanoseconds until an answer: what is ahead in the queue, then a run; or a refusal."""
        if (self._lost and self.zombies >= self.workers) or self._broken():
            return BREAKER
        queue = self._queue
        if len(queue) >= self.limit and not queue.behind(rank):
            return OVERLOAD
        queued = queue.ahead(rank)
        busy = len(self._running)
        own = self.service.eta(rows, idle=busy <= self._lost) + round(self.service.around)
        if not queued and busy < self.workers:
            return own
        alive = self.workers - self.zombies
        return expected_wait(own, queued, self._cap(), alive, self._cycle(), self._rest())

    def _cycle(self) -> Curve:
        """Return what a run keeps a worker busy for: the model's time, and what is around it."""
        curve = self.service.curve
        return Curve(curve.overhead + self.service.around, curve.per_row, curve.residual)

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""
        queued, workers = len(self._queue), self.workers - self.zombies
        if not queued and len(self._running) < self.workers:
            return 0
        return wait_ahead(queued, self._cap(), workers, self._cycle(), self._rest())

    def resize(self, workers: int) -> None:
        """Have so many workers; one too many leaves when it has nothing to run."""
        with self._lock:
            self.workers = workers
            if len(self._queue):
                for _ in range(max(1, workers - self._threads)):
                    self._wake()
            elif self._threads > workers and self._idle:
                self._rouse()

    def occupancy(self) -> Occupancy:
        """Say what the lane is at."""
        zombies, queued = self.zombies, len(self._queue)
        broken = zombies >= self.workers or self._is_open()
        return Occupancy(len(self._running), queued, self.workers, zombies, broken)

    @property
    def zombies(self) -> int:
        """Workers that run for nobody, and cannot be stopped or have not heeded it for a while."""
        if not self._lost:
            return 0
        since = self._clock() - (_STOPPING if self.tier.can_stop else 0)
        return sum(0 < run.lost <= since for run in tuple(self._running.copy()))

    def _rest(self) -> int:
        """What is left of the runs that will be over first; 0 while a worker is free."""
        running = tuple(self._running.copy())
        if len(running) < self.workers:
            return 0
        live = [run.expected for run in running if not run.lost]
        return max(0, min(live) - self._clock()) if live else 0

    def _cap(self) -> int:
        return self.cap if self.cap == 1 else knee(self.service.curve, self.cap)

    def submit(self, job: Any, on_done: OnDone) -> Ticket:
        """Enter a call; ``on_done`` gets its fact, on a worker (a refusal: here and now)."""
        now = self._clock()
        ticket = Ticket(job, now, on_done)
        with self._lock:
            refused, evicted = self._refusal(ticket.rank), None
            if refused is None:
                if len(self._queue) >= self.limit:
                    evicted = self._queue.evict(ticket.rank)
                self._queue.push(ticket)
                if self.cap > 1:
                    self._arrivals.count(now)
                try:
                    self._wake()
                except BaseException:  # a signal's handler: nobody waits for the call
                    self._queue.remove(ticket)
                    raise
                if not self._threads:  # and none is to be had: nobody would take it up
                    self._queue.remove(ticket)
                    refused = Reason.OVERLOAD
        turned = ticket if refused is not None else evicted
        if turned is not None:
            turned.fact = Refused(self.index, refused or Reason.OVERLOAD, now)
            turned.tell()
        return ticket

    def _refusal(self, rank: int) -> Reason | None:
        queue = self._queue
        if self._closing or (len(queue) >= self.limit and not queue.behind(rank)):
            return Reason.OVERLOAD
        stuck = self._lost and self.zombies >= self.workers
        return Reason.BREAKER if stuck or self._kept_away() else None

    def _wake(self) -> None:
        """Have somebody take the work up; under the lock."""
        if self._held is not None:
            if len(self._queue) >= self._cap():
                open_gate(self._held)
                self._held = None
        elif self._idle:
            self._rouse()
        elif self._threads < self.workers:
            name = f"cascade-{self.tier.name}-{self._threads + 1}"
            work = threading.Thread(target=self._work, args=(self._lock,), name=name, daemon=True)
            begun, interrupt = start(work)
            self._threads += begun
            if interrupt is not None:
                raise interrupt

    def _pass_on(self) -> None:
        """Have one who waits take up what this worker leaves in the queue; under the lock."""
        if self._idle and len(self._queue):
            self._rouse()

    def _rouse(self) -> None:
        """Have one who waits look for work; opened first, so that an interrupt loses nobody."""
        open_gate(self._idle[-1])
        self._idle.pop()

    def call(self, job: Any) -> Fact:
        """Make the call and wait for its fact, at most until the job's deadline."""
        gate = threading.Lock()
        gate.acquire()
        ticket = self.submit(job, lambda _: gate.release())
        try:
            done = gate.acquire(timeout=max(0.0, (job.until - self._clock()) / _NANO))
        except BaseException:
            self.cancel(ticket)
            raise
        if not done and self.cancel(ticket):
            return self.timed_out(ticket)
        assert ticket.fact is not None  # noqa: S101  it is done, or could not be cancelled
        return ticket.fact

    def timed_out(self, ticket: Ticket) -> TimedOut:
        """Return the fact of a call that ran out of time."""
        self._struck([ticket])
        ticket.struck = True
        now = self._clock()
        started = now if ticket.run is None else ticket.run.started
        return TimedOut(self.index, ticket.submitted, started, now)

    def cancel(self, ticket: Ticket) -> bool:
        """Stop waiting for a call; False when it was over already, and its fact is there."""
        stop = None
        with self._lock:
            if ticket.fact is not None:
                return False
            if ticket.gone:
                return True
            ticket.gone = True
            run = ticket.run
            if run is None:
                self._queue.remove(ticket)
            else:
                run.waiting -= 1
                if not run.waiting:
                    run.lost = self._clock()
                    self._lost += 1
                    stop = run.handle.stop
        if stop is not None:
            stop()
        return True

    def adopt(self, ticket: Ticket, job: Any, on_done: OnDone) -> bool:
        """Have another wait for a call that is under way; False when it is over or given up."""
        with self._lock:
            if ticket.fact is not None or ticket.gone:
                return False
            if ticket.run is None and self._queue.remove(ticket):
                ticket.until, ticket.rank = job.until, job.rank
                self._queue.push(ticket)
            ticket.job, ticket.on_done = job, on_done
            return True

    def lose(self) -> Callable[[], None]:
        """Count rows that run on a thread of their own as a zombie; what is returned, ends that."""
        run = Run([], self._clock(), 0, "rows")
        run.lost = run.started
        with self._lock:
            self._running.add(run)
            self._lost += 1
        self._struck()
        return partial(self._come_back, run)

    def _come_back(self, run: Run) -> None:
        with self._lock:
            self._running.discard(run)
            self._lost -= 1
            if len(self._queue):
                self._wake()

    # -- working ---------------------------------------------------------------------------------

    def _work(self, lock: threading.Lock) -> None:
        gate = threading.Lock()
        gate.acquire()
        while lock is self._lock:  # a reset lane has other workers
            late, run, wait = self._next(gate)
            _tell(late)
            if run is not None:
                self._run(run)
                ended = self._clock()
                _tell(self._over(run))  # first: they take a while to wake
                self._learn(run, ended)
            elif wait is None:
                return
            elif wait:
                gate.acquire(timeout=-1 if wait < 0 else wait / _NANO)

    def _next(self, gate: Any) -> tuple[Sequence[Ticket], Run | None, int | None]:
        """Take the next batch.

        Returns the tickets whose time has passed, what to run, and how long (ns) to wait where
        there is nothing: -1 for ever, None to leave.
        """
        with self._lock:
            held = self._is_back(gate)
            if self._threads > self.workers:  # there are fewer from now on
                self._threads -= 1
                self._pass_on()
                return (), None, None
            head = self._queue.first()
            full = len(self._running) >= self.workers  # with what was lost on other threads
            if head is None or full:
                if head is None and (self._closing or self._retired):
                    self._threads -= 1
                    return (), None, None
                self._idle.append(gate)
                return (), None, -1
            now, cap, curve = self._clock(), self._cap(), self._cycle()
            if cap > 1 and not held:
                wait = hold(len(self._queue), cap, curve, self._arrivals.gap, head.until - now)
                if wait:
                    return (), None, self._hold_back(gate, wait)
            batch = self._queue.take(now, cap, curve)
            for ticket in batch.dropped:
                ticket.fact = Refused(self.index, Reason.DEADLINE, now)
            if not batch.taken:
                return batch.dropped, None, 0
            why = "waited" if held and batch.why == "idle" else batch.why
            run = Run(batch.taken, now, curve.time(len(batch.taken)), why)
            self._running.add(run)
            self._pass_on()
            return batch.dropped, run, 0

    def _hold_back(self, gate: Any, wait: int) -> int:
        """Have one worker wait for a fuller batch; return how long (ns), -1: another does."""
        if self._held is None:
            self._held = gate
            return wait
        self._idle.append(gate)
        return -1

    def _is_back(self, gate: Any) -> bool:
        """Note that a worker waits no more; whether it was held back for a fuller batch."""
        if gate in self._idle:  # who opened it was interrupted
            self._idle.remove(gate)
        gate.acquire(blocking=False)  # it may have been woken just as it gave up waiting
        if held := self._held is gate:
            self._held = None
        return held

    def _run(self, run: Run) -> None:
        tickets = run.tickets
        try:
            if len(tickets) == 1:
                tickets[0].context.run(self.serve, tickets, run.handle, run.why)
            else:
                self.serve(tickets, run.handle, run.why)
        except BaseException as error:  # noqa: BLE001  a mistake in here must strand nobody
            now = self._clock()
            self._fail([ticket for ticket in tickets if ticket.fact is None], error, now, now)

    def _over(self, run: Run) -> list[Ticket]:
        """Take a run off the books; return those who still wait for it."""
        with self._lock:
            self._running.discard(run)
            if run.lost:
                self._lost -= 1
            waiting = [ticket for ticket in run.tickets if not ticket.gone]
            for ticket in waiting:
                if ticket.fact is None:  # its time had passed before it could begin
                    ticket.fact = Refused(self.index, Reason.DEADLINE, self._clock())
            if self._closing:
                self._drained.notify_all()
            return waiting

    def _learn(self, run: Run, ended: int) -> None:
        """Learn what of a run's time was not the model's: shapes, hand-over, the interpreter."""
        if run.lost:
            if self.tier.can_stop:  # it was stopped, and takes at least so long
                self.service.outlasted(ended - run.started, len(run.tickets))
            return
        if inside := run.inside():
            around = ended - run.started - inside
            self.service.around += (max(0, around) - self.service.around) / _SMOOTH

    # -- ending ----------------------------------------------------------------------------------

    def retire(self) -> None:
        """Let each worker go once it has nothing to do; what still comes is served as ever."""
        with self._lock:
            self._retired = True
            self._release_idle()

    def _release_idle(self) -> None:
        while self._idle:
            self._rouse()

    def close(self, grace: float = 0.0) -> None:
        """Take nothing more; let what is under way end, for at most ``grace`` seconds."""
        with self._drained:
            self._closing = True
            self._drained.wait_for(lambda: not self.live(), timeout=grace)
            left = self._queue.clear()
            self._release_idle()
            for ticket in left:
                ticket.fact = Refused(self.index, Reason.OVERLOAD, self._clock())
        _tell(left)

    def live(self) -> int:
        """How many calls somebody waits for, queued ones and runs."""
        return len(self._queue) + sum(not run.lost for run in tuple(self._running.copy()))


def _tell(tickets: Sequence[Ticket]) -> None:
    """Give those who wait their facts."""
    for ticket in tickets:
        ticket.tell()
