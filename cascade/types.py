"""The words of cascade as types: what a tier returns, how a request ends, where its time went.

These are the values that users see. Hot-path records are slotted, positional and mutable, because
frozen keyword records cost several times as much; they are not meant to be changed by callers.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from cascade.errors import Abstained, Degraded

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Disposition",
    "Issue",
    "Latency",
    "Mode",
    "OperatingPoint",
    "Outcome",
    "Prediction",
    "Reason",
    "Site",
    "Step",
]

V = TypeVar("V")

NEVER = 2.0
"""A threshold that no confidence reaches: 'always escalate'."""

_NANO = 1e-9


class Mode(StrEnum):
    """How a router answers: by its policy, or by one end of its ladder.

    >>> Mode("top_only") is Mode.TOP_ONLY
    True
    """

    ENFORCE = "enforce"
    OBSERVE = "observe"
    TOP_ONLY = "top_only"
    FIRST_ONLY = "first_only"


class Disposition(StrEnum):
    """How a request ended.

    >>> str(Disposition.DEGRADED)
    'degraded'
    """

    ACCEPTED = "accepted"
    CACHED = "cached"
    DEGRADED = "degraded"
    ABSTAINED = "abstained"
    SHED = "shed"
    FAILED = "failed"

    __hash__ = str.__hash__  # Enum's own is Python code, and this one stands in hot dict keys


class Reason(StrEnum):
    """Why a request ended so.

    >>> Reason.CONFIDENT.value
    'confident'
    """

    CONFIDENT = "confident"  # the confidence reached the threshold
    TOP = "top"  # the top tier answered
    CACHE = "cache"
    DEADLINE = "deadline"
    LOAD = "load"
    OVERLOAD = "overload"
    BREAKER = "breaker"
    ALLOWANCE = "allowance"
    FAULT = "fault"
    MODE = "mode"
    UNSURE = "unsure"  # abstained: the confidence is under `abstain_below`

    __hash__ = str.__hash__  # Enum's own is Python code, and this one stands in hot dict keys


@attrs.frozen
class Issue:
    """One problem of a policy or data file, with its place.

    >>> print(Issue("policy.yaml", 3, 11, "deadline", "must be positive, got -1"))
    policy.yaml:3:11: deadline: must be positive, got -1
    """

    file: str | None
    line: int | None
    column: int | None
    path: str
    message: str

    def __str__(self) -> str:
        """Render as ``FILE:LINE:COL: path: message``, leaving out what is unknown."""
        place = [str(part) for part in (self.file, self.line, self.column) if part is not None]
        head = [":".join(place)] if place else []
        return ": ".join([*head, *([self.path] if self.path else []), self.message])


@attrs.frozen
class OperatingPoint:
    """One point of the path from 'always escalate' to 'never': an entry rule and the thresholds.

    Tier ``i`` below the top is accepted when its confidence is at least ``thresholds[i]``; a
    threshold of 2.0 is never reached. ``skip_above[j]`` is the complexity at and above which tiers
    ``0…j`` are skipped.

    >>> OperatingPoint(0, (0.82,)).certified
    False
    """

    index: int
    thresholds: tuple[float, ...]
    skip_above: tuple[float, ...] = ()
    certified: bool = False
    name: str | None = None
    enters_below: float = attrs.field(init=False, repr=False, eq=False)  # an easy input: tier 0

    def __attrs_post_init__(self) -> None:
        """Derive the complexity below which every tier may be entered."""
        useless = any(threshold > 1.0 for threshold in self.thresholds)
        cut = min(self.skip_above, default=math.inf)
        object.__setattr__(self, "enters_below", -math.inf if useless else cut)

    def entry(self, complexity: float, floor: int = 0) -> int:
        """Return the tier, at or above ``floor``, that an input of this complexity enters at.

        A tier that no answer of could be accepted is passed over: asking it is a waste.

        >>> OperatingPoint(0, (0.8, NEVER), skip_above=(0.9,)).entry(0.95)
        2
        """
        entry, top = floor, len(self.thresholds)
        while entry < len(self.skip_above) and complexity >= self.skip_above[entry]:
            entry += 1
        while entry < top and self.thresholds[entry] > 1.0:
            entry += 1
        return entry


@attrs.define(eq=False)
class Prediction:
    """What a tier returned for a batch of n rows.

    ``values`` has n entries (or is None when probabilities or logits speak for themselves). At most
    one source of confidence is needed: ``confidences`` (n,), ``probabilities`` (n, classes),
    ``logits`` (n, classes) or ``margins`` (n,). ``costs`` (n,) is in any unit, ``version`` is the
    model's own report of itself.

    >>> Prediction(["a", "b"], confidences=[0.9, 0.4]).values
    ['a', 'b']
    """

    values: Sequence[Any] | None = None
    confidences: Sequence[float] | None = None
    probabilities: Any = None
    logits: Any = None
    margins: Sequence[float] | None = None
    costs: Sequence[float] | None = None
    version: str | None = None


@attrs.frozen
class Latency:
    """Where the time went, in seconds; the four parts sum to ``total``.

    ``input`` is validation, key and complexity; ``transfer`` is waiting in lanes and crossing a
    network; ``compute`` is inside models; ``output`` is confidence, choice and cache store.

    >>> Latency(0.001, 0.0, 0.002, 0.001).total
    0.004
    """

    input: float
    transfer: float
    compute: float
    output: float

    @property
    def total(self) -> float:
        """The sum of the four parts."""
        return self.input + self.transfer + self.compute + self.output

    def to_dict(self) -> dict[str, float]:
        """Return the parts and the total, JSON-ready."""
        return {
            "input": self.input,
            "transfer": self.transfer,
            "compute": self.compute,
            "output": self.output,
            "total": self.total,
        }


@attrs.frozen
class Step:
    """One step of a decision: a tier that was called, or one that could not be.

    ``result`` is ``accepted``, ``unsure``, ``forced`` (taken for want of a better one), ``failed``,
    ``timed_out``, ``refused`` or ``shared`` (another request's computation). ``eta`` and
    ``remaining`` are the seconds that the step needed and had, where they were looked at.

    >>> Step("small", "unsure", None, 0.61, 0.82, None, None, Latency(0, 0, 0, 0)).tier
    'small'
    """

    tier: str
    result: str
    reason: Reason | None
    confidence: float | None
    threshold: float | None
    eta: float | None
    remaining: float | None
    latency: Latency

    def to_dict(self) -> dict[str, Any]:
        """Return the step as a JSON-ready mapping."""
        return {
            "tier": self.tier,
            "result": self.result,
            "reason": None if self.reason is None else str(self.reason),
            "confidence": _finite(self.confidence),
            "threshold": self.threshold,
            "eta": self.eta,
            "remaining": self.remaining,
            "latency": self.latency.to_dict(),
        }


RawStep = tuple[
    int, str, "Reason | None", "float | None", "float | None", int, int, int, int, int, int
]
"""tier, result, reason, confidence, threshold, eta, remaining, submitted, started, finished and
prepared; times in ns, the last one a duration: the tier's own preparation."""


@attrs.frozen(eq=False)
class Finish:
    """How a request ends; made once per kind of end by the ladder, and told apart by identity.

    ``rank`` is the index of the tier that answered, -1 where none did; ``hit`` is how a request
    ends that finds this answer in the cache.
    """

    disposition: Disposition
    reason: Reason
    tier: str | None
    covered: bool = False
    rank: int = -1
    hit: Finish | None = None


Trace = tuple[Finish, int, int, int, "Sequence[RawStep]"]
"""finish; arrived, routed, ended (ns); steps: all that the ledger keeps of a request."""


@attrs.frozen
class Site:
    """What all outcomes of one policy, mode and operating point share."""

    policy: str
    mode: Mode
    tiers: tuple[str, ...]
    point: int


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
        """The sum of the costs that the called tiers reported."""
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
        """Return the value; raise Abstained or Degraded where it is not the promised answer.

        With ``degraded=True`` a degraded answer is returned like any other.

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
        return self.value

    def explain(self) -> str:
        """Say why, step by step: the numbers, what was refused, and where the time went."""
        from cascade.report import explain_outcome

        return explain_outcome(self)

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-ready: no NaN, no tenant, no arrays."""
        return {
            "id": self.id,
            "value": jsonable(self.value),
            "tier": self.tier,
            "confidence": _finite(self.confidence),
            "disposition": str(self.disposition),
            "reason": str(self.reason),
            "covered": self.covered,
            "deadline": self.deadline,
            "latency": self.latency.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "point": self.point,
            "policy": self.policy,
            "mode": str(self.mode),
            "cost": _finite(self.cost),
            "shadow": jsonable(self.shadow),
        }

    def __repr__(self) -> str:
        """Show what matters; inputs are never part of an outcome."""
        return (
            f"Outcome(value={self.value!r}, tier={self.tier!r}, confidence={self.confidence!r}, "
            f"disposition={str(self.disposition)!r}, reason={str(self.reason)!r})"
        )


def split(trace: Trace) -> tuple[int, int, int, int]:
    """Return input, transfer, compute and output in nanoseconds; they sum to the total."""
    _, arrived, routed, ended, steps = trace
    inputs = routed - arrived
    transfer = compute = 0
    for step in steps:
        submitted, started, finished, prepared = step[7:]
        inputs += prepared
        transfer += started - submitted - prepared
        compute += finished - started
    return inputs, transfer, compute, ended - arrived - inputs - transfer - compute


def _step(names: Sequence[str], raw: RawStep) -> Step:
    tier, result, reason, confidence, threshold, eta, remaining = raw[:7]
    submitted, started, finished, prepared = raw[7:]
    waited = started - submitted - prepared
    return Step(
        names[tier],
        result,
        reason,
        confidence,
        threshold,
        None if eta < 0 else eta * _NANO,
        None if remaining < 0 else remaining * _NANO,
        Latency(prepared * _NANO, waited * _NANO, (finished - started) * _NANO, 0.0),
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def jsonable(value: Any) -> Any:
    """Return ``value`` as JSON types: arrays as lists, NaN and infinities None, else its repr."""
    if isinstance(value, float):
        return _finite(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return repr(value)
