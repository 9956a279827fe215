"""The heart: a pure state machine that says what happens next to one request.

It knows no clock, thread, socket, random source or model library. Time reaches it as integer
nanoseconds and the world as facts, so that what is simulated is what is served. It mutates its own
slots; what it returns is made once per ladder, so that a step allocates nothing but its record.

>>> from cascade.types import OperatingPoint
>>> decision = Decision(Ladder(("small", "large")))
>>> etas = [lambda: 10, lambda: 20]
>>> decision.start(OperatingPoint(0, (0.8,)), 0.0, now=0, until=1_000, etas=etas).tier
0
>>> decision.step(Replied(0, "cat", 0.6, 0, 0, 10), 10, etas).tier
1
>>> decision.step(Replied(1, "dog", 0.7, 10, 10, 30), 30, etas).reason.value
'top'
>>> decision.best.value
'dog'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cascade.facts import Failed, Refused, Replied, TimedOut
from cascade.ladder import Call, Ladder
from cascade.types import Disposition, Finish, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cascade.allowance import Purse
    from cascade.facts import Fact
    from cascade.types import OperatingPoint, RawStep

__all__ = ["BREAKER", "OVERLOAD", "REFUSALS", "Call", "Decision", "Etas", "Finish", "Ladder"]

Etas: TypeAlias = "Sequence[Callable[[], int]]"
"""Per tier, asked only when it is needed: nanoseconds until it would answer; a negative number is a
refusal, one of REFUSALS."""

BREAKER, OVERLOAD, ALLOWANCE = -1, -2, -3
REFUSALS = {BREAKER: Reason.BREAKER, OVERLOAD: Reason.OVERLOAD, ALLOWANCE: Reason.ALLOWANCE,
            -4: Reason.FAULT}  # fmt: skip


class Decision:
    """One request's way up the ladder: ``start`` once, then ``step`` with each fact.

    ``floor`` is the lowest tier that may answer. A tier is asked or refused at most once, so that a
    request takes at most 2K steps. When it is over, ``best`` is the reply that was chosen.
    """

    # Class-level defaults: what most requests never set costs them nothing.
    _asked = _refused = 0  # a bit per tier; beyond them: it took over off the certified way
    _heir = False  # it took over from another, and may have time for what refused that one
    _deviated = False  # by a fault: the certified rule would have gone another way
    _forced: Reason | None = None  # why whatever comes next is a forced accept
    _why: Reason | None = None  # what first stood in the way of a better answer
    best: Replied | None = None  # the answer of the dearest tier so far
    error: BaseException | None = None  # the last fault
    point: OperatingPoint  # in force since the start
    refused = -1  # the first tier that refused, for those who have more time
    purse: Purse | None = None  # what pays for tiers above the floor, where that is limited
    cost: float | None = None  # of all answers, where the tiers report it
    steps: tuple[RawStep, ...] = ()

    def __init__(self, ladder: Ladder, floor: int = 0) -> None:
        self._ladder = ladder
        self.floor = floor

    def start(
        self, point: OperatingPoint, complexity: float, now: int, until: int, etas: Etas
    ) -> Call | Finish:
        """Choose the entry tier; finish with SHED when no tier can answer in time."""
        self.point = point
        self.until = until
        entry, ladder = self.floor, self._ladder
        if complexity >= point.enters_below and not ladder.first_only:
            entry = point.entry(complexity, entry)
        self._entry = entry
        eta = etas[entry]()
        if 0 <= eta <= until - now:
            if entry == self.floor or self._pays():
                self._asked = 1 << entry
                return ladder.calls[entry]
            eta = ALLOWANCE
        self._refuse(entry, eta, now)
        return self._enter_elsewhere(now, etas)

    def resume(self, other: Decision, now: int, until: int, etas: Etas) -> Call | Finish:
        """Go on from where another request's decision stopped, with a deadline of one's own.

        For a follower that takes over a flight: the same point and partial answer, more time. What
        was asked is not asked again; what refused may be.
        """
        self.adopt(other, until)
        return self._go_on(now, etas)

    def adopt(self, other: Decision, until: int) -> None:
        """Stand where another decision stands, with a deadline of one's own."""
        self.point, self._entry, self.until = other.point, other._entry, until
        self._asked, self._deviated = other._asked, other._deviated
        self._heir, self._forced = True, other._forced
        # Refusals are not taken over, since more time may do: only that a tier was passed over so,
        # above which the answer stands. A bit beyond the top tier says it.
        beyond = 1 << self._ladder.top + 1
        reached = (1 << other._asked.bit_length()) - 1
        passed = (other._refused & (reached | beyond)) >> other._entry
        self._refused = 0 if not passed and self._unsure(other.steps) else beyond
        self.best, self.error, self.cost = other.best, other.error, other.cost
        self.purse = self.purse or other.purse

    def step(self, fact: Fact, now: int, etas: Etas) -> Call | Finish:
        """Take in a fact, ``now`` that it is known where it was asked for, and say what is next."""
        if type(fact) is not Replied:
            return self._setback(fact, now, etas)
        tier, confidence, ladder = fact.tier, fact.confidence, self._ladder
        top = tier == ladder.top
        if not (top if confidence is None else 0.0 <= confidence <= 1.0):  # so written for NaN
            return self._setback(fact, now, etas)
        if fact.cost is not None:
            self.cost = fact.cost + (self.cost or 0.0)
        threshold = None if top else self.point.thresholds[tier]
        # written with >=, so that NaN escalates; only a top tier may lack a confidence
        passed = top or confidence >= threshold  # type: ignore[operator]
        self.best = fact
        forced = self._forced is not None and not top
        result = "forced" if forced else "accepted" if passed else "unsure"
        self.steps += (
            (tier, result, None, confidence, threshold, -1, -1,
             fact.submitted, fact.started, fact.finished, now, fact.prepared, fact.batch),
        )  # fmt: skip
        if forced or ladder.special:
            return self._weigh(fact, passed, now, etas)
        if not passed:
            return self._escalate(tier, now, etas)
        if top or self._deviated or self._refused or self.floor or not self.point.certified:
            return self._accept(fact, top)
        return ladder.accepted[tier][fact.known]  # by far the most: a call less

    def _accept(self, fact: Replied, top: bool) -> Finish:  # noqa: FBT001
        """Accept; covered when the certified rule would have given the same answer.

        From a floor on it might have answered below; but the top tier's answer loses nothing.
        """
        accepted = self._ladder.accepted[fact.tier]
        if top:
            return accepted[fact.known]
        if not self.point.certified:
            return self._beyond(fact)
        return accepted[fact.known and not (self._deviated or self._refused or self.floor)]

    def _beyond(self, fact: Replied) -> Finish:
        """Accept at a point that is not certified: in brownout, what the promise asks is marked."""
        promised, tier = self.point.promised, fact.tier
        if promised is None:
            return self._ladder.accepted[tier][False]
        asked = promised.thresholds
        if fact.confidence < asked[tier]:  # type: ignore[operator]  # it has passed a threshold
            return self._ladder.finish(Disposition.DEGRADED, Reason.LOAD, tier)
        same = promised.skip_above == self.point.skip_above and self._unsure(self.steps[:-1])
        strayed = self._deviated or self._refused or self.floor
        return self._ladder.accepted[tier][same and fact.known and not strayed]

    def _unsure(self, steps: Iterable[RawStep]) -> bool:
        """Whether none of these replies would have been accepted where the promise is in force."""
        promised = self.point.promised
        return promised is None or not any(
            confidence is not None and confidence >= promised.thresholds[tier]
            for tier, _, _, confidence, *_ in steps
            if tier < self._ladder.top
        )

    def _weigh(self, fact: Replied, passed: bool, now: int, etas: Etas) -> Call | Finish:  # noqa: FBT001
        """Take in a sound reply that is forced, or under a policy's special rules."""
        ladder, tier = self._ladder, fact.tier
        top = tier == ladder.top
        if ladder.first_only and not top:
            return ladder.finish(Disposition.DEGRADED, Reason.MODE, tier)
        if self._forced is not None and not top:
            return self._go_on(now, etas) if self._heir else self._give_up()
        if not passed:
            return self._escalate(tier, now, etas)
        if top and self._abstains(fact):
            return ladder.finish(Disposition.ABSTAINED, Reason.UNSURE, tier)
        return self._accept(fact, top)

    def _setback(self, fact: Fact, now: int, etas: Etas) -> Call | Finish:
        if isinstance(fact, Refused):
            self._refuse(fact.tier, -1, now, fact.reason)
        elif isinstance(fact, TimedOut):
            self._log(fact, now, "timed_out", Reason.DEADLINE)
            self._why = Reason.DEADLINE
            return self._give_up()
        else:  # it failed, or replied what cannot be a confidence
            if isinstance(fact, Failed):
                self.error, what = fact.error, fact.what
            elif fact.confidence is None:
                what = "it gave no confidence: below the top it must, as Prediction(confidences=…)"
            else:
                what = "confidence not in [0, 1]"
            self._deviated = True
            self._why = self._why or Reason.FAULT
            self._log(fact, now, "failed", Reason.FAULT, (None, None, what))
        return self._go_on(now, etas)

    def _log(
        self, fact: Replied | Failed | TimedOut, now: int, result: str, reason: Reason,
        more: tuple[None, None, str] | None = None,
    ) -> None:  # fmt: skip
        self.steps += (
            (fact.tier, result, reason, None, None, -1, -1,
             fact.submitted, fact.started, fact.finished, now, fact.prepared, more),
        )  # fmt: skip

    # -- choosing the next tier ------------------------------------------------------------------

    def _go_on(self, now: int, etas: Etas) -> Call | Finish:
        """Go on from the best answer so far; what another was forced to is below the entry."""
        if self.best is None:
            return self._enter_elsewhere(now, etas)
        self._forced = None
        return self._escalate(max(self.best.tier, self._entry - 1), now, etas)

    def _escalate(self, tier: int, now: int, etas: Etas) -> Call | Finish:
        """Ask the nearest tier above that fits; else end with the best answer so far."""
        above = self._first_that_fits(range(tier + 1, self._ladder.top + 1), now, etas)
        return self._give_up() if above < 0 else self._ladder.calls[above]

    def _enter_elsewhere(self, now: int, etas: Etas) -> Call | Finish:
        """Without an answer yet: the nearest cheaper tier that can, as a forced accept.

        One above the entry tier replaces it first where that is down, and last where it is merely
        too slow: nothing is shed that any tier could answer.
        """
        calls, late = self._ladder.calls, self._why is Reason.DEADLINE
        self._forced = None
        above = range(self._entry, len(calls))
        found = -1 if late else self._first_that_fits(above, now, etas)
        if found < 0:
            below = range(self._entry - 1, self.floor - 1, -1)
            found = self._first_that_fits(below, now, etas)
            if found >= 0:
                self._forced = self._why
            elif late:
                found = self._first_that_fits(above, now, etas)
        return self._give_up() if found < 0 else calls[found]

    def _first_that_fits(self, tiers: Iterable[int], now: int, etas: Etas) -> int:
        """Return the first tier not tried that can answer in time, or -1; record refusals."""
        ladder, tried = self._ladder, self._asked | self._refused
        for tier in tiers:
            if tried >> tier & 1:
                continue
            useless = tier < ladder.top and self.point.thresholds[tier] > 1.0
            if useless and tier > self._entry and not ladder.first_only:
                continue
            eta = etas[tier]()
            if 0 <= eta <= self.until - now:
                if tier <= self.floor or self._pays():
                    self._asked |= 1 << tier
                    return tier
                eta = ALLOWANCE
            self._refuse(tier, eta, now)
        return -1

    def _pays(self) -> bool:
        """Pay for a call above the floor, where that is limited."""
        return self.purse is None or self.purse.take() > 0

    def _refuse(self, tier: int, eta: int, now: int, reason: Reason | None = None) -> None:
        reason = reason or REFUSALS.get(eta, Reason.DEADLINE)
        self._asked &= ~(1 << tier)
        self._refused |= 1 << tier
        self._why = self._why or reason
        self.refused = tier if self.refused < 0 else self.refused
        left = max(0, self.until - now)
        times = now, now, now, now, 0
        self.steps += ((tier, "refused", reason, None, None, eta, left, *times, None),)

    # -- ends without an accepted answer ---------------------------------------------------------

    def _give_up(self) -> Finish:
        best, reason, ladder = self.best, self._why or Reason.FAULT, self._ladder
        if best is None:
            if self._deviated:  # a fault, maybe a shared one, is what the caller can act on
                return ladder.finish(Disposition.FAILED, Reason.FAULT)
            ran = any(step[1] != "refused" for step in self.steps)
            return ladder.finish(Disposition.FAILED if ran else Disposition.SHED, reason)
        return self.stop_short(best, reason)

    def stop_short(self, best: Replied, reason: Reason) -> Finish:
        """End with an answer that was not accepted."""
        if self._abstains(best):
            return self._ladder.finish(Disposition.ABSTAINED, Reason.UNSURE, best.tier)
        return self._ladder.finish(Disposition.DEGRADED, reason, best.tier)

    def _abstains(self, answer: Replied) -> bool:
        limit, confidence = self._ladder.abstain_below, answer.confidence
        return limit is not None and confidence is not None and confidence < limit
