"""Scripted tiers, and how they stand in for those of a policy: models, lanes and all.

A stand-in is bound as a tier of one's own would be, but for what only the real one needs: its score
(a script says how sure it is), its process, and in virtual time its workers: a call then runs where
it is made, and time passes by as much as the script says, at most until the deadline.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.binding import StandIn, bind_python, check_version
from cascade.errors import TierError, TierTimeout
from cascade.lanes.inline import InlineLane
from cascade.policy.settings import ConfidenceSettings
from cascade.protocols import BoundTier
from cascade.tiers.awaited import AsyncTier
from cascade.tiers.python import PythonTier, each, is_async
from cascade.types import Prediction, a_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.fitting.recording import Recording
    from cascade.protocols import Context, Rows
    from cascade.virtual import VirtualClock

__all__ = [
    "FOREVER", "NOTHING", "Awaited", "Scripted", "Standing", "raises", "recorded", "scripted",
]  # fmt: skip

FOREVER = 365 * 24 * 3600.0
NOTHING: Any = object()
"""No default: what the script lacks is a mistake of the test."""


class Scripted:
    """A tier that says what it was told to; ``calls`` are the inputs that it was asked.

    Made by :func:`cascade.testing.scripted`. With ``asynchronous`` it is for an AsyncRouter, and
    its ``seconds`` pass in the event loop: in a :class:`cascade.testing.VirtualLoop`, at once.

    >>> from cascade.testing import scripted
    >>> tier = scripted({"meow": ("cat", 0.9)}, default=("dog", 0.5))
    >>> tier.predict(["meow", "wuff"], None).values, tier.calls
    (['cat', 'dog'], ['meow', 'wuff'])
    """

    def __init__(
        self, answers: Mapping[Any, Any] | Callable[[Any], Any] | None, default: Any,
        seconds: float, clock: VirtualClock | None, error: Any, version: str | None,
    ) -> None:  # fmt: skip
        self._answers = {} if answers is None else answers
        self._default = None if answers is None and default is NOTHING else default
        self.seconds = seconds
        self.error = error
        self.version = version
        self.clock = clock
        self.calls: list[Any] = []
        self.times: Callable[[Any], float] | None = None  # of each row, where they differ

    def takes(self, batch: Any) -> float:
        """Return how long a call for these rows takes: a time of its own each, or one for all."""
        return self.seconds if self.times is None else sum(map(self.times, each(batch)))

    def _answer(self, x: Any) -> Any:
        self.calls.append(x)
        if self.error is not None:
            raise self.error
        answer = self._looked_up(x)
        if raises(answer):
            raise answer
        return answer

    def _looked_up(self, x: Any) -> Any:
        if callable(self._answers):
            try:
                return self._answers(x)
            except StopIteration:
                raise TierError("the script has run out: it was asked once more") from None
        if _can_be_key(x) and x in self._answers:
            return self._answers[x]
        if self._default is not NOTHING:
            return self._default
        known = f"it has {len(self._answers)}, and no default="
        if not _can_be_key(x):
            known += f"; {a_kind(x)} cannot be looked up, give a function"
        raise TierError(f"the script has no answer to this input ({known})")

    def answer(self, batch: Any) -> Prediction:
        """Answer each row by the script, in no time."""
        pairs = [
            found if isinstance(found, tuple) and len(found) == 2 else (found, None)
            for found in map(self._answer, each(batch))
        ]
        values, sure = [value for value, _ in pairs], [confidence for _, confidence in pairs]
        if all(confidence is None for confidence in sure):
            return Prediction(values)
        return Prediction(values, confidences=[math.nan if c is None else c for c in sure])

    async def answer_in_time(self, batch: Any) -> Prediction:
        """Answer each row by the script, after its time."""
        try:
            return self.answer(batch)
        finally:
            await asyncio.sleep(self.takes(batch))

    def predict(self, batch: Any, context: Any) -> Prediction:  # noqa: ARG002  the protocol
        """Answer each row by the script."""
        try:
            return self.answer(batch)
        finally:  # what fails takes its time too
            if self.clock is not None:
                self.clock.advance(self.takes(batch))

    def __repr__(self) -> str:
        """Say how often it was asked."""
        return f"{type(self).__name__}(calls={len(self.calls)})"


class Awaited(Scripted):
    """A script for an AsyncRouter."""

    async def predict(self, batch: Any, context: Any) -> Prediction:  # type: ignore[override]  # noqa: ARG002
        """Answer each row by the script, after its time."""
        return await self.answer_in_time(batch)


def scripted(
    answers: Mapping[Any, Any] | Callable[[Any], Any] | None = None, *, default: Any = NOTHING,
    seconds: float = 0.0, clock: VirtualClock | None = None,
    error: BaseException | type[BaseException] | None = None,
    hangs: bool = False, asynchronous: bool = False, version: str | None = None,
) -> Scripted:  # fmt: skip
    """Make a tier that answers by a script: input → value, or (value, confidence), or an exception.

    ``answers`` is a mapping or a function; ``default`` answers what a mapping lacks, without it
    that is a fault. ``error`` is raised for every input, and so is an answer that is an exception.
    ``seconds`` is how long a call takes, and ``hangs`` is for ever: in virtual time, or
    asynchronously.

    Raises:
        TypeError, ValueError: an argument is not what it should be.

    >>> from cascade.testing import scripted
    >>> tier = scripted(default=("spam", 0.7))
    >>> tier.predict(["x"], None).confidences
    [0.7]
    """
    given: Any = answers
    if given is not None and not isinstance(given, Mapping) and not callable(given):
        what = f"expected a mapping or a function, got {a_kind(given)}"
        raise TypeError(f"scripted(): answers: {what}; for one answer to everything: default=")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"scripted(): seconds: expected a number, got {a_kind(seconds)}")
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"scripted(): seconds: expected 0 or more, got {seconds!r}")
    kind = error if isinstance(error, type) else type(error)
    if error is not None and not issubclass(kind, BaseException):
        raise TypeError(f"scripted(): error: expected an exception, got a {kind.__name__}")
    made = Awaited if asynchronous or hangs else Scripted
    return made(answers, default, FOREVER if hangs else seconds, clock, error, version)


def raises(given: Any) -> bool:
    """Whether what a tier is to say is an exception, or a kind of them."""
    if isinstance(given, type):
        return issubclass(given, BaseException)
    return isinstance(given, BaseException)


def _can_be_key(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:  # also of a tuple that holds a list
        return False
    return isinstance(x, Hashable)


# -- from a recording ------------------------------------------------------------------------------


def recorded(
    recording: Any, *, asynchronous: bool = False, timed: bool = True
) -> dict[str, Scripted]:
    """Make a tier of each tier of a recording; the input is the number of a row.

    Where every row has its own ``input``, that is the input instead. A dict is found by the
    recording's features, ``x.<name>``. To be asked for another row is a fault of the tier.

    A row takes the ``<tier>.seconds`` that were recorded, in virtual time as ``scripted(seconds=)``
    does, and a batch the sum; none with ``timed=False``.

    >>> from cascade.testing import recorded
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
    row_of = _finder(held)
    found = {}
    for tier in held.tiers:
        values = [None] * held.n if tier.value is None else tier.value.tolist()
        known = tier.margin if tier.confidence is None else tier.confidence
        sure = [None] * held.n if known is None else known.tolist()
        rows = list(zip(values, sure, strict=True))
        taken = np.zeros(1) if tier.seconds is None or not timed else tier.seconds
        answers, longest = partial(_answer_of, rows, row_of), float(taken.max())
        script = scripted(answers, asynchronous=asynchronous, seconds=longest)
        if script.seconds:
            script.times = partial(_time_of, taken.tolist(), row_of)
        found[tier.name] = script
    return found


def _answer_of(rows: list[Any], row_of: Callable[[Any], int], x: Any) -> Any:
    return rows[row_of(x)]


def _time_of(taken: list[float], row_of: Callable[[Any], int], x: Any) -> float:
    try:
        return taken[row_of(x)]
    except TierError:  # no such row: the answer says so
        return 0.0


def _finder(held: Recording) -> Callable[[Any], int]:
    """Return what finds an input's row: by its features, its text, or its number."""
    names, n = tuple(held.features), held.n
    texts = [] if held.text is None else held.text.tolist()
    by_text = {text: i for i, text in enumerate(texts)}
    columns = [held.features[name].tolist() for name in names]
    by_features = {row: i for i, row in enumerate(zip(*columns, strict=True))}

    def row_of(x: Any) -> int:
        row: Any
        if isinstance(x, Mapping):
            if not names:
                raise TierError("a dict is found by its features, x.<name>; the recording has none")
            missing = [name for name in names if name not in x]
            if missing:
                raise TierError(f"a dict is found by its features: the dict lacks {missing[0]!r}")
            if len(by_features) < n:
                raise TierError("the recording has rows whose features are the same")
            row = by_features.get(tuple(float(x[name]) for name in names))
        elif len(by_text) == n:
            row = by_text.get(x) if isinstance(x, str) else None
        else:
            row = x if isinstance(x, (int, np.integer)) and 0 <= x < n else None
        if row is None:
            what = "its inputs" if len(by_text) == n else f"their numbers, 0 to {n - 1}"
            raise TierError(f"no such row in the recording; rows are asked for by {what}")
        return int(row)

    return row_of


# -- in the place of a policy's tiers --------------------------------------------------------------


class Standing(StandIn):
    """A script, or a tier of one's own, in the place of whatever the policy names.

    With ``clock`` in virtual time; with ``awaited`` a script is, whether it says so or not.
    """

    def __init__(self, target: Any, *, clock: Any = None, awaited: bool = False) -> None:
        self._target = target
        self._clock = clock
        self._awaited = awaited

    def bound(self, spec: Any, classes: Sequence[Any] | None, *, asynchronous: bool) -> BoundTier:
        """Return the tier as the lanes run it."""
        target = self._target
        if isinstance(target, Scripted):
            check_version(spec, target)
            spec = attrs.evolve(spec, confidence=ConfidenceSettings())
            if asynchronous and (self._awaited or is_async(target)):
                return _AwaitedScript(spec, target, classes)
            if not is_async(target) or target.seconds == FOREVER:
                tier: BoundTier = _ScriptTier(spec, target, classes)
                return tier if self._clock is None else _InVirtualTime(tier, self._clock, target)
        tier = bind_python(spec, target, classes, asynchronous=asynchronous)
        if self._clock is None or is_async(target):
            return tier
        return _InVirtualTime(tier, self._clock)


class _ScriptTier(PythonTier):
    """A script as the lanes run it; alone, a row is asked for as it is."""

    def run(self, job: Any) -> Prediction:
        target: Any = self._target
        found: Prediction = target.answer([job.row])
        return found

    def run_rows(self, rows: Any, n: int, context: Context) -> Prediction:  # noqa: ARG002
        target: Any = self._target
        found: Prediction = target.answer(rows)
        return found


class _AwaitedScript(AsyncTier):
    """The same, awaited."""

    async def predict_async(self, job: Any) -> Prediction:
        return await self.predict_rows_async([job.row], job)

    async def predict_rows_async(self, rows: Any, context: Context) -> Prediction:  # noqa: ARG002
        target: Any = self._target
        found: Prediction = await target.answer_in_time(rows)
        return found


class _InVirtualTime(BoundTier):
    """A tier whose runs take virtual time, and end at the deadline."""

    can_stop = True

    def __init__(self, tier: BoundTier, clock: Any, script: Scripted | None = None) -> None:
        self._tier, self._clock, self._script = tier, clock, script
        self.name, self.silent, self.batches = tier.name, tier.silent, tier.batches

    def own_lane(self, *args: Any, **settings: Any) -> InlineLane:
        """Return what runs it, whatever the policy says."""
        kept = {name: settings[name] for name in ("cap", "pad")}
        return InlineLane(*args, watchdog=_Nobody(), **kept)  # type: ignore[arg-type]

    def run(self, job: Any) -> Any:
        try:
            return self._tier.run(job)
        finally:
            self._pass(job, [job.row])

    def run_rows(self, rows: Any, n: int, context: Context) -> Any:
        try:
            return self._tier.run_rows(rows, n, context)
        finally:
            self._pass(context, rows)

    def read(self, raw: Any) -> tuple[Any, float | None]:
        return self._tier.read(raw)

    def read_rows(self, raw: Any, n: int) -> Rows:
        return self._tier.read_rows(raw, n)

    def remarks(self, raw: Any, i: int = 0) -> tuple[bool, float | None]:
        return self._tier.remarks(raw, i)

    def _pass(self, context: Any, rows: Any) -> None:
        """Let the script's time pass; at the deadline nobody waits any more."""
        left = context.remaining()
        takes = 0.0 if self._script is None else self._script.takes(rows)
        if takes > left or left < 0.0:
            if left >= 0.0:
                self._clock.advance(left + 1e-9)  # who waits wakes when it has passed
            stop = getattr(context, "stop", None)
            if stop is not None:
                stop()
            raise TierTimeout("its time was over", tier=self.name)
        if takes:
            self._clock.advance(takes)


class _Nobody:
    """A watchdog that has nothing to do: runs in virtual time end themselves."""

    @staticmethod
    def over(handle: Any, until: int) -> Any:  # noqa: ARG004  the protocol
        return nullcontext()
