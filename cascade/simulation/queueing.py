"""A router under load in virtual time: discrete events around the decision core.

The decisions, the deadline-ordered queue, the batch rule, the expected waits and the learned
service times are those of the live router; only the tiers' answers and times are recorded ones. One
thread, one heap, integer nanoseconds: the same input gives the same events.
"""

from __future__ import annotations

import heapq
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.admission import Priority
from cascade.allowance import allowance_of
from cascade.batching import NORMAL, DeadlineQueue, expected_wait, knee, wait_ahead
from cascade.decide import OVERLOAD, Call, Decision
from cascade.facts import Refused, Replied, TimedOut
from cascade.load import ServiceTime
from cascade.protocols import Occupancy
from cascade.steering import steering_of
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from cascade.control import Move
    from cascade.decide import Finish, Ladder
    from cascade.policy import Policy
    from cascade.types import OperatingPoint

__all__ = ["Events", "Log", "Server", "World"]

_DONE, _TIMEOUT = 0, 1
_GIVEN_UP = Disposition.FAILED, Reason.DEADLINE


@attrs.frozen(eq=False)
class Server:
    """One tier's lane: its time per row of the recording (ns), and how it is run."""

    seconds: npt.NDArray[np.int64]
    workers: int = 1
    cap: int = 1
    limit: int = 256
    overhead: int = 0  # of a run, which its rows share
    can_stop: bool = False
    most: int = 1  # workers, where they follow the load


@attrs.frozen(eq=False)
class World:
    """What is served, and how: columns of n recorded rows, which requests take in turn."""

    ladder: Ladder
    point: OperatingPoint
    floor: int
    servers: Sequence[Server]
    confidences: Sequence[Sequence[float | None]]
    hard: Sequence[float]
    plain_timeout: bool = False  # no look ahead: queue, wait, give up
    policy: Policy | None = None  # by whose load block the point moves


@attrs.define(eq=False)
class Log:
    """What became of n requests: times in ns, -1 where there was no answer."""

    latency: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int16]
    covered: npt.NDArray[np.bool_]
    ends: list[Finish | None]
    calls: npt.NDArray[np.int64]
    busy: npt.NDArray[np.int64]
    points: npt.NDArray[np.int16]  # the operating point that each went by
    worker_time: npt.NDArray[np.int64]  # that each tier's workers had, ns
    late_starts: int = 0  # runs begun after their request's deadline
    ended: int = 0  # when the last request ended
    moves: tuple[Move, ...] = ()
    runs: list[array[int]] = attrs.field(factory=list)  # per tier: begin and end in turn, ns

    @classmethod
    def empty(cls, n: int, tiers: int) -> Log:
        """Return a log of n requests of which nothing is known."""
        return cls(
            np.full(n, -1), np.full(n, -1, dtype=np.int16), np.zeros(n, dtype=np.bool_),
            [None] * n, np.zeros(tiers, dtype=np.int64), np.zeros(tiers, dtype=np.int64),
            np.zeros(n, dtype=np.int16), np.zeros(tiers, dtype=np.int64),
            runs=[array("q") for _ in range(tiers)],
        )  # fmt: skip

    def busy_share(self, tier: int, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return, between ``edges`` (bins + 1,) in seconds, how many workers of a tier ran."""
        spans = np.frombuffer(self.runs[tier], dtype=np.int64).reshape(-1, 2) / 1e9
        # the busy time until an edge: of each run, what lies before it
        done = [np.clip(edge - spans[:, 0], 0.0, spans[:, 1] - spans[:, 0]).sum() for edge in edges]
        return np.diff(done) / np.diff(edges)


class _Request(Decision):
    """One request: which it is, its row, and the call that it waits for."""

    waits: _Call | None = None
    rank = NORMAL

    def __init__(self, ladder: Ladder, floor: int, number: int, row: int, arrived: int) -> None:
        super().__init__(ladder, floor)
        self.number = number
        self.row = row
        self.arrived = arrived


class _Call:
    """A request in one lane: queued, then running in a batch."""

    __slots__ = ("batch", "rank", "request", "submitted", "tier", "until")

    def __init__(self, request: _Request, tier: int, now: int, until: int) -> None:
        self.request = request
        self.rank = request.rank
        self.tier = tier
        self.submitted = now
        self.until = until
        self.batch: _Batch | None = None


@attrs.define(eq=False)
class _Batch:
    calls: list[_Call]
    started: int
    stopped: bool = False


class _Lane:
    """A lane in virtual time."""

    def __init__(self, index: int, server: Server, events: Events) -> None:
        self.index = index
        self.server = server
        self.workers = server.workers
        self._had = self._since = 0
        self.service = ServiceTime(int(np.quantile(server.seconds, 0.95)))
        self.queue: DeadlineQueue[_Call] = DeadlineQueue()
        self.running: dict[int, tuple[_Batch, int]] = {}  # with when it should be over
        self._events = events

    def eta(self, rank: int = NORMAL) -> int:
        """Nanoseconds until an answer, as the live lane expects it."""
        queued, server = self.queue.ahead(rank), self.server
        if len(self.queue) >= server.limit and not self.queue.behind(rank):
            return OVERLOAD
        own = self.service.eta(idle=not self.running)
        if not queued and len(self.running) < self.workers:
            return own
        return expected_wait(own, queued, self.cap, self.workers, self.service.curve, self._rest())

    def _rest(self) -> int:
        if len(self.running) < self.workers:
            return 0
        first = min(expected for _, expected in self.running.values())
        return max(0, first - self._events.now)

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""
        queued, workers = len(self.queue), self.workers
        if not queued and len(self.running) < workers:
            return 0
        return wait_ahead(queued, self.cap, workers, self.service.curve, self._rest())

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""
        self.worker_time()
        self.workers = workers
        self._events.pump(self)

    def worker_time(self) -> int:
        """Return how much time its workers have had so far, in ns."""
        now = self._events.now
        self._had += self.workers * (now - self._since)
        self._since = now
        return self._had

    def occupancy(self) -> Occupancy:
        """Say what the lane is at."""
        return Occupancy(len(self.running), len(self.queue), self.workers)

    @property
    def cap(self) -> int:
        """Rows that may run together."""
        return 1 if self.server.cap == 1 else knee(self.service.curve, self.server.cap)

    def takes(self, calls: list[_Call]) -> int:
        """Return how long these rows take together: the overhead is shared."""
        shared = self.server.overhead
        alone = [int(self.server.seconds[call.request.row]) for call in calls]
        return shared + sum(max(0, each - shared) for each in alone)


class Events:
    """The event loop of one simulation."""

    def __init__(
        self, world: World, arrivals: npt.NDArray[np.int64], budgets: Any,
        ranks: Sequence[int] | None = None, tenants: Sequence[str | None] | None = None,
    ) -> None:  # fmt: skip
        self.now = 0
        self._world = world
        self._ranks = ranks
        self._tenants = tenants
        self._arrivals = arrivals
        self._budgets = budgets
        self._heap: list[tuple[int, int, int, Any]] = []
        self._turn = 0
        self._lanes = [_Lane(i, server, self) for i, server in enumerate(world.servers)]
        self._etas = [
            [int if world.plain_timeout else partial(lane.eta, one.rank) for lane in self._lanes]
            for one in Priority
        ]
        self.log = Log.empty(len(arrivals), len(self._lanes))
        policy = world.policy
        crews = [(server.workers, server.most) for server in world.servers]
        self._steering = (
            None if policy is None else steering_of(policy, self._lanes, crews, 0, None)
        )
        self._allowance = None if policy is None else allowance_of(policy)

    def run(self) -> Log:
        """Have every request arrive and end."""
        rows, heap = len(self._world.hard), self._heap
        for number, (arrival, budget) in enumerate(
            zip(self._arrivals.tolist(), self._budgets.tolist(), strict=True)
        ):
            while heap and heap[0][0] <= arrival:
                self._happen()
            self.now = arrival
            self._arrive(number, number % rows, budget)
        while heap:
            self._happen()
        self.now = self.log.ended  # what is left in the heap were timers
        self.log.worker_time[:] = [lane.worker_time() for lane in self._lanes]
        if self._steering is not None:
            self.log.moves = tuple(self._steering.moves)
        return self.log

    def _happen(self) -> None:
        self.now, _, kind, what = heapq.heappop(self._heap)
        if kind == _DONE:
            self._done(*what)
        else:
            self._time_out(what)

    def _at(self, time: int, kind: int, what: Any) -> None:
        self._turn += 1
        heapq.heappush(self._heap, (time, self._turn, kind, what))

    # -- one request -----------------------------------------------------------------------------

    def _arrive(self, number: int, row: int, budget: int) -> None:
        world, now = self._world, self.now
        request, point = _Request(world.ladder, world.floor, number, row, now), world.point
        if self._steering is not None:
            point = self._steering.point(now, budget)
        self.log.points[number] = point.index
        if self._ranks is not None:
            request.rank = self._ranks[number]
        if self._allowance is not None:
            tenant = None if self._tenants is None else self._tenants[number]
            request.purse = self._allowance.earn(tenant)
        etas = self._etas[request.rank]
        move = request.start(point, world.hard[row], now, now + budget, etas)
        self._go(request, move)

    def _go(self, request: _Request, move: Call | Finish) -> None:
        while type(move) is Call:
            lane = self._lanes[move.tier]
            if len(lane.queue) >= lane.server.limit:
                evicted = lane.queue.evict(request.rank)
                fact = Refused(move.tier, Reason.OVERLOAD, self.now)
                if evicted is None:
                    move = request.step(fact, self.now, self._etas[request.rank])
                    continue
                other = evicted.request
                self._go(other, other.step(fact, self.now, self._etas[other.rank]))
            request.waits = call = _Call(request, move.tier, self.now, request.until)
            if self._world.plain_timeout:  # first come, first served
                call.until = request.arrived + (1 << 60)
            lane.queue.push(call)
            self.pump(lane)
            if request.waits is call and call.batch is None:
                self._at(request.until, _TIMEOUT, call)
            return
        self._end(request, move)  # type: ignore[arg-type]  # no call: the end

    def _end(self, request: _Request, finish: Finish) -> None:
        request.waits = None
        log, number = self.log, request.number
        log.ends[number], log.covered[number] = finish, finish.covered
        log.rank[number] = finish.rank
        log.ended = self.now
        if finish.rank >= 0:
            log.latency[number] = self.now - request.arrived

    def _time_out(self, call: _Call) -> None:
        request, lane = call.request, self._lanes[call.tier]
        if request.waits is not call:
            return
        batch = call.batch
        if self._world.plain_timeout:  # the wait is given up; the work goes on
            self._end(request, request._ladder.finish(*_GIVEN_UP))  # noqa: SLF001  its own ladder
            return
        request.waits = None
        if batch is None:
            lane.queue.remove(call)
        elif lane.server.can_stop and all(c.request.waits is not c for c in batch.calls):
            batch.stopped = True
            lane.service.outlasted(self.now - batch.started, len(batch.calls))
            self._free(lane, batch)
        started = self.now if batch is None else batch.started
        fact = TimedOut(call.tier, call.submitted, started, self.now)
        self._go(request, request.step(fact, self.now, self._etas[request.rank]))

    # -- one lane --------------------------------------------------------------------------------

    def pump(self, lane: _Lane) -> None:
        """Start what can start, and drop what can no longer make it."""
        while len(lane.queue) and len(lane.running) < lane.workers:
            batch = lane.queue.take(self.now, lane.cap, lane.service.curve)
            if batch.taken:
                self._start(lane, batch.taken)
            for call in batch.dropped:
                request = call.request
                if request.waits is call:
                    fact = Refused(call.tier, Reason.DEADLINE, self.now)
                    self._go(request, request.step(fact, self.now, self._etas[request.rank]))

    def _start(self, lane: _Lane, calls: list[_Call]) -> None:
        batch, taken = _Batch(calls, self.now), lane.takes(calls)
        over, log = self.now + taken, self.log
        lane.running[id(batch)] = batch, self.now + lane.service.curve.time(len(calls))
        self._at(over, _DONE, (lane, batch))
        log.calls[lane.index] += len(calls)
        for call in calls:
            call.batch = batch
            until = call.request.until
            log.late_starts += until <= self.now and not self._world.plain_timeout
            if until < over and call.request.waits is call:
                self._at(until, _TIMEOUT, call)

    def _free(self, lane: _Lane, batch: _Batch) -> None:
        del lane.running[id(batch)]
        self.log.busy[lane.index] += self.now - batch.started
        self.log.ended = self.now  # for nobody, it may be
        self.log.runs[lane.index].extend((batch.started, self.now))
        self.pump(lane)

    def _done(self, lane: _Lane, batch: _Batch) -> None:
        if batch.stopped:
            return
        lane.service.observe_rows(self.now - batch.started, len(batch.calls))
        self._free(lane, batch)
        confidences = self._world.confidences[lane.index]
        for call in batch.calls:
            request = call.request
            if request.waits is not call:
                continue
            request.waits = None
            confidence = confidences[request.row]
            times = call.submitted, batch.started, self.now
            fact = Replied(lane.index, None, confidence, *times)
            self._go(request, request.step(fact, self.now, self._etas[request.rank]))
