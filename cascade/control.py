"""The controller, pure: which operating point the load allows.

Two loops share one path of points. The slow one looks at the load about once a second and takes
the most accurate point that keeps every tier under the target utilisation, as predicted from the
arrival rate, the calls per request that the certificate measured at each point, and the tiers'
service times. A queue whose shortest delay of an interval is over its target is pressure whatever
was predicted (CoDel's signal: Nichols and Jacobson, ACM Queue 10:5, 2012): it takes the extra calls
of a stricter point back and corrects the prediction. It eases at once, grows stricter after three
calm intervals, and moves once per interval at most.

The fast one chooses for each request by what stands in the top tier's queue: bursts are over before
the slow one has seen them. Points beyond the certified ones are brownout: the fast loop goes there
while a queue stands, the slow one when that is not enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cascade.types import LoadSnapshot, TierLoad

__all__ = ["Controller", "Gears", "Move", "strictest_useful"]

_CALM = 3  # intervals with room to spare before the point grows stricter
_DEAD = 0.85  # of its bound: what a stricter point may use at most, lest it is left at once
_SMOOTH = 0.5  # weight of what was before, per interval, in the arrival rate
_FORGET = 0.98  # per interval, of the correction that pressure has taught
_BUSY = 0.9  # utilisation of a tier that a queue really stands before
_STOP = 1.2  # calls of one stop of the slow loop ÷ those of the next
_HALF = 0.5  # of what the cheapest certified point loses: won back by the strictest useful one
_LEVELS = 12  # steps in which the fast loop reads the queue
_COMFORT = 1 / 3  # share of a request's slack that may go in waiting before the point eases
_FAINT = 0.5  # of the calls, where the wait takes all the slack
_FULL = 1 / _FAINT  # utilisation that the fast loop can take off by itself


@attrs.frozen
class Move:
    """What the controller changed: from what to what, when (ns), and why.

    ``what`` is ``point``, and the numbers indices on the path; or ``workers of`` a tier.

    >>> print(Move(0, "point", 47, 53, "utilisation 270%"))
    point 47 → 53: utilisation 270%
    """

    at: int
    what: str
    before: int
    after: int
    reason: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.what} {self.before} → {self.after}: {self.reason}"


def strictest_useful(losses: Sequence[float], certified: int, share: float = _HALF) -> int:
    """Return the cheapest point that loses at most a share of what the cheapest certified one does.

    Stricter ones cost calls and win next to nothing back: on FrugalML's commands the first half
    costs 0.04 calls per request, the second 0.67.

    >>> strictest_useful([0, 1, 2, 10, 50], certified=4, share=0.1)
    1
    """
    allowed = share * losses[certified - 1] if certified else 0.0
    return max((j for j in range(certified) if losses[j] <= allowed), default=0)


@attrs.define(eq=False)
class Controller:
    """The slow loop, along a path of operating points, strictest first.

    ``calls`` (points × tiers) is how often a request calls each tier at each point; those from
    ``strictest`` to ``last`` may be used, up to ``cheapest`` they keep the promise; ``target``
    bounds the utilisation inside the promise, ``delay`` (s) the shortest queue of an interval, and
    ``interval`` is its length (s).

    >>> from cascade.types import LoadSnapshot, TierLoad
    >>> controller = Controller([(1, 1.0), (1, 0.3), (1, 0.1)], strictest=0, cheapest=1, last=2)
    >>> tiers = TierLoad("small"), TierLoad("large", seconds=0.1, workers=1)
    >>> controller.step(LoadSnapshot(0, 1.0, rate=90.0, delay=0.0, tiers=tiers)).reason
    'utilisation 270%'
    """

    calls: Sequence[Sequence[float]]
    strictest: int
    cheapest: int
    last: int
    target: float = 0.7
    delay: float = 0.005
    interval: float = 1.0
    index: int = attrs.field(init=False)
    _rate: float = attrs.field(init=False, default=0.0)
    _strain: float = attrs.field(init=False, default=1.0)  # true ÷ predicted utilisation
    _stops: list[int] = attrs.field(init=False)
    _calm: list[int] = attrs.field(init=False, factory=list)  # what calm intervals asked for

    def __attrs_post_init__(self) -> None:
        """Begin at the cheapest certified point; mark the stops, far enough apart to matter."""
        self.index = self.cheapest
        top = [point[-1] for point in self.calls]
        self._stops, at = [self.strictest], top[self.strictest]
        for j in range(self.strictest + 1, self.last + 1):
            if j in {self.cheapest, self.last} or at > _STOP * top[j]:
                self._stops.append(j)
                at = top[j]

    def step(self, load: LoadSnapshot) -> Move | None:
        """Take in an interval; return the move that it calls for."""
        periods = max(1, round(load.seconds / self.interval))  # several, where nothing came
        kept = _SMOOTH**periods if self._rate else 0.0
        self._rate = kept * self._rate + (1.0 - kept) * load.rate
        self._strain = max(1.0, self._strain * _FORGET**periods)
        if self.index < self.cheapest and load.delay > self.delay and self._queue_stands(load):
            return self._take_back(load)
        used = self.utilization(self.index, load)
        if used > self._bound(self.index):
            return self._move(load, self._fitting(load), f"utilisation {used:.0%}")
        wanted = self._fitting(load, _DEAD)
        if wanted >= self.index:
            self._calm.clear()
            return None
        self._calm += [wanted] * periods
        if len(self._calm) < _CALM:
            return None
        return self._move(load, max(self._calm[-_CALM:]), f"utilisation {used:.0%}, room to spare")

    def utilization(self, index: int, load: LoadSnapshot) -> float:
        """Predict, for a point, the utilisation of the busiest tier that a move could relieve."""
        least, shares = self.calls[self.last], []
        for now, always, tier in zip(self.calls[index], least, load.tiers, strict=True):
            if now > always:
                shares.append(self._rate * now * tier.seconds / max(1, tier.workers))
        return self._strain * max(shares, default=0.0)

    def spare(self, index: int, load: LoadSnapshot) -> bool:
        """Whether there is capacity for every request to go by this point."""
        return self.utilization(index, load) <= self.target

    def _queue_stands(self, load: LoadSnapshot) -> bool:
        def relieved(j: int, tier: TierLoad) -> bool:
            return self.calls[self.index][j] > self.calls[self.last][j] and tier.utilization > _BUSY

        return any(relieved(j, tier) for j, tier in enumerate(load.tiers))

    def _bound(self, index: int) -> float:
        """Return what a point may use: in brownout, what the fast loop cannot take off."""
        return self.target if index < self.cheapest else _FULL

    def _take_back(self, load: LoadSnapshot) -> Move | None:
        """Give the extra calls of a stricter point up: the queue says that the sum was wrong."""
        predicted = self.utilization(self.index, load)
        if 0.0 < predicted < 1.0:
            self._strain /= predicted
        return self._move(load, self.cheapest, f"queue delay {load.delay * 1e3:.3g} ms")

    def _fitting(self, load: LoadSnapshot, share: float = 1.0) -> int:
        """Return the most accurate point that keeps every tier under its bound."""
        for j in self._stops:
            if self.utilization(j, load) <= share * self._bound(j):
                return j
        return self.last

    def _move(self, load: LoadSnapshot, index: int, why: str) -> Move | None:
        self._calm.clear()
        if index == self.index:
            return None
        move = Move(load.at, "point", self.index, index, why)
        self.index = index
        return move


@attrs.frozen(eq=False)
class Gears:
    """The fast loop: for a base point and what stands in the top tier's queue, the point to use.

    ``slack`` is how strict a request may be that finds the queue empty and capacity to spare; None:
    no stricter than the base. The arguments are else those of :class:`Controller`.

    >>> gears = Gears([(1, 1.0), (1, 0.4), (1, 0.2)], cheapest=1, last=2)
    >>> gears.at(1, wait=0, room=300), gears.at(1, wait=300, room=300)
    (1, 2)
    """

    calls: Sequence[Sequence[float]]
    cheapest: int
    last: int
    slack: int | None = None
    _tables: dict[tuple[int, bool], tuple[int, ...]] = attrs.field(init=False, factory=dict)

    def at(self, base: int, wait: int, room: int, *, spare: bool = False) -> int:
        """Return the point for a request that would wait so long (ns) of the slack it has."""
        table = self._tables.get((base, spare))
        if table is None:
            made = tuple(self._shift(base, i / _LEVELS, spare=spare) for i in range(_LEVELS + 1))
            table = self._tables[base, spare] = made
        if wait <= 0:
            return table[0]
        return table[_LEVELS if wait >= room else _LEVELS * wait // room]

    def _shift(self, base: int, share: float, *, spare: bool) -> int:
        """Go from the strictest that the request may use to the base, and on to fewer calls."""
        empty = self.slack if spare and self.slack is not None else self.cheapest
        begin, settled = min(base, empty), max(base, self.cheapest)
        calls = [point[-1] for point in self.calls]
        if share <= _COMFORT:
            wanted = calls[begin] + (calls[settled] - calls[begin]) * share / _COMFORT
        else:
            left = 1.0 - (1.0 - _FAINT) * (share - _COMFORT) / (1.0 - _COMFORT)
            wanted = calls[settled] * left
        found = (j for j in range(begin, self.last) if calls[j] <= wanted + 1e-12)
        return next(found, self.last)
