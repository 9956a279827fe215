"""The words of cascade as types: what a tier returns, how a request ends, where its time went.

These are the values that users see. Hot-path records are slotted, positional and mutable, because
frozen keyword records cost several times as much; they are not meant to be changed by callers.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = [
    "Disposition",
    "Issue",
    "Latency",
    "LoadSnapshot",
    "Mode",
    "OperatingPoint",
    "Prediction",
    "Reason",
    "Site",
    "Step",
    "TierLoad",
]

NEVER = 2.0
"""A threshold that no confidence reaches: 'always escalate'."""

_UNITS = (3599.0, 1 / 3600, "h"), (120.0, 1 / 60, "min"), (0.9995, 1.0, "s"), (0.9995e-3, 1e3, "ms")


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


class Issue(NamedTuple):
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
        said = f"{self.path}: {self.message}" if self.path else self.message
        if self.file is None:
            return said
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {said}"


@attrs.frozen
class OperatingPoint:
    """One point of the path from 'always escalate' to 'never': an entry rule and the thresholds.

    Tier ``i`` below the top is accepted when its confidence is at least ``thresholds[i]``; a
    threshold of 2.0 is never reached. ``skip_above[j]`` is the complexity at and above which tiers
    ``0…j`` are skipped. Beyond the certified points (brownout) ``promised`` is the cheapest one
    that is certified: what it would have escalated is a forced accept.

    >>> OperatingPoint(0, (0.82,)).certified
    False
    """

    index: int
    thresholds: tuple[float, ...]
    skip_above: tuple[float, ...] = ()
    certified: bool = False
    name: str | None = None
    promised: OperatingPoint | None = None
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

    values: Sequence[Any] | npt.NDArray[Any] | None = None
    confidences: Sequence[float] | npt.NDArray[Any] | None = None
    probabilities: Any = None
    logits: Any = None
    margins: Sequence[float] | npt.NDArray[Any] | None = None
    costs: Sequence[float] | npt.NDArray[Any] | None = None
    version: str | None = None

    def __repr__(self) -> str:
        """Show the beginning of what there is: a batch may be long."""
        fields = attrs.asdict(self, recurse=False).items()
        held = [f"{name}={reprlib.repr(value)}" for name, value in fields if value is not None]
        return f"Prediction({', '.join(held)})"


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
    ``remaining`` are the seconds that the step needed and had, where they were looked at. ``rows``
    is the size of the batch that the request ran in, ``went`` why that went when it did (``idle``:
    a worker was; ``full``; ``waited``; ``turn``: of the event loop; ``rows``: of ``route_many``);
    its wait is ``latency.transfer``. ``error`` says what went wrong with a failed one, but not in
    the words of what the tier raised: they may hold the input, and are found in the ``__cause__``
    of what :meth:`Router.route` raises.

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
    rows: int | None = None
    went: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the step as a JSON-ready mapping."""
        return {
            "tier": self.tier,
            "result": self.result,
            "reason": None if self.reason is None else str(self.reason),
            "confidence": finite(self.confidence),
            "threshold": self.threshold,
            "eta": self.eta,
            "remaining": self.remaining,
            "latency": self.latency.to_dict(),
            "rows": self.rows,
            "went": self.went,
            "error": self.error,
        }


RawStep = tuple[
    int, str, "Reason | None", "float | None", "float | None", int, int, int, int, int, int, int,
    "tuple[int | None, str | None] | tuple[int | None, str | None, str] | None",
]  # fmt: skip
"""tier, result, reason, confidence, threshold, eta, remaining; submitted, started, finished and
back, which is when the caller had the answer, in ns; how long the tier's own preparation took; and,
where there is anything to say, the rows of the batch, why it went, and the error."""


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


@attrs.frozen
class TierLoad:
    """How busy one tier is: calls ``running`` and ``queued``, the wait (s) that a call would have.

    ``seconds`` is what a row costs a worker at the batch size in use, ``p50`` and ``p95`` are
    quantiles of its service time (None: not known yet), ``utilization`` is the share of its
    workers' time in the last interval, ``answered`` its rows per second, ``zombies`` counts runs
    that nobody waits for, ``broken`` says that its breaker keeps calls away.

    >>> TierLoad("small").queued
    0
    """

    tier: str
    running: int = 0
    queued: int = 0
    delay: float = 0.0
    seconds: float = 0.0
    p50: float | None = None
    p95: float | None = None
    workers: int = 1
    utilization: float = 0.0
    answered: float = 0.0
    zombies: int = 0
    broken: bool = False


@attrs.frozen
class LoadSnapshot:
    """The load of an interval of ``seconds`` that ended ``at`` (ns): arrivals per second, the
    shortest queue delay (s) that they found, and each tier's own.

    >>> LoadSnapshot(0, 1.0, rate=20.0, delay=0.0, tiers=(TierLoad("small"),)).rate
    20.0
    """  # noqa: D205  a list

    at: int
    seconds: float
    rate: float
    delay: float
    tiers: tuple[TierLoad, ...]


@attrs.frozen
class Site:
    """What all outcomes of one policy, mode and operating point share."""

    policy: str
    mode: Mode
    tiers: tuple[str, ...]
    point: int


def a_kind(value: Any) -> str:
    """Name the kind of a value that is not what was expected.

    >>> a_kind(5), a_kind([])
    ('an int', 'a list')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def seconds(time: float) -> str:
    """Return a time with a unit that suits it.

    >>> seconds(0.00001234), seconds(0.0123), seconds(1.5), seconds(60.0), seconds(5400.0)
    ('12.3 µs', '12.3 ms', '1.5 s', '60 s', '1.5 h')
    """
    factor, unit = next(((by, name) for at, by, name in _UNITS if time >= at), (1e6, "µs"))
    number = time * factor
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"


def finite(number: float | None) -> float | None:
    """Return a number that JSON can hold, or None."""
    return number if number is not None and math.isfinite(number) else None


def jsonable(value: Any) -> Any:
    """Return ``value`` as JSON types: arrays as lists, NaN and infinities None, else its repr."""
    if isinstance(value, float):
        return finite(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return repr(value)


def spelled(value: Any) -> str:
    """Return an answer as text: in recordings, and as the label that calibrations look up.

    >>> spelled("cat"), spelled(True), spelled(["a", 1])
    ('cat', 'True', '["a", 1]')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (Mapping, list, tuple)) or getattr(value, "ndim", False):
        return json.dumps(jsonable(value), ensure_ascii=False)
    return str(value)
