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

__all__ = ["Controller", "Gears", "Move", "Scaler", "strictest_useful"]

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
_PAYS = 1.1  # throughput with one worker more ÷ that before: at least, to keep it
_IDLE = 0.6  # utilisation that the others would have, below which a worker is taken back
_TRIAL = 3  # intervals that a new worker is given to show what it brings; the first one is mixed
_REST = 30, 480  # intervals before a worker that brought nothing is tried again; doubled up to


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


@attrs.define(eq=False)
class Scaler:
    """How many workers a tier has, between two bounds, by measured benefit.

    One more when its queue stands for two intervals; taken back when that did not raise the
    throughput (where cores or an interpreter lock bound it, it does not), and not tried again for a
    while; one less after three calm intervals.

    >>> from cascade.types import TierLoad
    >>> scaler = Scaler(low=1, high=4)
    >>> busy = TierLoad("large", delay=0.2, workers=1, utilization=1.0, answered=50.0)
    >>> scaler.step(busy), scaler.step(busy).after
    (None, 2)
    """

    low: int
    high: int
    delay: float = 0.005
    workers: int = attrs.field(init=False)
    _pressed: int = attrs.field(init=False, default=0)
    _calm: int = attrs.field(init=False, default=0)
    _before: float = attrs.field(init=False, default=0.0)  # throughput before the latest was added
    _trial: int = attrs.field(init=False, default=0)  # intervals that are left of it
    _best: float = attrs.field(init=False, default=0.0)  # throughput seen in the trial
    _rest: int = attrs.field(init=False, default=0)
    _pause: int = attrs.field(init=False, default=_REST[0])

    def __attrs_post_init__(self) -> None:
        """Begin with as few as there may be."""
        self.workers = self.low

    def step(self, tier: TierLoad, at: int = 0) -> Move | None:
        """Take in an interval; return the change that it calls for."""
        stands = tier.utilization > _BUSY and tier.delay > self.delay
        self._pressed = self._pressed + 1 if stands else 0
        if self._trial:
            return self._try(tier, at, stands=stands)
        self._rest = max(0, self._rest - 1)
        if self._pressed >= 2 and self.workers < self.high and not self._rest:
            self._before, self._trial, self._best = tier.answered, _TRIAL, 0.0
            return self._change(tier, at, 1, f"a queue of {tier.delay * 1e3:.3g} ms stands")
        left = self.workers - 1
        spare = left >= self.low and tier.utilization * self.workers < _IDLE * left
        self._calm = self._calm + 1 if spare else 0
        if self._calm < _CALM:
            return None
        return self._change(tier, at, -1, f"utilisation {tier.utilization:.0%}")

    def _try(self, tier: TierLoad, at: int, *, stands: bool) -> Move | None:
        """See whether the latest worker is worth it, while there is work for all of them."""
        self._trial -= 1
        if self._trial < _TRIAL - 1:
            self._best = max(self._best, tier.answered)
        if not stands:  # it has done its work
            self._trial, self._pause = 0, _REST[0]
            return None
        if self._trial or self._best >= _PAYS * self._before:
            return None
        self._rest, self._pause = self._pause, min(2 * self._pause, _REST[1])
        why = f"throughput {self._best:.3g}/s, {self._before:.3g}/s without the last one"
        return self._change(tier, at, -1, why)

    def _change(self, tier: TierLoad, at: int, by: int, why: str) -> Move:
        self._calm = self._pressed = 0
        move = Move(at, f"workers of {tier.tier}", self.workers, self.workers + by, why)
        self.workers += by
        return move
