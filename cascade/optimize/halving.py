"""Find the best of many settings with few measurements, and change only what pays for itself.

Successive halving (Jamieson & Talwalkar, 'Non-stochastic Best Arm Identification and Hyperparameter
Optimization', AISTATS 2016), keeping a third: all settings are measured briefly, the better third
for longer, until one is left. Settings that are nearly alike are told apart by a rule, not by luck:
each field that differs from the setting in force must gain what makes a change worth it. The one
that is left is then measured against the setting in force on fresh rounds, so that having been
chosen by its luck does not help it. All of that stays within a quarter of what an exhaustive search
would measure, where there are a dozen settings or more. Pure: what is measured comes
from a function, and the search knows neither clock nor model.
"""

from __future__ import annotations

import math
from operator import truediv
from statistics import mean, median
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from cascade.optimize.timing import GAIN, ROUNDS, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FULL", "SHARE", "Choice", "changed", "choose", "halve"]

T = TypeVar("T", bound=attrs.AttrsInstance)
if TYPE_CHECKING:
    Measure = Callable[[Sequence[T], int], Sequence[Sequence[float]]]

SHARE = 0.25
"""Of the measurements of an exhaustive search, at most so many."""
FULL = 1 + 2 + 4 + ROUNDS
"""Rounds of an exhaustive search: each setting as often as here the one that is chosen."""

_RUNGS = ((1, 2, 4), (1, 1, 2))  # fresh rounds; the last is repeated until one is left
_DECIDING = (2 * ROUNDS, ROUNDS, 11)  # fresh rounds of the last comparison: of 11, one may be lost
_MEETING = 4  # in it: what is in force, the winner, and it without each of two changes
_KEEP = 3  # one of so many goes on


@attrs.frozen
class Choice(Generic[T]):
    """What was chosen, and why.

    ``comparison`` is of the search's winner with the setting in force, None where they are one;
    ``measurements`` counts settings × rounds; ``seconds`` holds the medians of ``before`` and
    ``after`` on the fresh rounds, None where there were none.
    """

    before: T
    after: T
    comparison: Comparison | None
    measurements: int
    candidates: int
    seconds: tuple[float, float] | None = None


def choose(before: T, candidates: Sequence[T], measure: Measure[T]) -> Choice[T]:
    """Search ``candidates`` for something measurably better than ``before``.

    ``measure(settings, rounds)`` returns so many numbers per setting, lower being better, taken in
    the same rounds. The winner of the search replaces ``before`` only if it is measurably faster on
    fresh rounds; a field that it changes goes back if the winner gains next to nothing by it.
    """
    spent = 0

    def counted(settings: Sequence[T], rounds: int) -> Sequence[Sequence[float]]:
        nonlocal spent
        spent += len(settings) * rounds
        return measure(settings, rounds)

    everyone = list(dict.fromkeys([before, *candidates]))
    rungs, rounds = _afford(len(everyone))
    winner = halve(everyone, counted, lambda one: 1.0 + GAIN * len(changed(before, one)), rungs)
    if winner == before:
        return Choice(before, before, None, spent, len(everyone))
    spare = int(SHARE * len(everyone) * FULL) - spent - 2 * rounds
    after, found, times = _settled(before, winner, counted, rounds, spare)
    return Choice(before, after, found, spent, len(everyone), times)


def _afford(n: int) -> tuple[Sequence[int], int]:
    """Return the rungs, and the rounds of the last comparison, that the share allows."""
    for rungs in _RUNGS:
        for rounds in _DECIDING:
            if _cost(n, rungs) + _MEETING * rounds <= SHARE * n * FULL:
                return rungs, rounds
    return _RUNGS[-1], _DECIDING[-1]


def _cost(n: int, rungs: Sequence[int]) -> int:
    """Return the measurements that halving n settings takes."""
    cost = rung = 0
    while n > 1:
        cost += n * rungs[min(rung, len(rungs) - 1)]
        n, rung = math.ceil(n / _KEEP), rung + 1
    return cost


def halve(
    candidates: Sequence[T],
    measure: Measure[T],
    weight: Callable[[T], float] = lambda _: 1.0,
    rungs: Sequence[int] = _RUNGS[0],
) -> T:
    """Return the one whose ratio to the others, times its weight, is the least after the last rung.

    The ratios are to those that are left, round by round, so that the machine's moods cancel.

    >>> @attrs.frozen
    ... class Threads:
    ...     n: int
    >>> halve(
    ...     [Threads(n) for n in range(1, 9)],
    ...     lambda some, rounds: [[abs(one.n - 3.0)] * rounds for one in some],
    ... )
    Threads(n=3)
    """
    left, rung = list(candidates), 0
    seen: dict[T, list[float]] = {one: [] for one in left}
    while len(left) > 1:
        rounds = rungs[min(rung, len(rungs) - 1)]
        for one, numbers in zip(left, measure(left, rounds), strict=True):
            seen[one].extend(numbers)
        moods = [mean(numbers) or 1.0 for numbers in zip(*(seen[one] for one in left), strict=True)]
        scores = {one: median(map(truediv, seen[one], moods)) * weight(one) for one in left}
        left = sorted(left, key=scores.__getitem__)[: math.ceil(len(left) / _KEEP)]
        rung += 1
    return left[0]


def changed(before: T, after: T) -> dict[str, tuple[object, object]]:
    """Return the fields that differ, each with what it was and is."""
    names = [field.name for field in attrs.fields(type(before))]
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _settled(
    before: T, winner: T, measure: Measure[T], rounds: int, spare: int
) -> tuple[T, Comparison, tuple[float, float]]:
    """Measure the winner, and where ``spare`` allows it without each change, on fresh rounds."""
    differing = changed(before, winner)
    without = {}
    if len(differing) > 1 and len(differing) * rounds <= spare:
        without = {name: _with(winner, name, was) for name, (was, _) in differing.items()}
    settings = [before, winner, *without.values()]
    numbers = dict(zip(settings, measure(settings, rounds), strict=True))
    found = compare(numbers[winner], numbers[before])
    if not found.faster:
        return before, found, _medians(numbers, before, before)
    return _leanest(before, winner, without, numbers), found, _medians(numbers, before, winner)


def _with(one: T, name: str, value: object) -> T:
    given: Any = one
    made: T = attrs.evolve(given, **{name: value})
    return made


def _leanest(
    before: T, winner: T, without: Mapping[str, T], numbers: Mapping[T, Sequence[float]]
) -> T:
    """Take back the change that gains least, if that is less than a change is worth.

    That the whole is measurably faster has been shown; which part of it gains is a matter of its
    median, for a long mood can hide what a part gains from a test. One at a time: two changes that
    each do without the other may not do without both.
    """
    idle = {}
    for name, one in without.items():
        gain = compare(numbers[winner], numbers[one])
        if gain.ratio > 1.0 - GAIN and compare(numbers[one], numbers[before]).faster:
            idle[name] = gain.ratio
    if not idle:
        return winner
    return without[max(idle, key=idle.__getitem__)]


def _medians(numbers: Mapping[T, Sequence[float]], before: T, after: T) -> tuple[float, float]:
    return median(numbers[before]), median(numbers[after])
