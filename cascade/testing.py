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
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from cascade.errors import InputValueError, PolicyError
from cascade.outcome import Outcome, next_serial
from cascade.types import Disposition, Finish, Mode, Prediction, Reason, Site
from cascade.virtual import VirtualClock, VirtualLoop, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cascade.aio import AsyncRouter
    from cascade.policy import Policy
    from cascade.router import Router

__all__ = [
    "Scripted", "VirtualClock", "VirtualLoop", "assert_disposition", "assert_tier",
    "async_router_for", "check_tier", "outcome", "recorded", "router_for", "run_virtual",
    "scripted",
]  # fmt: skip

_FOREVER = 365 * 24 * 3600.0


def outcome(
    value: Any,
    *,
    tier: str = "small",
    confidence: float | None = None,
    disposition: Disposition | str = Disposition.ACCEPTED,
    reason: Reason | str = Reason.CONFIDENT,
    covered: bool = True,
) -> Outcome[Any]:
    """Make an outcome as a router would, for a test of what consumes it.

    >>> outcome("cat", confidence=0.9).confidence
    0.9
    """
    finish = Finish(Disposition(disposition), Reason(reason), tier, covered)
    site = Site("0" * 32, Mode.ENFORCE, (tier,), 0)
    return Outcome(next_serial(), value, confidence, None, (finish, 0, 0, 0, ()), site)


# -- tiers -----------------------------------------------------------------------------------------


class Scripted:
    """A tier that says what it was told to; ``calls`` are the inputs that it was asked.

    Made by :func:`scripted`. With ``asynchronous`` it is for an AsyncRouter, and its ``seconds``
    pass in the event loop: in a :class:`VirtualLoop`, at once.
    """

    def __init__(
        self, answers: Mapping[Any, Any] | Callable[[Any], Any] | None, default: Any,
        seconds: float, clock: VirtualClock | None, error: BaseException | None,
        version: str | None,
    ) -> None:  # fmt: skip
        self._answers = {} if answers is None else answers
        self._default = default
        self.seconds = seconds
        self.error = error
        self.version = version
        self._clock = clock
        self.calls: list[Any] = []

    def _answer(self, x: Any) -> Any:
        self.calls.append(x)
        if self.error is not None:
            raise self.error
        if callable(self._answers):
            answer = self._answers(x)
        else:
            known = isinstance(x, Hashable) and x in self._answers
            answer = self._answers[x] if known else self._default
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def predict(self, batch: Any, context: Any) -> Prediction:  # noqa: ARG002  the protocol
        """Answer each row by the script."""
        answers = [self._answer(x) for x in batch]
        if self._clock is not None:
            self._clock.advance(self.seconds)
        return _prediction(answers)

    def __repr__(self) -> str:
        """Say how often it was asked."""
        return f"{type(self).__name__}(calls={len(self.calls)})"


class _Awaited(Scripted):
    async def predict(self, batch: Any, context: Any) -> Prediction:  # type: ignore[override]  # noqa: ARG002
        answers = [self._answer(x) for x in batch]
        await asyncio.sleep(self.seconds)
        return _prediction(answers)


def _prediction(answers: list[Any]) -> Prediction:
    pairs = [a if isinstance(a, tuple) and len(a) == 2 else (a, None) for a in answers]
    sure = [confidence for _, confidence in pairs]
    values = [value for value, _ in pairs]
    if all(confidence is None for confidence in sure):
        return Prediction(values)
    return Prediction(values, confidences=[float("nan") if c is None else c for c in sure])


def scripted(
    answers: Mapping[Any, Any] | Callable[[Any], Any] | None = None, *, default: Any = None,
    seconds: float = 0.0, clock: VirtualClock | None = None, error: BaseException | None = None,
    hangs: bool = False, asynchronous: bool = False, version: str | None = None,
) -> Scripted:  # fmt: skip
    """Make a tier that answers by a script: input → value, or (value, confidence), or an exception.

    ``answers`` is a mapping or a function; ``default`` answers what it lacks. ``error`` is raised
    for every input. ``seconds`` is how long a call takes: on a VirtualClock, or asynchronously.
    ``hangs`` is for ever, and asynchronous.

    >>> tier = scripted(default=("spam", 0.7))
    >>> tier.predict(["x"], None).confidences
    [0.7]
    """
    kind = _Awaited if asynchronous or hangs else Scripted
    return kind(answers, default, _FOREVER if hangs else seconds, clock, error, version)


def recorded(recording: Any, *, asynchronous: bool = False) -> dict[str, Scripted]:
    """Make a tier of each tier of a recording; the input is the number of a row.

    Where every row has its own ``input``, that is the input instead.

    >>> tiers = recorded(
    ...     {
    ...         "truth": ["cat", "dog"],
    ...         "small.value": ["cat", "cat"],
    ...         "small.confidence": [0.9, 0.4],
    ...         "large.value": ["cat", "dog"],
    ...     }
    ... )
    >>> tiers["small"].predict([1], None).values
    ['cat']
    """
    from cascade.fitting.recording import Recording

    held = Recording.of(recording)
    keys: Iterable[Any] = range(held.n)
    if held.text is not None and len(set(held.text.tolist())) == held.n:
        keys = held.text.tolist()
    keys = list(keys)
    found = {}
    for tier in held.tiers:
        values = [None] * held.n if tier.value is None else tier.value.tolist()
        sure = [None] * held.n if tier.confidence is None else tier.confidence.tolist()
        script = dict(zip(keys, zip(values, sure, strict=True), strict=True))
        found[tier.name] = scripted(script, asynchronous=asynchronous)
    return found


# -- routers ---------------------------------------------------------------------------------------


def router_for(
    policy: Policy | Mapping[str, Any] | str | Path, *, clock: VirtualClock | None = None,
    **tiers: Any,
) -> Router[Any, Any]:  # fmt: skip
    """Build a Router from a policy, its file or its tree, with every tier scripted.

    A tier that is not a tier stands for its answer to everything; one that is not named answers
    None, surely. Models are not needed, and the environment is shut out.

    Raises:
        PolicyError: the policy is not valid, or has no such tier.
    """
    from cascade.router import Router

    found, bound, functions = _parts(policy, tiers)
    more: dict[str, Any] = {} if clock is None else {"clock": clock}
    return Router(found, tiers=bound, env={}, **functions, **more)


def async_router_for(
    policy: Policy | Mapping[str, Any] | str | Path, *, loop: VirtualLoop | None = None,
    **tiers: Any,
) -> AsyncRouter[Any, Any]:  # fmt: skip
    """Build an AsyncRouter as :func:`router_for` does; with ``loop`` it goes by virtual time.

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

    found, bound, functions = _parts(policy, tiers, awaited=loop is not None)
    more: dict[str, Any] = {} if loop is None else {"clock": loop.clock}
    router: AsyncRouter[Any, Any] = AsyncRouter(found, tiers=bound, env={}, **functions, **more)
    if loop is not None:
        router._service.open()  # noqa: SLF001  no thread may open it: it would not see the time
    return router


def _parts(
    policy: Any, tiers: dict[str, Any], *, awaited: bool = False
) -> tuple[Policy, dict[str, Any], dict[str, Any]]:
    from cascade.policy import Policy

    if isinstance(policy, Mapping):
        policy = Policy.from_dict(policy)
    elif not isinstance(policy, Policy):
        policy = Policy.from_yaml(policy, env={})
    given = dict.fromkeys((spec.name for spec in policy.tiers), None) | tiers
    bound = {name: _tier(tier, awaited=awaited) for name, tier in given.items()}
    named = {what: getattr(policy, what) for what in ("prepare", "postprocess")}
    return (
        policy,
        bound,
        {what: _as_it_is for what, version in named.items() if version is not None},
    )


def _tier(given: Any, *, awaited: bool) -> Any:
    if callable(given) or callable(getattr(given, "predict", None)):
        return given
    answer = given if isinstance(given, tuple) else (given, 1.0)
    return scripted(default=answer, asynchronous=awaited)


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
        raise AssertionError(f"expected tier {tier!r}, got {found.tier!r}\n{found.explain()}")


def assert_disposition(
    found: Outcome[Any], disposition: Disposition | str, reason: Reason | str | None = None
) -> None:
    """Assert how a request ended, and why; a failure shows the decision, step by step.

    >>> assert_disposition(outcome("cat"), "accepted", "confident")
    """
    wanted = (Disposition(disposition), None if reason is None else Reason(reason))
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
        InputTypeError, InputValueError: ``batch`` is none, or has no row.

    >>> import cascade
    >>> check_tier(cascade.tier(lambda xs: [(x, 0.9) for x in xs], returns="pairs"), ["a", "b"])
    >>> check_tier(
    ...     cascade.tier(lambda xs: [("spam", 1.5) for x in xs], returns="pairs"), ["a", "b"]
    ... )
    Traceback (most recent call last):
      ...
    AssertionError: the tier is not ready to serve:
    - confidences: expected numbers in [0, 1]
    """
    from cascade.inputs import rows_of
    from cascade.tiers.checking import wrongs

    rows, n = rows_of(batch)
    if n == 0:
        raise InputValueError("batch: expected two or more rows, got none")
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
