"""The heart: a pure state machine that says what happens next to one request.

It knows no clock, thread, socket, random source or model library. Time reaches it as integer
nanoseconds and the world as facts, so that what is simulated is what is served. It mutates its own
slots and allocates nothing that it does not return.

>>> from cascade.types import OperatingPoint
>>> decision = Decision(Ladder(("small", "large")))
>>> etas = [lambda: 10, lambda: 20]
>>> decision.start(OperatingPoint(0, (0.8,)), 0.0, now=0, until=1_000, etas=etas).tier
0
>>> decision.step(Replied(0, "cat", 0.6, 0, 0, 10), 10, etas).tier
1
>>> decision.step(Replied(1, "dog", 0.7, 10, 10, 30), 30, etas).reason.value
'top'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cascade.types import OperatingPoint, RawStep

__all__ = [
    "REFUSALS",
    "Call",
    "Decision",
    "Etas",
    "Fact",
    "Failed",
    "Finish",
    "Ladder",
    "Refused",
    "Replied",
    "TimedOut",
]

Etas: TypeAlias = "Sequence[Callable[[], int]]"
"""Per tier, asked only when it is needed: nanoseconds until it would answer; a negative number is a
refusal, one of REFUSALS."""

REFUSALS = {-1: Reason.BREAKER, -2: Reason.OVERLOAD, -3: Reason.ALLOWANCE, -4: Reason.FAULT}

_ACCEPTED, _CONFIDENT, _TOP = Disposition.ACCEPTED, Reason.CONFIDENT, Reason.TOP


@attrs.frozen(slots=False)
class Ladder:
    """What a decision needs to know of a policy: the tiers, and when to abstain."""

    tiers: tuple[str, ...]
    abstain_below: float | None = None
    first_only: bool = False
    top: int = attrs.field(init=False)
    special: bool = attrs.field(init=False)  # a sure answer may yet be turned down

    def __attrs_post_init__(self) -> None:
        """Derive what every request asks for."""
        object.__setattr__(self, "top", len(self.tiers) - 1)
        object.__setattr__(self, "special", self.first_only or self.abstain_below is not None)


@attrs.define(eq=False)
class Call:
    """Ask this tier; its answer counts until ``until`` (ns)."""

    tier: int
    until: int


@attrs.define(eq=False)
class Finish:
    """The request is over; ``answer`` is the reply that was chosen, ``error`` the last fault."""

    disposition: Disposition
    reason: Reason
    covered: bool
    answer: Replied | None
    error: BaseException | None = None


@attrs.define(eq=False)
class Replied:
    """A tier answered.

    Times in ns: handed to the lane, model started, model finished; ``prepared`` is how long the
    tier's own preparation took. ``confidence`` is None where the top tier supplies none. ``known``
    is False when the tier reports another version than the one that the policy names.
    """

    tier: int
    value: Any
    confidence: float | None
    submitted: int
    started: int
    finished: int
    prepared: int = 0
    known: bool = True
    cost: float | None = None


@attrs.define(eq=False)
class Failed:
    """A tier raised, or returned what cannot be an answer."""

    tier: int
    error: BaseException
    submitted: int
    started: int
    finished: int
    prepared: int = 0


@attrs.define(eq=False)
class TimedOut:
    """A tier ran past the time it had."""

    tier: int
    submitted: int
    started: int
    finished: int
    prepared: int = 0


@attrs.define(eq=False)
class Refused:
    """A lane would not take the call after all."""

    tier: int
    reason: Reason
    finished: int


Fact: TypeAlias = Replied | Failed | TimedOut | Refused


class Decision:
    """One request's way up the ladder: ``start`` once, then ``step`` with each fact.

    ``floor`` is the lowest tier that may answer. A tier is asked or refused at most once, so that a
    request takes at most 2K steps.
    """

    # Class-level defaults: what most requests never set costs them nothing.
    _asked = _refused = 0  # a bit per tier
    _deviated = False  # by a fault: the certified rule would have gone another way
    _forced: Reason | None = None  # why whatever comes next is a forced accept
    _why: Reason | None = None  # what first stood in the way of a better answer
    best: Replied | None = None  # the answer of the dearest tier so far
    error: BaseException | None = None  # the last fault
    refused = -1  # the first tier that refused, for those who have more time
    cost: float | None = None  # of all the tiers that were asked, where they report it

    def __init__(self, ladder: Ladder, floor: int = 0) -> None:
        self._ladder = ladder
        self._floor = floor
        self._top = ladder.top
        self.steps: list[RawStep] = []

    def start(
        self, point: OperatingPoint, complexity: float, now: int, until: int, etas: Etas
    ) -> Call | Finish:
        """Choose the entry tier; finish with SHED when no tier can answer in time."""
        self._thresholds = thresholds = point.thresholds
        self._trusted = point.certified
        self._until = until
        entry, top = self._floor, self._top
        if not self._ladder.first_only:  # else the lowest tier, however hard the input looks
            skip = point.skip_above
            while entry < len(skip) and complexity >= skip[entry]:
                entry += 1
            while entry < top and thresholds[entry] > 1.0:
                entry += 1  # no answer of that tier could be accepted: asking it is a waste
        self._entry = entry
        eta = etas[entry]()
        if 0 <= eta <= until - now:
            self._asked = 1 << entry
            return Call(entry, until)
        self._refuse(entry, eta, now)
        return self._enter_elsewhere(now, etas)

    def resume(self, now: int, until: int, etas: Etas) -> Call | Finish:
        """Go on with another request's decision, with a deadline of one's own.

        For a follower that takes over a flight: the same point and partial answer, more time. What
        was asked is not asked again; what refused may be.
        """
        self._until = until
        self._refused, self.refused = 0, -1
        self._forced = self._why = None
        self.steps = []  # the earlier ones stand in the first leader's outcome
        if self.best is None:
            return self._enter_elsewhere(now, etas)
        return self._escalate(self.best.tier, now, etas)

    def step(self, fact: Fact, now: int, etas: Etas) -> Call | Finish:
        """Take in a fact and say what is next."""
        if type(fact) is Replied:
            tier, confidence = fact.tier, fact.confidence
            if fact.cost is not None:
                self.cost = fact.cost + (self.cost or 0.0)
            top = tier == self._top
            sound = top if confidence is None else 0.0 <= confidence <= 1.0
            if sound:
                threshold = None if top else self._thresholds[tier]
                # written with >=, so that NaN escalates; only a top tier may lack a confidence
                passed = threshold is None or confidence >= threshold  # type: ignore[operator]
                self.best = fact
                result = "accepted" if passed else "unsure"
                if self._forced is not None and not top:
                    result = "forced"
                self.steps.append(
                    (tier, result, None, confidence, threshold, -1, -1,
                     fact.submitted, fact.started, fact.finished, fact.prepared)
                )  # fmt: skip
                if not passed or self._forced is not None or self._ladder.special:
                    return self._weigh(fact, passed, now, etas)
                if top:
                    return Finish(_ACCEPTED, _TOP, fact.known, fact)
                covered = self._trusted and fact.known and not (self._deviated or self._refused)
                return Finish(_ACCEPTED, _CONFIDENT, covered, fact)
        return self._setback(fact, now, etas)

    def _weigh(self, fact: Replied, passed: bool, now: int, etas: Etas) -> Call | Finish:  # noqa: FBT001
        """Take in a sound reply that is unsure, forced, or under a policy's special rules."""
        top = fact.tier == self._top
        if self._ladder.first_only and not top:
            return Finish(Disposition.DEGRADED, Reason.MODE, covered=False, answer=fact)
        if self._forced is not None and not top:
            return self._give_up()
        if not passed:
            return self._escalate(fact.tier, now, etas)
        if top:
            if self._abstains(fact):
                return Finish(Disposition.ABSTAINED, Reason.UNSURE, covered=False, answer=fact)
            return Finish(_ACCEPTED, _TOP, fact.known, fact)
        covered = self._trusted and fact.known and not (self._deviated or self._refused)
        return Finish(_ACCEPTED, _CONFIDENT, covered, fact)

    def _setback(self, fact: Fact, now: int, etas: Etas) -> Call | Finish:
        if isinstance(fact, Refused):
            self._refuse(fact.tier, -1, now, fact.reason)
        elif isinstance(fact, TimedOut):
            self._log(fact, "timed_out", None, None, Reason.DEADLINE)
            self._why = Reason.DEADLINE
            return self._give_up()
        else:  # it failed, or replied what cannot be a confidence
            if isinstance(fact, Failed):
                self.error = fact.error
            self._deviated = True
            self._why = self._why or Reason.FAULT
            self._log(fact, "failed", None, None, Reason.FAULT)
        if self.best is not None:
            return self._escalate(self.best.tier, now, etas)
        return self._enter_elsewhere(now, etas)

    def _log(
        self, fact: Replied | Failed | TimedOut, result: str, confidence: float | None,
        threshold: float | None, reason: Reason | None = None,
    ) -> None:  # fmt: skip
        self.steps.append(
            (fact.tier, result, reason, confidence, threshold, -1, -1,
             fact.submitted, fact.started, fact.finished, fact.prepared)
        )  # fmt: skip

    # -- choosing the next tier ------------------------------------------------------------------

    def _escalate(self, tier: int, now: int, etas: Etas) -> Call | Finish:
        """Ask the nearest tier above that fits; else end with the best answer so far."""
        above = self._first_that_fits(range(tier + 1, self._top + 1), now, etas)
        return self._give_up() if above < 0 else Call(above, self._until)

    def _enter_elsewhere(self, now: int, etas: Etas) -> Call | Finish:
        """Without an answer yet: the nearest cheaper tier that can, as a forced accept.

        A tier that is down, and not merely too slow, may also be replaced by one above it.
        """
        if self._why is not Reason.DEADLINE:
            above = self._first_that_fits(range(self._entry, self._top + 1), now, etas)
            if above >= 0:
                return Call(above, self._until)
        below = self._first_that_fits(range(self._entry - 1, self._floor - 1, -1), now, etas)
        if below < 0:
            return self._give_up()
        self._forced = self._why
        return Call(below, self._until)

    def _first_that_fits(self, tiers: Iterable[int], now: int, etas: Etas) -> int:
        """Return the first tier not tried that can answer in time, or -1; record refusals."""
        for tier in tiers:
            if (self._asked | self._refused) >> tier & 1:
                continue
            if tier > self._entry and tier < self._top and self._thresholds[tier] > 1.0:
                continue
            eta = etas[tier]()
            if 0 <= eta <= self._until - now:
                self._asked |= 1 << tier
                return tier
            self._refuse(tier, eta, now)
        return -1

    def _refuse(self, tier: int, eta: int, now: int, reason: Reason | None = None) -> None:
        reason = reason or REFUSALS.get(eta, Reason.DEADLINE)
        self._asked &= ~(1 << tier)
        self._refused |= 1 << tier
        self._why = self._why or reason
        self.refused = tier if self.refused < 0 else self.refused
        left = max(0, self._until - now)
        self.steps.append((tier, "refused", reason, None, None, eta, left, now, now, now, 0))

    # -- ends without an accepted answer ---------------------------------------------------------

    def _give_up(self) -> Finish:
        best, reason = self.best, self._why or Reason.FAULT
        if best is None:
            ran = any(step[1] != "refused" for step in self.steps)
            if self._deviated:  # a fault is what the caller can act on
                reason = Reason.FAULT
            end = Disposition.FAILED if ran else Disposition.SHED
            return Finish(end, reason, covered=False, answer=None, error=self.error)
        if self._abstains(best):
            return Finish(Disposition.ABSTAINED, Reason.UNSURE, covered=False, answer=best)
        return Finish(Disposition.DEGRADED, reason, covered=False, answer=best)

    def _abstains(self, answer: Replied) -> bool:
        limit, confidence = self._ladder.abstain_below, answer.confidence
        return limit is not None and confidence is not None and confidence < limit
