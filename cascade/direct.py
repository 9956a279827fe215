"""The direct way: the ladder over inline tiers, compiled from a plan into one function.

Most requests are answered by tiers that run where they are called. For those what ``engine`` and
``decide`` do stands here once more, in one function that makes no call it can spare, as ``climb``
has it once more for columns; a property test holds them together. What is out of the ordinary is
not handled here: what has happened so far is told to the state machine, fact by fact, and the
driver goes on from there.
"""

from __future__ import annotations

import math
from sys import getsizeof
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.cache import DIGIT, INT, PLAIN, Entry
from cascade.complexity import easy_below
from cascade.engine import Request, whose
from cascade.facts import Replied
from cascade.ledger import FOLD_AT
from cascade.outcome import Outcome, Serials

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from cascade.facts import Fact
    from cascade.flight import Follower
    from cascade.plan import Plan
    from cascade.types import Finish, RawStep

__all__ = ["Direct", "Hit", "compile_direct", "compile_hit"]

Direct: TypeAlias = (
    "Callable[[Any, int, int, str | None, Callable[[Request], Follower]], Outcome[Any] | Request]"
)
"""Input, arrived, until, tenant, and how to follow → an outcome, or a request to go on with."""

Settle: TypeAlias = (
    "Callable[[Request, Finish, Any, float, tuple[RawStep, ...], int], Outcome[Any] | None]"
)
"""Closes the books on a sure answer, and on looks that missed; None where it takes more."""

Hit: TypeAlias = "Callable[[Entry, int, int], Outcome[Any]]"
"""A cached answer, arrived, until → its outcome."""

Rung: TypeAlias = "tuple[Any, ...]"
"""A tier: index, lane, run, read, note; threshold, the least confidence to accept, and the end."""


def compile_direct(plan: Plan) -> tuple[Direct | None, Boarding | None]:
    """Compile the direct way up a plan's ladder, alone and in company.

    None where no request is an ordinary one, or where the first tier does not run together.
    """
    moved = plan.steering is not None or plan.allowance is not None or plan.floor > 0
    special = plan.ladder.special or plan.post is not None
    rungs = () if moved or special else _rungs(plan)
    if not rungs:
        return None, None
    settle, lane = _settling(plan), rungs[0][1]
    together = Boarding(plan, rungs[0], settle) if lane.cap > 1 else None
    return _compiled(plan, rungs, settle), together


def compile_hit(plan: Plan) -> Hit:
    """Compile the answer with a cached answer."""
    engine, clock, site = plan.engine, plan.clock, plan.site
    ledger, observers = engine.ledger, engine.observers
    append, pending = ledger.append, ledger.pending

    def hit(held: Entry, arrived: int, until: int) -> Outcome[Any]:
        ended = clock()
        trace = (held.finish, arrived, ended, ended, ())
        append(trace)
        if len(pending) >= FOLD_AT:
            ledger.settle()
        value = held.value if type(held) is Entry else held.out()
        outcome: Outcome[Any] = Outcome(
            next(Serials.serials), value, held.confidence, until - arrived, trace, site
        )
        return engine.observed(outcome) if observers else outcome

    return hit


def _rungs(plan: Plan) -> tuple[Rung, ...]:
    """What is needed of the tiers that an easy input climbs, up to the first that is not bare."""
    point, top = plan.point, plan.ladder.top
    rungs: list[Rung] = []
    for tier in range(point.entry(-1.0), top + 1):
        lane = plan.lanes[tier]
        if not lane.bare:
            break
        threshold = None if tier == top else point.thresholds[tier]
        least = threshold or 0.0
        if least <= 1.0:
            end = plan.ladder.accepted[tier][tier == top or point.certified]
            run, read, note = lane.tier.run, lane.tier.read, lane.service.note
            rungs.append((tier, lane, run, read, note, threshold, least, end))
    return tuple(rungs)


def _easy(plan: Plan) -> tuple[Callable[[Any], Any] | None, float]:
    """Return a product and its limit: below that an input is surely easy, without a sigmoid."""
    rule, cut = plan.policy.complexity, min(plan.point.skip_above, default=2.0)
    spec = plan.specs[0] if len(plan.specs) == 1 else None
    flat = spec is not None and len(spec.shape) == 1 and None not in spec.shape
    flat = flat and plan.specs[0].dtype == "float32"
    if rule is None or plan.by_name or not flat or cut <= 0.0:
        return None, -math.inf
    weights = np.asarray(rule.weights, dtype=np.float32)
    return weights.dot, easy_below(rule.intercept, cut)


class Boarding:
    """The direct way of requests that an event loop puts together at their first tier."""

    def __init__(self, plan: Plan, rung: Rung, settle: Settle) -> None:
        self.tier, self._lane, *_, self._threshold, self._least, self._end = rung
        self._etas, self._clock, self._settle = plan.etas, plan.clock, settle
        self._plain = plan.complexity is None
        self._cut = min(plan.point.skip_above, default=2.0)

    def admits(self, request: Request, x: Any) -> bool:
        """Whether a request may be answered together with others; notes that it was routed."""
        if not (self._plain or _hard(request, x) < self._cut):
            return False
        now = request.routed = self._clock()
        return self._lane.inline and 0 <= self._etas[self.tier]() <= request.until - now

    def land(self, request: Request, x: Any, fact: Fact) -> Outcome[Any] | None:
        """Close the books on a sure answer; else None, and the request has its next ``move``."""
        back = self._clock()
        if type(fact) is Replied:
            confidence = fact.confidence
            if confidence is not None and self._least <= confidence <= 1.0:
                step: RawStep = (
                    self.tier, "accepted", None, confidence, self._threshold, -1, -1,
                    fact.submitted, fact.started, fact.finished, back, fact.prepared, fact.batch,
                )  # fmt: skip
                outcome = self._settle(request, self._end, fact.value, confidence, (step,), 0)
                if outcome is not None:
                    return outcome
        _tell(request, x, fact=fact, back=back)
        return None


def _compiled(plan: Plan, rungs: tuple[Rung, ...], settle: Settle) -> Direct:  # noqa: C901  one, for speed
    engine, cache, lead = plan.engine, plan.engine.cache, plan.engine.flights.setdefault
    clock, cast, key_of, etas, hit = plan.clock, plan.row, plan.key, plan.etas, plan.hit
    entries: Mapping[Hashable, Entry] = {} if cache is None else cache.entries
    (dot, limit), cut = _easy(plan), min(plan.point.skip_above, default=2.0)

    def direct(  # noqa: C901, PLR0912  one, for speed
        x: Any, arrived: int, until: int, tenant: str | None, follow: Callable[[Request], Follower]
    ) -> Outcome[Any] | Request:
        row = cast(x)
        key = None if cache is None else key_of(row)
        if key is not None:
            if tenant is not None:
                key = whose(tenant), key
            held = entries.get(key)
            if held is not None and arrived >= held.fresh:
                held = engine.used(key, arrived)
            if held is not None:
                return hit(held, arrived, until)
        request = Request(plan, row, 0, arrived, until)
        if tenant is not None:
            request.tenant = whose(tenant)
        steps: tuple[RawStep, ...] = ()
        values: tuple[Any, ...] = ()  # of the steps but the last
        value = confidence = fault = None
        try:
            if cache is not None and key is not None:
                request.key = key
                if lead(key, request) is not request or key in entries:  # another has just landed
                    return engine.enter(request, cache, follow)
            if (dot is None or float(dot(row)) >= limit) and _hard(request, x) >= cut:
                return _go_on(request, x)
            now = request.routed = clock()
            for tier, lane, run, read, note, threshold, least, end in rungs:
                eta = etas[tier]() if lane.inline else None
                if eta is None or not 0 <= eta <= until - now:
                    break
                started, finished = now, 0
                try:
                    raw = run(request)
                    finished = clock()
                    value, confidence = read(raw)
                except BaseException as error:  # noqa: BLE001  a tier may raise anything
                    fault = lane.fault(error, started, started, finished or clock())
                    break
                note(finished - started)
                sure = confidence is not None and least <= confidence <= 1.0
                steps += ((tier, "accepted" if sure else "unsure", None, confidence, threshold,
                           -1, -1, started, started, finished, finished, 0, None),)  # fmt: skip
                if sure:
                    outcome = settle(request, end, value, confidence, steps, 1)
                    if outcome is None:
                        return _go_on(request, x, steps, (*values, value))
                    return outcome
                if confidence is None or not 0.0 <= confidence <= 1.0:
                    break
                values += (value,)
                now = clock()
            return _go_on(request, x, steps, (*values, value), fault, (tier, eta))
        except BaseException:
            engine.abandon(request)
            raise

    return direct


def _settling(plan: Plan) -> Settle:
    """Compile the closing of the books on a sure answer; None where that takes more than this."""
    engine, cache, ledger = plan.engine, plan.engine.cache, plan.engine.ledger
    lock, flights = engine.lock, engine.flights
    append, pending, clock, site = ledger.append, ledger.pending, plan.clock, plan.site
    observers = engine.observers

    def settle(
        request: Request,
        end: Finish,
        value: Any,
        confidence: float,
        steps: tuple[RawStep, ...],
        misses: int,
    ) -> Outcome[Any] | None:
        key = request.key
        if cache is not None and key is not None:
            if type(value) not in PLAIN or end.hit is None:
                return None
            small = type(value) is int and -DIGIT < value < DIGIT
            item = Entry(value, confidence, end.hit, INT if small else getsizeof(value))
            with lock:  # not acquire and try: a signal's exception may come in between
                if request.followers is not None:
                    return None
                ledger.misses += misses
                cache.put(key, item, request.arrived)
                del flights[key]
        trace = (end, request.arrived, request.routed, clock(), steps)
        append(trace)
        if len(pending) >= FOLD_AT:
            ledger.settle()
        budget = request.until - request.arrived
        outcome: Outcome[Any] = Outcome(
            next(Serials.serials), value, confidence, budget, trace, site
        )
        return engine.observed(outcome) if observers else outcome

    return settle


def _hard(request: Request, x: Any) -> float:
    """Return how hard the input looks."""
    plan = request.plan
    if plan.complexity is None:
        return 0.0
    return plan.complexity(x if plan.by_name else request.row)


def _go_on(request: Request, x: Any, *happened: Any) -> Request:
    """Count the look into the cache, which missed, and go on by the state machine."""
    if request.key is not None:
        with request.plan.engine.lock:
            request.plan.engine.ledger.misses += 1
    return _tell(request, x, *happened)


def _tell(
    request: Request,
    x: Any,
    steps: Iterable[RawStep] = (),
    values: Iterable[Any] = (),
    fact: Fact | None = None,
    looked: tuple[int, int | None] = (0, None),
    back: int | None = None,
) -> Request:
    """Tell the state machine what has happened; the driver goes on with the request's ``move``.

    ``values`` are those of the steps, ``fact`` what came after them, and ``back`` when, if that
    took time; ``looked`` is a tier with the eta that was seen.
    """
    plan, tier, eta = request.plan, *looked
    etas, at_once = list(request.etas), [int] * len(request.etas)  # int() is 0
    if eta is not None:
        etas[tier] = lambda: eta
    told = zip(values, steps, strict=False)  # for a step not taken the value before it is there
    facts: list[Fact] = [
        Replied(tier, value, confidence, submitted, started, finished)
        for value, (tier, _, _, confidence, _, _, _, submitted, started, finished, *_) in told
    ]
    if fact is not None:
        facts.append(fact)
    request.routed = now = request.routed or plan.clock()
    begun = at_once if facts else etas
    request.move = request.start(plan.point, _hard(request, x), now, request.until, begun)
    for i, each in enumerate(facts, 1):
        seen = etas if i == len(facts) else at_once
        request.move = request.step(each, back or each.finished, seen)
    return request
