"""What all live drivers share: the way into the ladder, and the way out of it."""

from __future__ import annotations

import copy
import operator
import threading
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from cascade.admission import retry_after
from cascade.budget import Budget, nanoseconds
from cascade.cache import PLAIN, Entry, ResultCache, entry
from cascade.errors import InputTypeError, PolicyError
from cascade.flight import Landed, Lead, Request, land
from cascade.ledger import FOLD_AT
from cascade.outcome import Outcome, Serials, refusal
from cascade.tiers.faults import as_post_error
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from cascade.decide import Call
    from cascade.facts import Replied
    from cascade.flight import Follower, Landing, Verdict
    from cascade.ledger import Ledger
    from cascade.plan import Plan
    from cascade.protocols import Clock, Observer
    from cascade.types import Finish

__all__ = ["Engine", "Request", "whose"]

_NANO = 1_000_000_000
_LONGEST = 10**18  # ns; locks cannot wait much longer
_ORPHANED = _NANO  # ns past its deadline from which nobody joins a flight: its leader may be gone


class Engine:
    """Cache, flights, ledger and observers around a plan; the drivers bring the waiting."""

    def __init__(self, clock: Clock, observers: tuple[Observer, ...], ledger: Ledger) -> None:
        self.clock = clock
        self.ledger = ledger
        self.cache: ResultCache | None = None
        self.observer_errors = 0
        self.observers = observers
        self.lock = threading.Lock()  # guards the cache and the flights
        self.flights: dict[Hashable, Request] = {}
        self.batches = 0  # of route_many, on their way; under the lock

    def counting(self, ledger: Ledger) -> Engine:
        """Return one over the same cache and flights that counts elsewhere."""
        made = Engine(self.clock, self.observers, ledger)
        made.cache, made.flights, made.lock = self.cache, self.flights, self.lock
        return made

    def forget(self) -> None:
        """Drop what is cached."""
        with self.lock:
            if self.cache is not None:
                self.cache.clear()

    # -- in --------------------------------------------------------------------------------------

    def arrival(self, received: Any) -> int:
        """Return when a request arrived, which its caller says."""
        now = self.clock()
        try:
            arrived = operator.index(received)
        except TypeError:
            kind = type(received).__name__
            raise TypeError(f"received: expected time.monotonic_ns(), whole, got {kind}") from None
        if arrived > now:
            raise ValueError("received: lies in the future; expected a time.monotonic_ns()")
        if now - arrived > _LONGEST:
            raise ValueError("received: expected a time.monotonic_ns() of this machine's uptime")
        return arrived

    def budget(self, plan: Plan, deadline: Any, arrived: int) -> int:
        """Return the request's budget in ns, clamped to the policy's ``max_deadline``."""
        if deadline is None:
            if plan.budget is None:
                msg = "deadline: missing in the call and in the policy; give one of them"
                raise PolicyError(msg)
            return plan.budget
        given = isinstance(deadline, Budget)
        budget = min(deadline.until - arrived, _LONGEST) if given else nanoseconds(deadline)
        return budget if plan.max_budget is None else min(budget, plan.max_budget)

    def begin(  # noqa: PLR0913, PLR0917  one request's keywords, unpacked
        self, plan: Plan, x: Any, arrived: int, until: int, tenant: str | None, floor: int,
        use_cache: bool, metadata: Mapping[str, Any] | None,  # noqa: FBT001
        follow: Callable[[Request], Follower],
    ) -> Outcome[Any] | Request:  # fmt: skip
        """Check, key and look up: a cached outcome, or a request that leads or follows a flight."""
        row, cache = plan.row(x), self.cache
        key = None if cache is None or not use_cache else plan.key(row)
        if cache is not None and key is not None:
            if tenant is not None:
                key = whose(tenant), key
            held = cache.entries.get(key)
            if held is not None and arrived < held.fresh and held.finish.rank >= floor:
                return plan.hit(held, arrived, until)
        request = Request(plan, row, floor, arrived, until)
        if tenant is not None:
            request.tenant = whose(tenant)
        if metadata is not None:
            request.metadata = metadata
        if cache is None or key is None:
            return request
        request.key = key
        try:
            return self.enter(request, cache, follow)
        except BaseException:
            self.abandon(request)
            raise

    def used(self, key: Hashable, now: int) -> Entry | None:
        """Return a cached answer, which is the last one used from now on; None: it has expired."""
        with self.lock:
            return None if self.cache is None else self.cache.get(key, now)

    def enter(
        self, request: Request, cache: ResultCache, follow: Callable[[Request], Follower]
    ) -> Outcome[Any] | Request:
        """Look up under the lock; on a miss the request leads the flight of its key, or follows."""
        floor, leads = request.floor, False
        with self.lock:
            held = cache.get(request.key, request.arrived)
            if held is None or held.finish.rank < floor:
                held = None
                self.ledger.misses += 1
                flight_key = request.flight_key()
                leader = self.flights.setdefault(flight_key, request)
                if request.arrived > leader.until + _ORPHANED:
                    leader.followers = leader.followers or []  # should it land yet, it looks
                    leader = self.flights[flight_key] = request
                if leader is not request:
                    request.follower = follow(request)
                    leader.join(request.follower)
            else:
                leads = self.flights.get(request.key) is request
        if held is not None:
            if leads:  # it took off while another landed
                self.abandon(request)
            return request.plan.hit(held, request.arrived, request.until)
        return request

    def start(self, request: Request, x: Any) -> Call | Finish:
        """Send a request on its way up."""
        plan, hard = request.plan, 0.0
        if plan.complexity is not None:
            hard = plan.complexity(x if plan.by_name else request.row)
        request.routed = now = self.clock()
        point = plan.point
        if plan.steering is not None:
            point = plan.steering.point(now, request.until - now)
        if plan.allowance is not None:
            request.purse = plan.allowance.earn(request.tenant)
        return request.start(point, hard, now, request.until, request.etas)

    # -- out -------------------------------------------------------------------------------------

    def settle(self, request: Request, finish: Finish) -> Outcome[Any]:
        """Close the books on a request: cache, flight, ledger, outcome or exception."""
        plan, answer = request.plan, request.best
        value = confidence = None
        extra: dict[str, Any] | None = None
        if answer is not None:
            value, confidence = answer.value, answer.confidence
            if plan.post is not None:
                value, finish = self._post(request, answer, finish)
                answer = request.best
                confidence = confidence if answer else None
            if request.cost is not None:
                extra = {"cost": request.cost}
        if request.key is not None and self._land(request, finish, value, confidence):
            value = _own(value)
        if request.pending is not None:
            self._leave(request)
        if finish.disposition is Disposition.ABSTAINED:
            extra = {**(extra or {}), "best": value}
            value = None
        trace = (finish, request.arrived, request.routed, self.clock(), request.steps)
        ledger = self.ledger
        ledger.append(trace)
        if len(ledger.pending) >= FOLD_AT:
            ledger.settle()
        site = plan.site if plan.steering is None else plan.sites[request.point.index]
        outcome: Outcome[Any] = Outcome(
            next(Serials.serials), value, confidence, request.until - request.arrived, trace,
            site, extra,
        )  # fmt: skip
        if self.observers:
            self.observed(outcome)
        if answer is None:
            raise refusal(outcome, request.error, self._retry_after(request))
        return outcome

    def _post(self, request: Request, answer: Replied, finish: Finish) -> tuple[Any, Finish]:
        """Postprocess an answer; a request at which that fails has failed."""
        plan, now, tier = request.plan, self.clock(), answer.tier
        assert plan.post is not None  # noqa: S101  the caller looked
        value = answer.value if request.key is None else _own(answer.value)  # others may wait
        try:
            return plan.post(tier, value), finish
        except Exception as error:  # noqa: BLE001  the user's function may raise anything
            request.best, request.error = None, as_post_error(plan.site.tiers[tier], error)
            what = (None, None, str(request.error))
            step = (tier, "failed", Reason.FAULT, None, None, -1, -1, now, now, now, now, 0, what)
            request.steps += (step,)
            return None, plan.ladder.finish(Disposition.FAILED, Reason.FAULT)

    def _land(self, request: Request, finish: Finish, value: Any, confidence: float | None) -> bool:
        """Store an answer that was accepted; give those who wait, if there are any, what is theirs.

        They are given the request's ``best``, and copy that when they wake. Not stored is one from
        a floor on that no promise covers: those without a floor are promised another.
        """
        hit, item = finish.hit, None
        if hit is not None and (finish.covered or not (request.floor and request.point.certified)):
            if type(value) in PLAIN:
                item = Entry(value, confidence, hit, getsizeof(value))
            else:
                item = entry(value, confidence, hit)
        key = request.flight_key()
        with self.lock:
            if item is not None and self.cache is not None:
                self.cache.put(request.key, item, request.arrived)
            if request.followers is None:
                self.flights.pop(key, None)
                return False
            need = request.etas[request.refused]() if request.refused >= 0 else -1
            landed = Landed(finish, request.best, request.error, request.point)
            landing = land(request, landed, self.clock(), need, request.pending)
            self._hand_over(key, request, landing)
        self._wake(landing)
        return True

    def _hand_over(self, key: Hashable, request: Request, landing: Landing) -> None:
        """Enter the new leader, under the lock; what is pending is his."""
        leads = self.flights.get(key) is request  # else another does, who was asked long after it
        if isinstance(landing.leader, Request):
            request.heir, request.pending = landing.leader, None
            if leads:
                self.flights[key] = landing.leader
        elif leads:
            del self.flights[key]

    def settle_follower(self, request: Request, landed: Landed, waited: int) -> Outcome[Any]:
        """Close the books on a request that was answered by another's computation."""
        answer, now = landed.answer, self.clock()
        request.key = None  # another's to land
        if answer is not None:
            answer = copy.copy(answer)
            answer.value = _own(answer.value)
        tier = 0 if answer is None else answer.tier
        request.best, request.error = answer, landed.error
        request.point = landed.point or request.plan.point
        times = waited, now, now, now, 0
        request.steps = ((tier, "shared", None, None, None, -1, -1, *times, None),)
        return self.settle(request, landed.finish)

    def desert(self, follower: Follower) -> Verdict:
        """Stop waiting at one's own deadline: with the leader's partial answer, if it has one."""
        with self.lock:
            follower.leave()
        if follower.verdict is not None:  # it landed just now
            return follower.verdict
        leader = follower.flight
        assert isinstance(leader, Request)  # noqa: S101  it has joined one
        best = leader.best
        if best is None:
            return Landed(leader.plan.ladder.finish(Disposition.FAILED, Reason.DEADLINE))
        return Landed(leader.stop_short(best, Reason.DEADLINE), best, point=leader.point)

    @staticmethod
    def take_over(request: Request, lead: Lead) -> None:
        """Have a follower lead from now on; what is pending is its own to wait for."""
        if lead.after is not None:
            request.adopt(lead.after, request.until)
        request.pending, request.follower = lead.pending, None  # last: until then it is to be done

    def abandon(self, request: Request) -> None:
        """Have a request that was interrupted leave: a flight that it leads is handed over."""
        landing = None
        if request.key is not None:
            key, follower = request.flight_key(), request.follower
            with self.lock:
                if follower is not None:
                    follower.leave()
                    if isinstance(follower.verdict, Lead):  # it was about to lead
                        self.take_over(request, follower.verdict)
                if self.flights.get(key) is request:  # else it has landed
                    landing = land(request, None, self.clock(), pending=request.pending)
                    self._hand_over(key, request, landing)
        self._leave(request)
        if landing is not None:
            self._wake(landing)

    @staticmethod
    def _leave(request: Request) -> None:
        """Stop waiting for the call that is under way, if nobody else does."""
        if request.pending is not None:
            lane, ticket = request.pending
            request.pending = None
            lane.cancel(ticket)

    @staticmethod
    def _wake(landing: Landing) -> None:
        try:
            for follower, _ in landing.verdicts:
                follower.signal()
        except BaseException:  # a signal's handler: a second ring is none
            for follower, _ in landing.verdicts:
                follower.signal()
            raise

    @staticmethod
    def _retry_after(request: Request) -> float:
        lane, budget = request.plan.lanes[request.floor], request.until - request.arrived
        return retry_after(lane.wait(), request.etas[request.floor](), budget)

    def observed(self, outcome: Outcome[Any]) -> Outcome[Any]:
        """Tell whoever listens."""
        for observer in self.observers:
            try:
                observer(outcome)
            except Exception:  # noqa: BLE001  an observer must not break an answer
                with self.lock:
                    self.observer_errors += 1
        return outcome


def whose(tenant: Any) -> str | None:
    """Return a tenant's name, if it is one.

    Raises:
        InputTypeError: the tenant is not a string: 1 and True would be one.
    """
    if tenant is not None and type(tenant) is not str:
        raise InputTypeError(f"tenant: expected a string, got {type(tenant).__name__}")
    return tenant


def _own(value: Any) -> Any:
    """Return a caller's own of what others get too; what cannot be copied is shared."""
    if type(value) in PLAIN:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  the value's own code runs here
        return value
