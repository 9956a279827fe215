"""What all live drivers share: the way into the ladder, and the way out of it."""

from __future__ import annotations

import copy
import math
import threading
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from cascade.budget import Budget, nanoseconds
from cascade.cache import PLAIN, Entry, ResultCache, entry
from cascade.decide import Decision, Finish
from cascade.errors import DeadlineExceeded, Overloaded, PolicyError, TierError, TierOutputError
from cascade.flight import Flight, Follower, land
from cascade.ledger import FOLD_AT, Ledger
from cascade.types import Disposition, Outcome, Reason, Serials

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from cascade.flight import Landing, Verdict
    from cascade.plan import Plan
    from cascade.protocols import Clock, Observer
    from cascade.types import End

__all__ = ["Engine", "Request"]

_ACCEPTED = Disposition.ACCEPTED
_NANO = 1_000_000_000
_NOTHING: Mapping[str, Any] = {}


class Request:
    """One request on its way: what the lanes, the decision and the ledger need of it.

    It is the context that a tier sees.
    """

    # What most requests never set costs them nothing as a class-level default.
    flight: Flight | None = None
    flight_key: Hashable = None
    key: Hashable = None
    routed = 0

    def __init__(  # noqa: PLR0913, PLR0917  positional: the hot path
        self, plan: Plan, raw: Any, row: Any, floor: int, arrived: int, budget: int,
        tenant: str | None, metadata: Mapping[str, Any] | None, clock: Clock,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.raw = raw
        self.row = row
        self.floor = floor
        self.arrived = arrived
        self.budget = budget
        self.until = arrived + budget
        self.tenant = tenant
        self.metadata = metadata or _NOTHING
        self.clock = clock
        self.decision = Decision(plan.ladder, floor)

    def remaining(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return (self.until - self.clock()) / _NANO

    def cancelled(self) -> bool:
        """Whether nobody waits any more: here, once the deadline has passed."""
        return self.clock() >= self.until


class Engine:
    """Cache, flights, ledger and observers around a plan; the drivers bring the waiting."""

    def __init__(self, clock: Clock, observers: tuple[Observer, ...]) -> None:
        self.clock = clock
        self.ledger = Ledger()
        self.cache: ResultCache | None = None
        self.observer_errors = 0
        self._observers = observers
        self.lock = threading.Lock()  # guards the cache and the flights
        self._flights: dict[Hashable, Flight] = {}

    # -- in --------------------------------------------------------------------------------------

    def budget(self, plan: Plan, deadline: Any, arrived: int) -> int:
        """Return the request's budget in ns, clamped to the policy's ``max_deadline``."""
        if deadline is None:
            if plan.budget is None:
                msg = "deadline: missing in the call and in the policy; give one of them"
                raise PolicyError(msg)
            return plan.budget
        given = isinstance(deadline, Budget)
        budget = deadline.until - arrived if given else nanoseconds(deadline)
        return budget if plan.max_budget is None else min(budget, plan.max_budget)

    def begin(  # noqa: PLR0913, PLR0917  one request's keywords, unpacked
        self, plan: Plan, x: Any, arrived: int, budget: int, tenant: str | None, floor: int,
        use_cache: bool, metadata: Mapping[str, Any] | None,  # noqa: FBT001
        follow: Callable[[Flight, int], Follower],
    ) -> Outcome[Any] | Request | tuple[Request, Follower]:  # fmt: skip
        """Check, key and look up: a cached outcome, or a request that leads or follows a flight."""
        row = plan.row(x)
        cache = self.cache
        if cache is None or not use_cache or (key := plan.key(row)) is None:
            return Request(plan, x, row, floor, arrived, budget, tenant, metadata, self.clock)
        if tenant is not None:
            key = (tenant, key)
        flight_key = key if floor == 0 else (key, floor)
        follower = flight = None
        with self.lock:
            held = cache.get(key, arrived)
            if held is None or held.tier < floor:
                held = None
                self.ledger.misses += 1
                flight = self._flights.get(flight_key)
                if flight is None:
                    flight = self._flights[flight_key] = Flight()
                else:
                    follower = follow(flight, arrived + budget)
        if held is not None:
            return self._hit(plan, held, arrived, budget)
        request = Request(plan, x, row, floor, arrived, budget, tenant, metadata, self.clock)
        request.key = key
        request.flight_key = flight_key
        request.flight = flight
        if follower is not None:
            return request, follower
        if flight is not None:
            flight.decision = request.decision
        return request

    def _hit(self, plan: Plan, held: Entry, arrived: int, budget: int) -> Outcome[Any]:
        ended = self.clock()
        trace = (held.end, arrived, ended, ended, ())
        self.ledger.append(trace)
        if len(self.ledger.pending) >= FOLD_AT:
            self.ledger.settle()
        value = copy.deepcopy(held.value) if held.copied else held.value
        hit: Outcome[Any] = Outcome(
            next(Serials.serials), value, held.confidence, budget, trace, plan.site
        )
        return self._observed(hit) if self._observers else hit

    # -- out -------------------------------------------------------------------------------------

    def settle(self, request: Request, finish: Finish) -> Outcome[Any]:
        """Close the books on a request: cache, flight, ledger, outcome or exception."""
        answer, plan, decision = finish.answer, request.plan, request.decision
        value = extra = confidence = None
        if answer is not None and finish.disposition is _ACCEPTED:
            tier, value, confidence = answer.tier, answer.value, answer.confidence
            if plan.post is not None:
                value = plan.post(tier, value)
            end = plan.accepted[tier][finish.covered]
            if request.flight is not None:
                self._store(request, request.flight, tier, value, confidence, finish)
            if decision.cost is not None:
                extra = {"cost": decision.cost}
        else:
            end, value, confidence, extra = self._otherwise(request, finish)
        trace = (end, request.arrived, request.routed, self.clock(), decision.steps)
        self.ledger.append(trace)
        if len(self.ledger.pending) >= FOLD_AT:
            self.ledger.settle()
        outcome: Outcome[Any] = Outcome(
            next(Serials.serials), value, confidence, request.budget, trace, plan.site, extra
        )
        if self._observers:
            self._observed(outcome)
        if answer is None:
            raise refusal(outcome, finish, self._retry_after(request))
        return outcome

    def _store(
        self, request: Request, flight: Flight, tier: int, value: Any, confidence: float | None,
        finish: Finish,
    ) -> None:  # fmt: skip
        """Store an accepted answer, and let the flight land."""
        end = request.plan.hits[tier][finish.covered]
        if type(value) in PLAIN:
            item = Entry(value, confidence, tier, end, getsizeof(value))
        else:
            item = entry(value, confidence, tier, end)
        with self.lock:
            if self.cache is not None:
                self.cache.put(request.key, item, request.arrived)
            if flight.followers is None:
                self._flights.pop(request.flight_key, None)
                return
        self._land(request, flight, finish)

    def _otherwise(
        self, request: Request, finish: Finish
    ) -> tuple[End, Any, float | None, dict[str, Any] | None]:
        """Close a request that did not end with an accepted answer: nothing is stored."""
        answer, plan = finish.answer, request.plan
        tier = value = confidence = None
        extra: dict[str, Any] = {}
        if answer is not None:
            tier, value, confidence = answer.tier, answer.value, answer.confidence
            if plan.post is not None:
                value = plan.post(tier, value)
        if request.flight is not None:
            self._land(request, request.flight, finish)
        if request.decision.cost is not None:
            extra["cost"] = request.decision.cost
        if finish.disposition is Disposition.ABSTAINED:
            extra["best"], value = value, None
        end = plan.end(finish.disposition, finish.reason, tier, finish.covered)
        return end, value, confidence, extra or None

    def settle_follower(self, request: Request, finish: Finish, waited: int) -> Outcome[Any]:
        """Close the books on a request that was answered by another's computation."""
        answer, now = finish.answer, self.clock()
        request.flight = None  # another's to land
        if answer is not None:  # what a caller gets is its own
            answer = copy.copy(answer)
            answer.value = copy.deepcopy(answer.value)
        tier = 0 if answer is None else answer.tier
        shared = (tier, "shared", None, None, None, -1, -1, waited, now, now, 0)
        request.decision.steps = [shared]
        mine = Finish(finish.disposition, finish.reason, finish.covered, answer, finish.error)
        return self.settle(request, mine)

    def desert(self, request: Request, follower: Follower) -> Verdict:
        """Stop waiting at one's own deadline: with the leader's partial answer, if it has one."""
        flight = request.flight
        assert flight is not None  # noqa: S101  a follower has one
        with self.lock:
            flight.leave(follower)
        if follower.verdict is not None:  # it landed just now
            return follower.verdict
        best = None if flight.decision is None else flight.decision.best
        end = Disposition.FAILED if best is None else Disposition.DEGRADED
        return Finish(end, Reason.DEADLINE, covered=False, answer=best)

    def abandon(self, request: Request) -> None:
        """Hand the flight over when its leader was interrupted."""
        if request.flight is None:
            return
        with self.lock:
            landing = land(request.flight, None, None, self.clock(), 0)
            if not landing.aloft:
                self._flights.pop(request.flight_key, None)
        self._wake(landing)

    def _land(self, request: Request, flight: Flight, finish: Finish) -> None:
        """Give everybody who waits what is theirs."""
        with self.lock:
            refused = request.decision.refused
            need = request.plan.etas[refused]() if refused >= 0 else -1
            landing = land(flight, finish, request.decision, self.clock(), need)
            if not landing.aloft:
                self._flights.pop(request.flight_key, None)
        self._wake(landing)

    @staticmethod
    def _wake(landing: Landing) -> None:
        for follower, verdict in landing.verdicts:
            follower.wake(verdict)

    def _retry_after(self, request: Request) -> float:
        eta = request.plan.etas[request.floor]()
        return max(0.001, eta / _NANO) if math.isfinite(eta) else 1.0

    def _observed(self, outcome: Outcome[Any]) -> Outcome[Any]:
        for observer in self._observers:
            try:
                observer(outcome)
            except Exception:  # noqa: BLE001  an observer must not break an answer
                with self.lock:
                    self.observer_errors += 1
        return outcome


def refusal(outcome: Outcome[Any], finish: Finish, retry_after: float) -> Exception:
    """Return the exception for an outcome without an answer."""
    reason = finish.reason
    if reason is Reason.DEADLINE:
        when = "no tier can answer in time" if finish.disposition is Disposition.SHED else "expired"
        return DeadlineExceeded(f"{when}: budget {outcome.deadline} s", outcome)
    if finish.disposition is Disposition.SHED:
        return Overloaded(f"refused: {reason}", outcome, retry_after=retry_after)
    error = finish.error
    if not isinstance(error, TierError):
        names = ", ".join(step.tier for step in outcome.steps)
        error = TierOutputError(f"no usable answer from {names}: confidence not in [0, 1]")
    shown = _another(error)
    shown.outcome = outcome
    return shown


def _another(error: TierError) -> TierError:
    """Return a copy of an error, for one of several threads that will raise it."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin
