"""Test aids: scripted tiers, virtual time, assertions; for one's own suite, without models.

>>> from cascade.testing import assert_tier, router_for, scripted
>>> policy = {
...     "version": 1,
...     "name": "pets",
...     "deadline": "50ms",
...     "tiers": [
...         {"name": "small", "kind": "external"},
...         {"name": "large", "kind": "external"},
...     ],
...     "escalation": {"thresholds": [0.8]},
... }
>>> small = scripted({"meow": ("cat", 0.9)}, default=("dog", 0.5))
>>> with router_for(policy, small=small, large="dog") as router:
...     assert_tier(router.route("meow"), "small")
...     assert_tier(router.route("wuff"), "large")
>>> small.calls
['meow', 'wuff']
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import attrs

from cascade.errors import InputValueError, PolicyError
from cascade.outcome import Outcome, next_serial
from cascade.policy.walk import nearest
from cascade.scripts import NOTHING, Scripted, Standing, raises, recorded, scripted
from cascade.types import Disposition, Finish, Mode, Reason, Site, a_kind
from cascade.virtual import VirtualClock, VirtualLoop, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cascade.aio import AsyncRouter
    from cascade.policy import Policy
    from cascade.router import Router

__all__ = [
    "Scripted", "VirtualClock", "VirtualLoop", "assert_disposition", "assert_tier",
    "async_router_for", "check_tier", "outcome", "recorded", "router_for", "run_virtual",
    "scripted",
]  # fmt: skip

K = TypeVar("K", Disposition, Reason)
Source: TypeAlias = "Policy | Mapping[str, Any] | str | Path"

_ENDS: dict[Disposition, tuple[Reason, ...]] = {
    Disposition.ACCEPTED: (Reason.CONFIDENT, Reason.TOP),
    Disposition.CACHED: (Reason.CACHE,),
    Disposition.DEGRADED: (
        Reason.DEADLINE, Reason.LOAD, Reason.OVERLOAD, Reason.BREAKER, Reason.ALLOWANCE,
        Reason.FAULT, Reason.MODE,
    ),
    Disposition.ABSTAINED: (Reason.UNSURE,),
    Disposition.SHED: (Reason.OVERLOAD, Reason.DEADLINE, Reason.BREAKER, Reason.ALLOWANCE),
    Disposition.FAILED: (Reason.FAULT, Reason.DEADLINE),
}  # fmt: skip
"""How requests end, and why; the first reason is taken where none is given."""


def outcome(
    value: Any,
    *,
    tier: str | None = NOTHING,
    confidence: float | None = None,
    disposition: Disposition | str = Disposition.ACCEPTED,
    reason: Reason | str | None = None,
    covered: bool | None = None,
) -> Outcome[Any]:
    """Make an outcome as a router would, for a test of what consumes it.

    The rest follows from ``disposition`` where it is not given: the usual reason; ``covered`` where
    it is accepted or cached; no tier where it is shed or failed, else ``small``. What an abstention
    withholds is ``value`` here, and ``best`` of the outcome.

    Raises:
        ValueError: no request ends so.

    >>> outcome("cat", confidence=0.9).confidence
    0.9
    >>> withheld = outcome("cat", disposition="abstained")
    >>> withheld.value, withheld.best, withheld.reason.value, withheld.covered
    (None, 'cat', 'unsure', False)
    """
    end = _named(Disposition, disposition)
    reasons = _ENDS[end]
    why = reasons[0] if reason is None else _named(Reason, reason)
    if why not in reasons:
        raise ValueError(f"reason: expected {_any_of(reasons)} of {end}, got {str(why)!r}")
    answered = end not in {Disposition.SHED, Disposition.FAILED}
    if value is not None and not answered:
        raise ValueError(f"value: expected None, for {end} is without an answer")
    if tier is NOTHING:
        tier = "small" if answered else None
    if covered is None:
        covered = end in {Disposition.ACCEPTED, Disposition.CACHED}
    extra = {"best": value} if end is Disposition.ABSTAINED else None
    finish = Finish(end, why, tier, covered)
    site = Site("0" * 32, Mode.ENFORCE, () if tier is None else (tier,), 0)
    trace = (finish, 0, 0, 0, ())
    kept = value if extra is None else None
    return Outcome(next_serial(), kept, confidence, None, trace, site, extra)


def _named(kind: type[K], given: Any) -> K:
    """Return the disposition or reason of this name; an error lists those there are."""
    try:
        return kind(given)
    except ValueError:
        known = [str(one) for one in kind]
        near = nearest(str(given), known)
        listed = f"{near} ({', '.join(known)})" if "did you mean" in near else near
        raise ValueError(f"{kind.__name__.lower()}: none is {given!r}; {listed}") from None


def _any_of(reasons: tuple[Reason, ...]) -> str:
    return " or ".join(map(repr, map(str, reasons)))


# -- routers ---------------------------------------------------------------------------------------


@overload
def router_for(
    policy: Source, *, clock: VirtualClock | None = None, **tiers: Any
) -> Router[Any, Any]: ...
@overload  # for **recorded(…): to a type checker any of them may be named clock
def router_for(policy: Source, **tiers: Scripted) -> Router[Any, Any]: ...
def router_for(policy: Source, *, clock: Any = None, **tiers: Any) -> Router[Any, Any]:
    """Build a Router from a policy, its file or its tree, with every tier scripted.

    A tier that is not a tier stands for its answer to everything, an exception for its fault; one
    that is not named answers None, surely. Models, and what was measured of them, are not needed,
    and the environment is shut out. Where a script takes time, or with ``clock``, the router goes
    by virtual time: tiers run where they are asked, and nobody waits.

    Raises:
        PolicyError: the policy is not valid, or has no such tier.

    >>> policy = {
    ...     "version": 1,
    ...     "name": "one",
    ...     "deadline": "50ms",
    ...     "tiers": [
    ...         {"name": "small", "kind": "external"},
    ...         {"name": "large", "kind": "external"},
    ...     ],
    ...     "escalation": {"thresholds": [0.8]},
    ... }
    >>> with router_for(policy, small=("cat", 0.5), large=scripted(hangs=True)) as router:
    ...     found = router.route("meow")
    >>> assert_disposition(found, "degraded", "deadline")
    >>> round(found.latency.total, 3)
    0.05
    """
    from cascade.router import Router

    time: Any = _virtual(clock, tiers.values())
    found, bound, functions = _parts(policy, tiers, clock=time)
    more: dict[str, Any] = {} if time is None else {"clock": time}
    return Router(found, tiers=bound, env={}, **functions, **more)


def _virtual(clock: Any, tiers: Iterable[Any]) -> VirtualClock | None:
    """Return the clock that all go by; None where nothing takes time."""
    if clock is not None and not callable(getattr(clock, "advance", None)):
        what = f"expected a VirtualClock, got {a_kind(clock)}"
        raise TypeError(f"clock: {what}; a tier of that name cannot be given here")
    scripts = [tier for tier in tiers if isinstance(tier, Scripted)]
    clocks = [clock, *(script.clock for script in scripts)]
    known: list[Any] = [one for one in clocks if one is not None]
    if any(one is not known[0] for one in known):
        raise TypeError("clock: the router and its scripts have different ones; give one to all")
    if known:
        return known[0]  # type: ignore[no-any-return]
    return VirtualClock() if any(script.seconds for script in scripts) else None


@overload
def async_router_for(
    policy: Source, *, loop: VirtualLoop | None = None, **tiers: Any
) -> AsyncRouter[Any, Any]: ...
@overload
def async_router_for(policy: Source, **tiers: Scripted) -> AsyncRouter[Any, Any]: ...
def async_router_for(policy: Source, *, loop: Any = None, **tiers: Any) -> AsyncRouter[Any, Any]:
    """Build an AsyncRouter as :func:`router_for` does.

    It goes by virtual time with ``loop``, or where a VirtualLoop runs; else by real time.

    >>> policy = {
    ...     "version": 1,
    ...     "name": "one",
    ...     "deadline": "50ms",
    ...     "tiers": [
    ...         {"name": "small", "kind": "external"},
    ...         {"name": "large", "kind": "external"},
    ...     ],
    ...     "escalation": {"thresholds": [0.8]},
    ... }
    >>> async def main(loop):
    ...     small = scripted(default=("cat", 0.5), asynchronous=True)
    ...     large = scripted(hangs=True)
    ...     router = async_router_for(policy, loop=loop, small=small, large=large)
    ...     outcome = await router.route("meow")
    ...     assert_disposition(outcome, "degraded", "deadline")
    ...     return outcome.latency.total
    >>> round(run_virtual(main), 3)
    0.05
    """
    from cascade.aio import AsyncRouter

    if loop is not None and not isinstance(loop, VirtualLoop):
        what = f"expected a VirtualLoop, got {a_kind(loop)}"
        raise TypeError(f"loop: {what}; a tier of that name cannot be given here")
    loop = _running() if loop is None else loop
    time: Any = None if loop is None else loop.clock
    found, bound, functions = _parts(policy, tiers, clock=time, asynchronous=True)
    more: dict[str, Any] = {} if loop is None else {"clock": time}
    router: AsyncRouter[Any, Any] = AsyncRouter(found, tiers=bound, env={}, **functions, **more)
    if loop is not None:
        router._service.open()  # noqa: SLF001  no thread may open it: it would not see the time
    return router


def _running() -> VirtualLoop | None:
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:  # none
        return None
    return running if isinstance(running, VirtualLoop) else None


def _parts(
    policy: Any, tiers: dict[str, Any], *, clock: Any, asynchronous: bool = False
) -> tuple[Policy, dict[str, Any], dict[str, Any]]:
    found = _without_models(_policy(policy))
    given = dict.fromkeys((spec.name for spec in found.tiers), None) | tiers
    bound = {}
    for name, tier in given.items():
        target = _tier(tier)
        takes_time = isinstance(target, Scripted) and target.seconds > 0
        awaited = asynchronous and (takes_time or clock is not None)
        bound[name] = Standing(target, clock=clock, awaited=awaited)
    named = {what: getattr(found, what) for what in ("prepare", "postprocess")}
    functions = {what: _as_it_is for what, version in named.items() if version is not None}
    return found, bound, functions


def _policy(given: Any) -> Policy:
    from cascade.policy import Policy
    from cascade.policy.loader import load

    if isinstance(given, Policy):
        return given
    if isinstance(given, Mapping):
        return Policy.from_dict(given)
    return load(Policy, Path(given), {}, absent_ok=True)


def _without_models(policy: Policy) -> Policy:
    """Leave out what was measured of the models, where that is not there."""
    made: Any = policy
    root, profile = policy.root, policy.profile
    if root is not None and profile is not None and not (root / profile).exists():
        made = attrs.evolve(made, profile=None)
    missing = {s.name for s in policy.tiers if s.confidence.calibration} - {*policy.calibrations}
    if not missing:
        return made  # type: ignore[no-any-return]
    tiers = [
        attrs.evolve(spec, confidence=attrs.evolve(spec.confidence, calibration=None))
        if spec.name in missing
        else spec
        for spec in made.tiers
    ]
    return attrs.evolve(made, tiers=tuple(tiers))  # type: ignore[no-any-return]


def _tier(given: Any) -> Any:
    if raises(given):
        return scripted(error=given)
    if callable(given) or callable(getattr(given, "predict", None)):
        return given
    return scripted(default=given if isinstance(given, tuple) else (given, 1.0))


def _as_it_is(x: Any) -> Any:
    return x


# -- assertions ------------------------------------------------------------------------------------


def assert_tier(found: Outcome[Any], tier: str | None) -> None:
    """Assert which tier answered; a failure shows the decision, step by step.

    >>> assert_tier(outcome("cat"), "large")
    Traceback (most recent call last):
      ...
    AssertionError: expected tier 'large', got 'small'
    accepted (confident) by tier 'small', covered by the promise
    ...
    """
    if found.tier != tier:
        names = found._site.tiers  # noqa: SLF001  a router's, or of outcome() above
        said = f"expected tier {tier!r}, got {found.tier!r}"
        if len(names) > 1 and tier not in {*names, None}:
            said += f"; the policy has {', '.join(names)}"
        raise AssertionError(f"{said}\n{found.explain()}")


def assert_disposition(
    found: Outcome[Any], disposition: Disposition | str, reason: Reason | str | None = None
) -> None:
    """Assert how a request ended, and why; a failure shows the decision, step by step.

    >>> assert_disposition(outcome("cat"), "accepted", "confident")
    """
    wanted = (
        _named(Disposition, disposition),
        None if reason is None else _named(Reason, reason),
    )
    got = (found.disposition, None if reason is None else found.reason)
    if wanted != got:
        say = " / ".join
        expected, have = (
            say(str(part) for part in pair if part is not None) for pair in (wanted, got)
        )
        raise AssertionError(f"expected {expected}, got {have}\n{found.explain()}")


def check_tier(tier: Any, batch: Any) -> None:
    """Hold a tier of one's own to what a router expects; ``batch`` is two or more of its rows.

    It is asked for the batch, for each row alone and for the batch once more: it must return one
    value per row, sound confidences, the same for a row whatever it is batched with (up to
    rounding), and leave its input as it was. One that is awaited is asked in an event loop of its
    own, so not from within another.

    Raises:
        AssertionError: with everything that is wrong.
        InputTypeError, InputValueError: ``batch`` is none, or has fewer than two rows.

    >>> import cascade
    >>> check_tier(cascade.tier(lambda xs: [(x, 0.9) for x in xs], returns="pairs"), ["a", "b"])
    >>> check_tier(
    ...     cascade.tier(lambda xs: [("spam", 1.5) for x in xs], returns="pairs"), ["a", "b"]
    ... )
    Traceback (most recent call last):
      ...
    AssertionError: the tier is not ready to serve:
    - row 0: confidences: expected a number in [0, 1]
    - row 1: confidences: expected a number in [0, 1]
    """
    from cascade.inputs import rows_of
    from cascade.tiers.checking import wrongs

    rows, n = rows_of(batch)
    if n < 2:
        raise InputValueError(f"batch: expected two or more rows, got {n or 'none'}")
    try:
        found = list(wrongs(_bound(tier), rows, n))
    except PolicyError as error:
        found = [f"{error}"]
    if found:
        listed = "\n".join(f"- {wrong}" for wrong in found)
        raise AssertionError(f"the tier is not ready to serve:\n{listed}")


def _bound(tier: Any) -> Any:
    """Bind a tier as a router does."""
    from cascade.binding import bind
    from cascade.policy import Policy

    if not callable(getattr(tier, "predict", tier)):
        kind = type(tier).__name__
        raise PolicyError(f"expected a callable or predict(batch, context), got a {kind}")
    only = {"name": "it", "kind": "external"}
    policy = Policy.from_dict({"version": 1, "name": "check", "tiers": [only]})
    return bind(policy, {"it": tier}, None, {}, asynchronous=True)[0]
