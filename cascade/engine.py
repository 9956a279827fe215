"""What all live drivers share: the way into the ladder, and the way out of it."""

from __future__ import annotations

import copy
import math
import threading
from typing import TYPE_CHECKING, Any

import attrs

from cascade.budget import Budget, nanoseconds
from cascade.cache import ResultCache, entry
from cascade.decide import Decision
from cascade.errors import DeadlineExceeded, Overloaded, PolicyError, TierError, TierOutputError
from cascade.flight import Flight, Follower, land
from cascade.ledger import Ledger
from cascade.types import Disposition, Outcome, Reason, next_serial

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from cascade.decide import Finish
    from cascade.flight import Landing
    from cascade.plan import Plan
    from cascade.protocols import Clock, Observer
    from cascade.types import End, RawStep

__all__ = ["Engine", "Request"]

_ACCEPTED = Disposition.ACCEPTED
_NANO = 1_000_000_000
_NOTHING: Mapping[str, Any] = {}


class Request:
    """One request on its way: what the lanes, the decision and the ledger need of it.

    It is the context that a tier sees.
    """

    __slots__ = (
        "arrived", "budget", "clock", "decision", "flight", "flight_key", "floor", "key",
        "metadata", "plan", "raw", "routed", "row", "tenant", "until",
    )  # fmt: skip

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
        self.flight: Flight | None = None
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
        self._lock = threading.Lock()  # guards the cache and the flights
        self._flights: dict[Hashable, Flight] = {}

    # -- in --------------------------------------------------------------------------------------

    def budget(self, plan: Plan, deadline: Any, arrived: int) -> int:
        """Return the request's budget in ns, clamped to the policy's ``max_deadline``."""
        if deadline is None:
            if plan.budget is None:
                msg = "deadline: missing in the call and in the policy; give one of them"
                raise PolicyError(msg)
            return plan.budget
        if isinstance(deadline, Budget):
            budget = deadline.until - arrived
        else:
            budget = nanoseconds(deadline)
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
            return self._lead(plan, x, row, floor, arrived, budget, tenant, metadata)
        if tenant is not None:
            key = (tenant, key)
        flight_key = key if floor == 0 else (key, floor)
        follower = None
        with self._lock:
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
            ended = self.clock()
            trace = (held.end, arrived, ended, ended, ())
            self.ledger.append(trace)
            self.ledger.settle()
            value = copy.deepcopy(held.value) if held.copied else held.value
            hit: Outcome[Any] = Outcome(
                next_serial(), value, held.confidence, budget, trace, plan.site
            )
            return self._observed(hit) if self._observers else hit
        request = self._lead(plan, x, row, floor, arrived, budget, tenant, metadata)
        request.key = key
        request.flight_key = flight_key
        request.flight = flight
        return request if follower is None else (request, follower)

    def _lead(  # noqa: PLR0913, PLR0917
        self, plan: Plan, x: Any, row: Any, floor: int, arrived: int, budget: int,
        tenant: str | None, metadata: Mapping[str, Any] | None,
    ) -> Request:  # fmt: skip
        return Request(plan, x, row, floor, arrived, budget, tenant, metadata, self.clock)

    # -- out -------------------------------------------------------------------------------------

    def settle(self, request: Request, finish: Finish) -> Outcome[Any]:
        """Close the books on a leader's request: cache, flight, ledger, outcome or exception."""
        answer = finish.answer
        plan = request.plan
        value = extra = confidence = None
        tier = None
        if answer is not None:
            tier, confidence = answer.tier, answer.confidence
            value = self._post(plan, tier, answer.value)
            if answer.cost is not None:
                extra = {"cost": answer.cost}
        end = plan.end(finish.disposition, finish.reason, tier, finish.covered)
        if request.flight is not None:
            self._release(request, finish, end, value)
        return self._conclude(request, finish, end, value, confidence, extra)

    def _conclude(  # noqa: PLR0913, PLR0917
        self, request: Request, finish: Finish, end: End, value: Any, confidence: float | None,
        extra: dict[str, Any] | None,
    ) -> Outcome[Any]:  # fmt: skip
        if finish.disposition is Disposition.ABSTAINED:
            extra = {**(extra or {}), "best": value}
            value = None
        steps: list[RawStep] = request.decision.steps
        trace = (end, request.arrived, request.routed, self.clock(), steps)
        self.ledger.append(trace)
        self.ledger.settle()
        outcome: Outcome[Any] = Outcome(
            next_serial(), value, confidence, request.budget, trace, request.plan.site, extra
        )
        if self._observers:
            self._observed(outcome)
        if finish.answer is None:
            raise refusal(outcome, finish, self._retry_after(request))
        return outcome

    def settle_follower(self, request: Request, finish: Finish, waited: int) -> Outcome[Any]:
        """Close the books on a request that was answered by another's computation."""
        answer = finish.answer
        tier = 0 if answer is None else answer.tier
        now = self.clock()
        request.decision.steps = [
            (tier, "shared", None, None, None, -1, -1, waited, now, now, 0)
        ]  # fmt: skip
        value = confidence = None
        if answer is not None:
            value = self._post(request.plan, answer.tier, copy.deepcopy(answer.value))
            confidence = answer.confidence
        end = request.plan.end(
            finish.disposition, finish.reason, None if answer is None else tier, finish.covered
        )
        return self._conclude(request, finish, end, value, confidence, None)

    def abandon(self, request: Request) -> None:
        """Hand the flight over when its leader was interrupted."""
        if request.flight is None:
            return
        with self._lock:
            landing = land(request.flight, None, None, self.clock(), 0)
            if not landing.aloft:
                self._flights.pop(request.flight_key, None)
        self._wake(landing)

    def _release(self, request: Request, finish: Finish, end: End, value: Any) -> None:
        """Store an accepted answer, and let the flight land."""
        plan, flight = request.plan, request.flight
        assert flight is not None  # noqa: S101  the caller has looked
        cached = None
        if finish.disposition is _ACCEPTED and finish.answer is not None:
            answer = finish.answer
            hit = plan.end(Disposition.CACHED, Reason.CACHE, answer.tier, end.covered)
            cached = entry(value, answer.confidence, answer.tier, hit)
        with self._lock:
            if cached is not None and self.cache is not None:
                self.cache.put(request.key, cached, request.arrived)
            if flight.followers is None:
                del self._flights[request.flight_key]
                return
            refused = request.decision.refused
            need = plan.etas(refused) if refused >= 0 else -1
            landing = land(flight, finish, request.decision, self.clock(), need)
            if not landing.aloft:
                del self._flights[request.flight_key]
        self._wake(landing)

    @staticmethod
    def _wake(landing: Landing) -> None:
        for follower, verdict in landing.verdicts:
            follower.wake(verdict)

    def _post(self, plan: Plan, tier: int, value: Any) -> Any:
        functions = plan.postprocess
        if functions.common is not None:
            return functions.common(value)
        own = functions.own.get(plan.site.tiers[tier]) if functions.own else None
        return value if own is None else own(value)

    def _retry_after(self, request: Request) -> float:
        eta = request.plan.etas(request.floor)
        return max(0.001, eta / _NANO) if math.isfinite(eta) else 1.0

    def _observed(self, outcome: Outcome[Any]) -> Outcome[Any]:
        for observer in self._observers:
            try:
                observer(outcome)
            except Exception:  # noqa: BLE001  an observer must not break an answer
                with self._lock:
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


def evolve(plan: Plan, **changes: Any) -> Plan:
    """Return the plan with some values changed."""
    return attrs.evolve(plan, **changes)
