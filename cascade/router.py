"""The synchronous driver: thread-safe, one request at a time per thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Generic, Self

from cascade.admission import Priority
from cascade.columnar import route_rows
from cascade.decide import Call, Finish
from cascade.engine import Request
from cascade.facts import since
from cascade.flight import Follower, Lead
from cascade.front import Front
from cascade.lanes.lane import answered
from cascade.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cascade.budget import Budget
    from cascade.columnar import Outcomes
    from cascade.decide import Decision
    from cascade.facts import Fact
    from cascade.flight import Pending, Verdict
    from cascade.policy import Policy
    from cascade.protocols import QueuedLane

__all__ = ["Router"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # type checkers carry it: a default spares annotations

    X = TypeVar("X", default=Any)
    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    X, V = TypeVar("X"), TypeVar("V")


class Router(Front, Generic[X, V]):
    """Answers requests with the cheapest tier that can be trusted to answer in time.

    Building it reads the policy and checks the model files' digests, but makes no session, so it is
    safe before a fork. Entering it (``with``, or :meth:`warmup`) opens the tiers, replays the
    golden inputs and warms up; a request before that does so itself.

    ``tiers`` binds external tiers by name (and may stand in for models, in tests); ``prepare`` and
    ``postprocess`` are functions for every request, or one per tier by name; ``on_outcome`` is
    called with each outcome after the answer; ``clock`` gives monotonic integer nanoseconds.

    Raises:
        PolicyError: the policy, or what is bound to it, does not fit.
        ModelIntegrityError: a model file is missing or not the one that the policy names.

    >>> import cascade
    >>> policy = cascade.Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "pets",
    ...         "deadline": "1s",
    ...         "tiers": [
    ...             {"name": "small", "kind": "external"},
    ...             {"name": "large", "kind": "external"},
    ...         ],
    ...         "escalation": {"thresholds": [0.8]},
    ...     }
    ... )
    >>> small = cascade.tier(
    ...     lambda x: ("cat", 0.9 if x == "meow" else 0.3), returns="pairs", rows="one"
    ... )
    >>> large = cascade.tier(lambda x: "dog", rows="one")
    >>> with cascade.Router(policy, tiers={"small": small, "large": large}) as router:
    ...     [router.route(x).tier for x in ("meow", "wuff")]
    ['small', 'large']
    """

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Open the tiers and warm up."""
        self.warmup()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the tiers."""
        self.close()

    def warmup(self) -> None:
        """Open the tiers, replay the golden inputs and run each tier a few times. Idempotent.

        Raises:
            ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        """
        self._service.open()

    def swap(self, policy: Policy | str | Path, *, tiers: Mapping[str, Any] | None = None) -> None:
        """Replace policy and models, atomically and under traffic.

        ``policy`` is one, or the path of its file; ``tiers`` binds external tiers anew (default:
        those bound before). The new models are opened and warm before the first request sees
        them; no request mixes two policies, and none is dropped. Answers in the cache stay where
        the new policy would give the same ones.

        Raises:
            PolicyError, ModelIntegrityError: the new one cannot serve; the old one still does.
        """
        self._service.swap(policy, tiers)

    def close(self, grace: float = 5.0) -> None:
        """Let go of the models; further requests are refused with a PolicyError.

        What is on its way has ``grace`` seconds to end, on all tiers that it needs. While another
        is closing the router, wait as long for that.
        """
        until, service = time.monotonic() + grace, self._service
        if not service.claim() and not service.over.wait(grace):
            return
        idle, left = False, 0.0  # as they are when the wait is interrupted
        try:
            for pause in self._idling(service.refuse()):
                if time.monotonic() >= until:
                    break
                time.sleep(pause)
            else:
                idle = True
            left = max(0.0, until - time.monotonic())
        finally:
            service.end(left, idle=idle)

    # -- serving ---------------------------------------------------------------------------------

    def route(
        self,
        x: X,
        *,
        deadline: float | str | Budget | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        use_cache: bool = True,
        received: int | None = None,
        priority: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcome[V]:
        """Answer one row.

        ``x`` is a string, number, array, list of numbers, or a dict of arrays, without a batch
        axis. ``deadline`` is in seconds, a duration such as ``"20ms"``, or a Budget; by default the
        policy's. ``tenant`` is on whose behalf: cached answers and allowance are its own. With
        ``use_cache=False`` nothing is looked up or stored, and no computation is shared.
        ``at_least`` names the lowest tier that may answer. ``received`` starts the budget
        at a ``time.monotonic_ns()`` of arrival. ``priority`` (``high``, ``normal``, ``low``) says
        who goes first in the queues. ``metadata`` reaches the tiers' context.

        Raises:
            InputTypeError, InputValueError: the input is not what the first tier declares.
            ValueError: the deadline is zero, negative or NaN; no such priority; ``received`` lies
                in the future.
            TypeError: deadline or ``received`` are no numbers.
            PolicyError: no deadline in call and policy, or no such tier.
            DeadlineExceeded: no tier can answer in time; ``.outcome`` says more.
            Overloaded: refused by a bound.
            TierError: every tier failed; the last one's error.
        """
        plan = self._service.plan or self._service.open()
        arrived = self._clock() if received is None else plan.engine.arrival(received)
        budget, direct, engine = plan.budget, plan.direct, plan.engine
        if deadline is not None or budget is None:
            budget = engine.budget(plan, deadline, arrived)
        until = arrived + budget
        plain = at_least is None and metadata is None and priority is None and use_cache
        rank = None if priority is None else Priority.of(priority)
        request: Outcome[V] | Request | None = None
        try:  # a signal's handler may raise anywhere: what others wait for is handed over
            if plain and direct is not None:
                request = direct(x, arrived, until, tenant, _SyncFollower)
            else:
                floor = plan.floor if at_least is None else self._floor(plan, at_least)
                request = engine.begin(
                    plan, x, arrived, until, tenant, floor, use_cache, metadata, _SyncFollower
                )
            if type(request) is Outcome:  # from the cache
                return request
            assert type(request) is Request  # noqa: S101  the only other kind
            if rank is not None:
                request.put_in(rank)
            if request.follower is not None:
                return self._follow(request, x)
            return self._lead(request, x)
        except BaseException:
            if type(request) is Request:
                engine.abandon(request)
            raise

    def _lead(
        self, request: Request, x: X, after: Decision | None = None, pending: Pending | None = None
    ) -> Outcome[V]:
        """Drive a request up the ladder, from the start or on from where another stopped."""
        plan = request.plan
        lanes, etas, engine, clock = plan.lanes, request.etas, plan.engine, self._clock
        if after is None:
            move = request.move or engine.start(request, x)
        elif pending is None:
            move = request.resume(after, clock(), request.until, etas)
        else:
            fact = since(_wait(request, *pending), request.routed)
            move = request.step(fact, clock(), etas)
        while type(move) is Call:
            lane = lanes[move.tier]
            if lane.inline:
                fact = lane.call(request)
                back = fact.finished
            else:
                fact = _wait(request, lane)  # type: ignore[arg-type]  # queued
                back = clock()
            move = request.step(fact, back, etas)
        assert type(move) is Finish  # noqa: S101  the only other kind
        return engine.settle(request, move)

    def _follow(self, request: Request, x: X) -> Outcome[V]:
        """Wait for another's computation of the same answer; take over when it stops short."""
        follower, engine = request.follower, request.plan.engine
        assert type(follower) is _SyncFollower  # noqa: S101  made by begin
        waited = request.routed = self._clock()
        verdict = follower.wait((request.until - waited) / 1e9)
        if verdict is None:
            verdict = engine.desert(follower)
        if isinstance(verdict, Lead):
            engine.take_over(request, verdict)
            return self._lead(request, x, verdict.after, verdict.pending)
        return engine.settle_follower(request, verdict, waited)

    def route_many(
        self,
        X: Any,
        *,
        deadline: float | str | Budget | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        use_cache: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcomes[V]:
        """Answer a batch: one model run per tier, the rows that need it going on.

        ``X`` is a list for text and objects, an array with a leading batch axis, or a dict of
        those. The policy's deadline does not apply; ``deadline`` covers the whole call, and rows
        not reached are FAILED/deadline. Nothing is raised for single rows: their dispositions say.

        Raises:
            InputTypeError, InputValueError: the batch is not what the first tier declares.
            ValueError: the deadline is zero, negative or NaN.
            PolicyError: no such tier.
        """
        plan = self._service.plan or self._service.open()
        batch = self._many(plan, X, deadline, tenant, at_least, use_cache, metadata)
        return route_rows(plan, batch)


def _wait(request: Request, lane: QueuedLane, ticket: Any = None) -> Fact:
    """Have a lane answer on a worker, and wait for it until the request's deadline.

    With a ``ticket``, for a call that another has begun. At the deadline the call stays pending:
    settling the request hands it to those who have more time, or ends it.
    """
    gate = threading.Lock()
    gate.acquire()

    def done(_: Fact) -> None:
        gate.release()

    request.keep()
    if ticket is None:
        ticket = lane.submit(request, done)
    elif not lane.adopt(ticket, request, done):
        return answered(ticket.fact) if ticket.fact else lane.timed_out(ticket)
    request.pending = lane, ticket
    left = request.until - request.plan.clock()
    if gate.acquire(timeout=max(0.0, left / 1e9)) or ticket.fact is not None:
        request.pending = None
        return answered(ticket.fact)
    return lane.timed_out(ticket)


class _SyncFollower(Follower):
    """A follower that waits in its own thread."""

    def __init__(self, own: Request) -> None:
        self._gate = threading.Lock()  # an Event would stay locked if its setting is interrupted
        self._gate.acquire()
        super().__init__(own, own.until, self._ring)

    def _ring(self) -> None:  # by the leader, in whatever thread it is
        try:
            self._gate.release()
        except RuntimeError:  # it has rung
            return

    def wait(self, seconds: float) -> Verdict | None:
        """Wait for the verdict, at most so long."""
        self._gate.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
        return self.verdict
