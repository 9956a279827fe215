"""Steering: the load as it is measured, and the operating point that each request goes by.

No thread and no lock: whoever routes a request counts it, and the first one after an interval looks
at the load for all. The counts may miss a beat under threads; nothing hangs on one.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from cascade.control import Controller, Gears, Scaler, strictest_useful
from cascade.types import LoadSnapshot, TierLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cascade.control import Move
    from cascade.load import ServiceTime
    from cascade.policy import Policy
    from cascade.protocols import Occupancy
    from cascade.types import OperatingPoint

__all__ = ["LoadMonitor", "Measured", "Steering", "steering_of"]

_NANO = 1_000_000_000
_FOREVER = 1 << 62
_KEPT = 100  # moves
_log = logging.getLogger("cascade")


class Measured(Protocol):
    """What a lane shows of its load; the simulator's do too."""

    service: ServiceTime

    @property
    def cap(self) -> int:
        """Rows that may run together."""

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""

    def occupancy(self) -> Occupancy:
        """Say what the lane is at."""

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""


class LoadMonitor:
    """Reads the lanes; ``arrived`` says how many requests there have been."""

    def __init__(
        self, names: Sequence[str], lanes: Sequence[Measured], arrived: Callable[[], int], now: int
    ) -> None:
        self._names = names
        self._lanes = lanes
        self._arrived = arrived
        self._last = now, arrived(), self._done()
        self.shortest = _FOREVER  # the shortest wait that a request found, ns

    def _done(self) -> list[tuple[int, int]]:
        """Return how long each tier has run, and how many rows it has answered."""
        return [(lane.service.busy, lane.service.answered) for lane in self._lanes]

    def read(self, now: int) -> LoadSnapshot:
        """Return the load since this was called last."""
        (since, before, then), count = self._last, self._arrived()
        seconds = max(1, now - since) / _NANO
        done = self._done()
        self._last = now, count, done
        shortest, self.shortest = self.shortest, _FOREVER
        tiers = tuple(
            _tier_load(name, lane, (busy - was) / _NANO / seconds, (rows - had) / seconds)
            for name, lane, (busy, rows), (was, had) in zip(
                self._names, self._lanes, done, then, strict=True
            )
        )
        delay = 0.0 if shortest == _FOREVER else shortest / _NANO
        return LoadSnapshot(now, seconds, (count - before) / seconds, delay, tiers)


def _tier_load(name: str, lane: Measured, workers_busy: float, answered: float) -> TierLoad:
    at, service = lane.occupancy(), lane.service
    p50, p95 = service.quantiles() or (None, None)
    return TierLoad(
        name, at.running, at.queued, lane.wait() / _NANO, service.row_seconds(lane.cap), p50, p95,
        at.workers, workers_busy / max(1, at.workers), answered, at.zombies, at.broken,
    )  # fmt: skip


class Steering:
    """Both loops of the controller over one plan: ``point`` says which one a request goes by."""

    def __init__(
        self, points: Sequence[OperatingPoint], controller: Controller, gears: Gears,
        scalers: Mapping[int, Scaler], names: Sequence[str], lanes: Sequence[Measured], now: int,
        kept: int | None = _KEPT,
    ) -> None:  # fmt: skip
        self._arrived = 0
        self.controller = controller
        self.moves: deque[Move] = deque(maxlen=kept)
        self.latest: LoadSnapshot | None = None
        self.monitor = LoadMonitor(names, lanes, lambda: self._arrived, now)
        self._points = points
        self._gears = gears
        self._scalers = scalers
        self._lanes = lanes
        self._wait = lanes[-1].wait
        self._service = lanes[-1].service
        self._interval = round(controller.interval * _NANO)
        self._due = now + self._interval
        self._own = 0  # what a run of the top tier takes, ns
        self._spare = False

    def point(self, now: int, left: int) -> OperatingPoint:
        """Count a request that has ``left`` ns; return its operating point."""
        self._arrived += 1
        if now >= self._due:
            self._look(now)
        wait = self._wait()
        if wait < self.monitor.shortest:
            self.monitor.shortest = wait
        room = left - self._own
        return self._points[
            self._gears.at(self.controller.index, wait, max(room, 0), spare=self._spare)
        ]

    def _look(self, now: int) -> None:
        """Have the controller see the interval that has passed."""
        if now < self._due:  # another thread has looked just now
            return
        self._due = now + self._interval
        load = self.latest = self.monitor.read(now)
        self._own = self._service.curve.time(1)
        moves = [self.controller.step(load)]
        for tier, scaler in self._scalers.items():
            moves.append(scaler.step(load.tiers[tier], now))
            if moves[-1] is not None:
                self._lanes[tier].resize(scaler.workers)
        slack = self._gears.slack
        self._spare = slack is not None and self.controller.spare(slack, load)
        for move in filter(None, moves):
            self.moves.append(move)
            _log.info("load: %s", move)


def steering_of(
    policy: Policy, lanes: Sequence[Measured], crews: Sequence[tuple[int, int]], now: int,
    kept: int | None = _KEPT,
) -> Steering | None:  # fmt: skip
    """Return what follows the load for a policy; None where nothing may.

    ``crews`` are the fewest and most workers of each tier; ``kept`` is how many moves are
    remembered, None for all.
    """
    load, escalation = policy.load, policy.escalation
    scalers = {i: Scaler(low, high) for i, (low, high) in enumerate(crews) if low < high}
    if load is None and not escalation.spare_budget and not scalers:
        return None
    names = [spec.name for spec in policy.tiers]
    return Steering(policy.points, *_loops(policy), scalers, names, lanes, now, kept)


def _loops(policy: Policy) -> tuple[Controller, Gears]:
    """Return the two loops of a policy; without a certificate they stand still."""
    load, certificate = policy.load, policy.certificate
    if certificate is None:
        still = [[1.0] * len(policy.tiers)]
        return Controller(still, 0, 0, 0), Gears(still, 0, 0)
    path = certificate.path
    cheapest = max(0, certificate.certified - 1)
    calls = [point.escalation for point in path]
    may_move = certificate.covers == "adaptive"
    useful = strictest_useful([point.losses for point in path], certificate.certified)
    last = len(path) - 1 if load is not None and load.brownout else cheapest
    strictest = useful if load is not None and may_move else cheapest
    slack = useful if policy.escalation.spare_budget and may_move else None
    settings = {} if load is None else {
        "target": load.target_utilization, "delay": load.target_delay, "interval": load.interval,
    }  # fmt: skip
    return Controller(calls, strictest, cheapest, last, **settings), Gears(
        calls, cheapest, last, slack
    )
