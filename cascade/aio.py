"""The asyncio driver: the same core, cache and ledger; no task, timer or hop for inline answers."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Generic, Self

from cascade.admission import Priority
from cascade.columnar import route_rows
from cascade.decide import Call, Finish
from cascade.engine import Request
from cascade.errors import CascadeError
from cascade.facts import since
from cascade.flight import Lead
from cascade.front import Front
from cascade.lanes.starting import elsewhere
from cascade.loops import AsyncFollower, Loops, in_thread
from cascade.outcome import Outcome, took
from cascade.router import V, X

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cascade.budget import Budget
    from cascade.columnar import Outcomes
    from cascade.decide import Decision
    from cascade.direct import Boarding
    from cascade.flight import Pending
    from cascade.loops import Loop
    from cascade.plan import Plan
    from cascade.policy import Policy
    from cascade.router import Router
    from cascade.service import Service

__all__ = ["AsyncRouter"]


class AsyncRouter(Front, Generic[X, V]):
    """Answers requests in an event loop; built and configured like :class:`Router`.

    What a tier answers inline costs no task and no timer; what runs longer is off-loaded to the
    tier's workers and awaited until the request's deadline. Cancelling the caller frees its place
    in the queue at once, and stops what runs for nobody else. Asynchronous Python tiers
    (coroutine functions, or objects whose ``predict`` is one) are awaited as they are.

    >>> import asyncio, cascade
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
    >>> small = cascade.tier(lambda x: ("cat", 0.3), returns="pairs", rows="one")
    >>> async def large(xs):
    ...     await asyncio.sleep(0)
    ...     return ["dog" for _ in xs]
    >>> async def main():
    ...     async with cascade.AsyncRouter(
    ...         policy, tiers={"small": small, "large": large}
    ...     ) as router:
    ...         return await router.route("wuff")
    >>> asyncio.run(main()).value
    'dog'
    """

    _asynchronous = True

    def _serve(self, service: Service) -> None:
        self._leave_loops()
        super()._serve(service)

    def _leave_loops(self) -> None:
        self._loops = Loops()
        self._loop: Loop | None = None  # of the last request, so that it need not be looked up

    def in_child(self) -> Any:
        """Begin anew after a fork: no event loop of the parent's runs on."""
        kept = super().in_child(), self._loops
        self._leave_loops()
        return kept

    @classmethod
    def over(cls, router: Router[X, V]) -> AsyncRouter[X, V]:
        """Return an AsyncRouter that shares the plan, lanes, cache and ledger of a Router.

        Closing either closes both.
        """
        made = cls.__new__(cls)
        made._serve(router._service)  # noqa: SLF001  two fronts of one service
        return made

    # -- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the tiers and warm up."""
        await self.warmup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the tiers."""
        await self.close()

    async def warmup(self) -> None:
        """Open the tiers and warm up, without holding up the loop. Idempotent.

        Raises:
            ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        """
        self._here(await self._open())

    async def swap(
        self, policy: Policy | str | Path, *, tiers: Mapping[str, Any] | None = None
    ) -> None:
        """Replace policy and models, as :meth:`Router.swap` does, without holding up the loop.

        Raises:
            PolicyError, ModelIntegrityError: the new one cannot serve; the old one still does.
        """
        await in_thread(lambda: self._service.swap(policy, tiers))

    async def close(self, grace: float = 5.0) -> None:
        """Let go of the models; further requests are refused with a PolicyError.

        What is on its way has ``grace`` seconds to end, on all tiers that it needs; no more than
        it has had, when this is cancelled. While another is closing the router, wait as long for
        that.
        """
        until, service = get_running_loop().time() + grace, self._service
        if not service.claim() and not await in_thread(lambda: service.over.wait(grace)):
            return
        idle, left = False, 0.0  # as they are when the wait is cancelled
        try:
            plan = await in_thread(service.refuse)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    for pause in self._idling(plan):
                        await asyncio.sleep(pause)
                    idle = True
            left = max(0.0, until - get_running_loop().time())
        finally:
            await in_thread(lambda: service.end(left, idle=idle))

    def on_their_way(self) -> int:
        """Count the requests that are on their way up, in all event loops."""
        return self._loops.active()

    async def _open(self) -> Plan:
        return await self._loops.running().open(self._service.open)

    def _here(self, plan: Plan) -> Loop:
        """Return what belongs to the running loop; a plan's lanes are made known to it."""
        loop = self._loop = self._loops.running()
        loop.serve(plan)
        return loop

    # -- serving ---------------------------------------------------------------------------------

    async def route(  # noqa: C901  one, for speed
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
        """Answer one row; parameters, results and errors are those of :meth:`Router.route`."""
        plan = self._service.plan or await self._open()
        arrived = self._clock() if received is None else plan.engine.arrival(received)
        loop = self._loop
        if loop is None or loop.plan is not plan or loop.asyncio is not get_running_loop():
            loop = self._here(plan)
        rank = None if priority is None else Priority.of(priority)
        if loop.held >= loop.FAIR:
            await loop.give_way(rank)
        budget, direct, engine = plan.budget, plan.direct, plan.engine
        if deadline is not None or budget is None:
            budget = engine.budget(plan, deadline, arrived)
        until = arrived + budget
        plain = at_least is None and metadata is None and priority is None and use_cache
        boarding = plan.boarding if loop.crowded else None
        request: Outcome[V] | Request | None = None
        try:  # as Router.route does
            if plain and direct is not None and boarding is None:
                request = direct(x, arrived, until, tenant, AsyncFollower)
            else:
                floor = plan.floor if at_least is None else self._floor(plan, at_least)
                request = engine.begin(
                    plan, x, arrived, until, tenant, floor, use_cache, metadata, AsyncFollower
                )
            if type(request) is Outcome:
                loop.held += took(request) + loop.HIT
                return request
            assert type(request) is Request  # noqa: S101  the only other kind
            if rank is not None:
                request.put_in(rank)
            if request.follower is not None:
                return await self._follow(loop, request, x)
            if plain and boarding is not None and request.move is None:
                return await self._board(loop, boarding, request, x)
            return await self._lead(loop, request, x)
        except BaseException as error:
            if type(request) is Request:
                _abandon(request, error)
            raise

    async def _board(self, loop: Loop, boarding: Boarding, request: Request, x: X) -> Outcome[V]:
        """Have the first tier answer together with others, then go on if need be."""
        turn, outcome = loop.turn(request.plan, boarding.tier), None
        assert turn is not None  # noqa: S101  the tier's lane runs several together
        loop.active += 1
        try:
            if boarding.admits(request, x):
                seat = turn.seat(request, request.routed)
                await seat.future
                outcome = boarding.land(request, x, turn.fact(seat))
        finally:
            loop.active -= 1
        return await self._lead(loop, request, x) if outcome is None else outcome

    async def _lead(
        self, loop: Loop, request: Request, x: X, after: Decision | None = None,
        pending: Pending | None = None,
    ) -> Outcome[V]:  # fmt: skip
        """Drive a request up the ladder, from the start or on from where another stopped."""
        plan = request.plan
        lanes, etas, engine, clock = plan.lanes, request.etas, plan.engine, self._clock
        loop.active += 1
        held = 0
        try:
            if after is None:
                move = request.move or engine.start(request, x)
            elif pending is None:
                move = request.resume(after, clock(), request.until, etas)
            else:
                fact = since(await loop.wait(request, *pending), request.routed)
                move = request.step(fact, clock(), etas)
            while type(move) is Call:
                lane = lanes[move.tier]
                if not lane.inline:
                    held = 0
                    fact = await loop.wait(request, lane)  # type: ignore[arg-type]  # queued
                    back = clock()
                elif loop.crowded and (turn := loop.turn(plan, move.tier)) is not None:
                    held = 0
                    seat = turn.seat(request, clock())
                    await seat.future
                    fact = turn.fact(seat)
                    back = clock()
                else:
                    fact = lane.call(request)
                    back = fact.finished
                    held = back - request.routed + loop.HIT
                move = request.step(fact, back, etas)
            loop.held += held
            assert type(move) is Finish  # noqa: S101  the only other kind
            return engine.settle(request, move)
        finally:
            loop.active -= 1

    async def _follow(self, loop: Loop, request: Request, x: X) -> Outcome[V]:
        """Wait for another's computation of the same answer; take over when it stops short."""
        follower, engine = request.follower, request.plan.engine
        assert type(follower) is AsyncFollower  # noqa: S101  made by begin
        waited = request.routed = self._clock()
        verdict = await follower.wait((request.until - waited) / 1e9)
        if verdict is None:
            verdict = engine.desert(follower)
        if isinstance(verdict, Lead):
            engine.take_over(request, verdict)
            return await self._lead(loop, request, x, verdict.after, verdict.pending)
        return engine.settle_follower(request, verdict, waited)

    async def route_many(
        self,
        X: Any,
        *,
        deadline: float | str | Budget | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        use_cache: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcomes[V]:
        """Answer a batch as :meth:`Router.route_many` does, in a thread of its own.

        When the caller is cancelled, what runs is stopped and nothing more is begun.
        """
        plan = self._service.plan or await self._open()
        self._here(plan)
        batch = self._many(plan, X, deadline, tenant, at_least, use_cache, metadata)
        try:
            many: Outcomes[V] = await in_thread(lambda: route_rows(plan, batch))
        except BaseException:
            batch.context.abandon()  # it has failed, or its caller has left
            raise
        return many

    async def record(  # type: ignore[override]  # what runs after the answers may need the loop
        self, folder: str | Path, rate: float = 0.01, *, complete: bool = True, inputs: bool = False
    ) -> None:
        """Record a share of the requests from now on, as :meth:`Router.record` does.

        Raises:
            ValueError: ``rate`` is not in (0, 1].
        """
        begin = super().record
        await in_thread(lambda: begin(folder, rate, complete=complete, inputs=inputs))

    async def flush(self) -> None:  # type: ignore[override]  # as record
        """Wait until what runs after the answers so far is done and written."""
        await in_thread(super().flush)

    async def _watched_route(self, x: Any, **settings: Any) -> Any:
        """Route, and have the other tiers asked in the background."""
        if self._service.plan is None:
            await self._open()
        plan, record, wanted = self._drawn()
        try:
            outcome = await type(self).route(self, x, **settings)
        except CascadeError as error:
            self._take_lost(plan, error, x, record=record, wanted=wanted)
            raise
        if wanted:
            self._aftermath.take(plan, outcome, x, record=record)
        return outcome


def _abandon(request: Request, error: BaseException) -> None:
    """Have a request leave that was interrupted, or whose coroutine is destroyed."""
    if isinstance(error, GeneratorExit):  # perhaps by the collector, amid somebody's lock
        elsewhere(request.plan.engine.abandon, request)
    else:
        request.plan.engine.abandon(request)
