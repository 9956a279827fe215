"""Outcomes: how requests ended, where their time went, and the numbers they are known by."""

from __future__ import annotations

import copy
import itertools
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cascade.errors import (
    Abstained,
    DeadlineExceeded,
    Degraded,
    Overloaded,
    TierError,
    TierOutputError,
)
from cascade.types import Disposition, Finish, Latency, Reason, Step, finite, jsonable, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cascade.errors import CascadeError
    from cascade.types import Mode, RawStep, Site

__all__ = ["Outcome", "Serials", "Trace", "next_serial", "no_answer", "refusal", "split", "took"]

V = TypeVar("V")

_NANO = 1e-9

Trace = tuple[Finish, int, int, int, "Sequence[RawStep]"]
"""finish; arrived, routed, ended (ns); steps: all that the ledger keeps of a request."""


def _fresh_serials() -> itertools.count[int]:
    """Start a counter no other process shares: 64 random bits above a 40-bit count."""
    return itertools.count(int.from_bytes(os.urandom(8), "big") << 40)


class Serials:
    """The counter in force; a forked child gets its own, so as not to repeat its parent's ids."""

    serials = _fresh_serials()


def next_serial() -> int:
    """Return a number that no other outcome of any process has."""
    return next(Serials.serials)


def _reseed() -> None:
    Serials.serials = _fresh_serials()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


class Outcome(Generic[V]):
    """How one request ended: the answer, what it rests on, and where the time went.

    ``value`` is a plain Python value, None where there is no answer; ``best`` is the answer that an
    ABSTAINED outcome withholds. ``covered`` says whether the certificate's promise covers this
    answer. ``deadline`` is the budget in seconds after clamping, ``point`` the index of the
    operating point, ``policy`` the policy's digest, ``cost`` the sum of the tiers' own costs where
    they report any, ``shadow`` what the cascade would have done in mode ``observe``.

    >>> from cascade.testing import outcome
    >>> answer = outcome("cat", tier="small", confidence=0.9)
    >>> answer.value, answer.tier, answer.disposition.value
    ('cat', 'small', 'accepted')
    """

    __slots__ = ("_budget", "_extra", "_serial", "_site", "_trace", "confidence", "value")

    def __init__(
        self,
        serial: int,
        value: V | None,
        confidence: float | None,
        budget: int | None,
        trace: Trace,
        site: Site,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._serial = serial
        self.value = value
        self.confidence = confidence
        self._budget = budget
        self._trace = trace
        self._site = site
        self._extra = extra

    @property
    def id(self) -> str:
        """An identifier that is unique across processes."""
        return f"{self._serial:026x}"

    @property
    def disposition(self) -> Disposition:
        """How the request ended."""
        return self._trace[0].disposition

    @property
    def reason(self) -> Reason:
        """Why it ended so."""
        return self._trace[0].reason

    @property
    def tier(self) -> str | None:
        """The tier that gave the answer, also of a cached one."""
        return self._trace[0].tier

    @property
    def covered(self) -> bool:
        """Whether the certificate's promise covers this answer."""
        return self._trace[0].covered

    @property
    def deadline(self) -> float | None:
        """The request's budget in seconds, after clamping to ``max_deadline``."""
        return None if self._budget is None else self._budget * _NANO

    @property
    def latency(self) -> Latency:
        """The ledger of this request, in seconds."""
        parts = split(self._trace)
        return Latency(*(part * _NANO for part in parts))

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was tried, in order, with its numbers."""
        names = self._site.tiers
        return tuple(_step(names, raw) for raw in self._trace[4])

    @property
    def point(self) -> int:
        """The index of the operating point in force."""
        return self._site.point

    @property
    def policy(self) -> str:
        """The digest of the policy in force."""
        return self._site.policy

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._site.mode

    @property
    def cost(self) -> float | None:
        """The sum of the costs that the tiers reported with their answers: a fault has none."""
        return None if self._extra is None else self._extra.get("cost")

    @property
    def shadow(self) -> Any:
        """What the cascade would have done, in mode ``observe``; None until that is known.

        A mapping of ``tier``, ``disposition``, ``value``, ``confidence`` and ``agrees``.
        """
        return None if self._extra is None else self._extra.get("shadow")

    @property
    def best(self) -> V | None:
        """The answer that an abstention withholds."""
        return None if self._extra is None else self._extra.get("best")

    def add_shadow(self, shadow: Mapping[str, Any]) -> None:
        """Add what the cascade would have done; it is known only some time after the answer."""
        self._extra = {**(self._extra or {}), "shadow": shadow}

    def unwrap(self, *, degraded: bool = False) -> V | None:
        """Return the value; raise where it is not the promised answer, or where there is none.

        With ``degraded=True`` a degraded answer is returned like any other.

        Raises:
            Abstained, Degraded: the answer is withheld, or is a forced one.
            DeadlineExceeded, Overloaded, TierError: there is none, of a row of ``route_many``; as
                ``route`` would have raised.

        >>> from cascade.testing import outcome
        >>> outcome("cat").unwrap()
        'cat'
        """
        disposition = self._trace[0].disposition
        if disposition is Disposition.ABSTAINED:
            msg = f"abstained: confidence {self.confidence} is too low to answer"
            raise Abstained(msg, self)
        if disposition is Disposition.DEGRADED and not degraded:
            msg = f"degraded ({self.reason}): tier {self.tier!r} answered, though unsure"
            raise Degraded(msg, self)
        if disposition is Disposition.FAILED or disposition is Disposition.SHED:
            raise no_answer(self)
        return self.value

    def explain(self) -> str:
        """Say why, step by step: the numbers, what was refused, and where the time went.

        >>> from cascade.testing import outcome
        >>> print(outcome("cat", tier="small").explain().splitlines()[0])
        accepted (confident) by tier 'small', covered by the promise
        """
        from cascade.report import explain_outcome

        return explain_outcome(self)

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-ready: no NaN, no tenant, no arrays.

        >>> from cascade.testing import outcome
        >>> outcome("cat", confidence=float("nan")).to_dict()["confidence"] is None
        True
        """
        return {
            "id": self.id,
            "value": jsonable(self.value),
            "tier": self.tier,
            "confidence": finite(self.confidence),
            "disposition": str(self.disposition),
            "reason": str(self.reason),
            "covered": self.covered,
            "deadline": self.deadline,
            "latency": self.latency.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "point": self.point,
            "policy": self.policy,
            "mode": str(self.mode),
            "cost": finite(self.cost),
            "shadow": jsonable(self.shadow),
        }

    def __repr__(self) -> str:
        """Show what matters; inputs are never part of an outcome."""
        return (
            f"Outcome(value={self.value!r}, tier={self.tier!r}, confidence={self.confidence!r}, "
            f"disposition={str(self.disposition)!r}, reason={str(self.reason)!r})"
        )


def no_answer(outcome: Outcome[Any], later: float | None = None) -> CascadeError:
    """Return the exception for an outcome without an answer; ``later`` is when to come back (s)."""
    shed = outcome.disposition is Disposition.SHED
    if outcome.reason is Reason.DEADLINE:
        when = "no tier can answer in time" if shed else "expired"
        budget = outcome.deadline
        what = when if budget is None else f"{when}: budget {seconds(budget)}"
        return DeadlineExceeded(what, outcome, retry_after=later if shed else None)
    if shed:
        return Overloaded(f"refused: {outcome.reason}", outcome, retry_after=later)
    names = [step.tier for step in outcome.steps if step.result == "failed"]
    last = names[-1] if names else None
    return TierError(f"no answer: {', '.join(names) or 'every tier'} failed", outcome, tier=last)


def refusal(outcome: Outcome[Any], error: BaseException | None, later: float) -> Exception:
    """Return the exception for an outcome without an answer; ``later`` is when to come back (s)."""
    if outcome.reason is Reason.DEADLINE or outcome.disposition is Disposition.SHED:
        return no_answer(outcome, later)
    if not isinstance(error, TierError):
        said = [f"tier {step.tier!r}: {step.error}" for step in outcome.steps if step.error]
        error = TierOutputError("; ".join(["no usable answer", *said]))
    shown = _another(error)
    shown.outcome = outcome
    return shown


def _another(error: TierError) -> TierError:
    """Return a copy of an error, for one of several threads that will raise it."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin


def took(outcome: Outcome[Any]) -> int:
    """Return the ns from when a request was routed until it ended; none of a cached one."""
    trace = outcome._trace  # noqa: SLF001  this module's own
    return trace[3] - trace[2]


def split(trace: Trace) -> tuple[int, int, int, int]:
    """Return input, transfer, compute and output in nanoseconds; they sum to the total."""
    _, arrived, routed, ended, steps = trace
    inputs = routed - arrived
    transfer = compute = 0
    for step in steps:
        submitted, started, finished, back, prepared = step[7:12]
        inputs += prepared
        transfer += started - submitted - prepared + back - finished
        compute += finished - started
    return inputs, transfer, compute, ended - arrived - inputs - transfer - compute


def _step(names: Sequence[str], raw: RawStep) -> Step:
    tier, result, reason, confidence, threshold, eta, remaining = raw[:7]
    submitted, started, finished, back, prepared, batch = raw[7:]
    waited = started - submitted - prepared + back - finished
    return Step(
        names[tier],
        result,
        reason,
        confidence,
        threshold,
        None if eta < 0 else eta * _NANO,
        None if remaining < 0 else remaining * _NANO,
        Latency(prepared * _NANO, waited * _NANO, (finished - started) * _NANO, 0.0),
        *(batch or ()),
    )
