"""What tune can aim at, and how each is measured: p50, p99 under a rate, throughput, CPU per call.

All are seconds, and less is better: of a call, of the slowest hundredth of calls, per row, of CPU.
"""

from __future__ import annotations

import heapq
import threading
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.optimize.timing import turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cascade.optimize.data import Data
    from cascade.optimize.running import Running

__all__ = ["OBJECTIVES", "Meter", "queue_p99"]

OBJECTIVES = ("p50", "p99", "throughput", "cpu")
"""Of single requests; of requests at a rate; of rows, all workers busy; of a call at a rate."""

RATE = 500.0
"""Requests per second that CPU is measured at, where none is named: one each 2 ms."""

_MOMENT = 0.02  # s of work per round: as long as what several threads do needs
_PARTS = 5  # of a round of single calls, each in turn with the others: some moods last 20 ms
_BREATH = 0.05  # s between two rounds, which are not all to meet one mood
_MANY = 2_000  # calls per turn, at most
_ARRIVALS = 2_000
_CALLS = 8  # per turn, at a rate
_SETTLE = 0.02  # s until the threads of a session that spins are asleep


class Meter:
    """Measures settings of one tier in turns; give it to :func:`~cascade.optimize.halving.choose`.

    ``open_one(setting)`` returns the opened tier; a setting has ``workers``, ``cap`` and
    ``spinning``.
    """

    def __init__(
        self, open_one: Callable[[Any], Running], data: Data, objective: str, rate: float | None
    ) -> None:
        self._open, self._data, self._rate = open_one, data, rate or RATE
        self._objective = objective
        gaps = np.random.default_rng(0).exponential(1.0 / self._rate, _ARRIVALS)
        self._arrivals = gaps.cumsum().tolist()

    def __call__(self, settings: Sequence[Any], rounds: int) -> list[list[float]]:
        """Return so many numbers per setting, each round in another order."""
        turns: list[Callable[[], float]] = [self._turn(setting) for setting in settings]
        parts = _PARTS if self._objective == "p50" else 1
        found: list[list[float]] = [[] for _ in settings]
        order = list(range(len(settings)))
        for pass_ in range(rounds * parts):
            if pass_ and pass_ % parts == 0:
                time.sleep(_BREATH)
            for at in order:
                found[at].append(turns[at]())
                if settings[at].spinning:
                    time.sleep(_SETTLE)
            order.append(order.pop(0))
        return [_by_round(times, parts) for times in found]

    def _turn(self, setting: Any) -> Callable[[], float]:
        running = self._open(setting)
        single = running.single(self._data)
        if self._objective == "p50":
            return lambda: turn(single, moment=_MOMENT / _PARTS, most=_MANY)
        if self._objective == "cpu":
            return lambda: _cpu(single, 1.0 / self._rate)
        sizes = [size for size in _sizes(setting.cap) if size == 1 or running.tier.batches]
        runs = {size: running.batch(self._data, size) for size in sizes}
        if self._objective == "throughput":
            largest = sizes[-1]
            return lambda: _busy(runs[largest], setting.workers)[1] / largest

        def p99() -> float:
            service = {size: _busy(run, setting.workers)[0] for size, run in runs.items()}
            return queue_p99(self._arrivals, service, setting.workers)

        return p99


def _by_round(times: Sequence[float], parts: int) -> list[float]:
    """Return the median of each round's parts."""
    return [median(times[at : at + parts]) for at in range(0, len(times), parts)]


def _sizes(cap: int) -> list[int]:
    return [1 << k for k in range(cap.bit_length()) if 1 << k < cap] + [cap]


def _cpu(run: Callable[[], object], gap: float) -> float:
    """CPU seconds per call of this process, all threads of it, at a call per gap."""
    run()
    spent, wake = time.process_time(), time.perf_counter()
    for _ in range(_CALLS):
        time.sleep(max(0.0, wake - time.perf_counter()))
        wake = time.perf_counter() + gap
        run()
    time.sleep(max(0.0, wake - time.perf_counter()))
    return (time.process_time() - spent) / _CALLS


def _busy(run: Callable[[], object], workers: int) -> tuple[list[float], float]:
    """Run on so many threads at once for a moment: seconds of each run, and between two ends."""
    run()
    taken: list[list[float]] = [[] for _ in range(workers)]
    start = time.perf_counter()

    def work(own: list[float]) -> None:
        while len(own) < 3 or time.perf_counter() < start + _MOMENT:
            began = time.perf_counter()
            run()
            own.append(time.perf_counter() - began)

    others = [threading.Thread(target=work, args=(own,), daemon=True) for own in taken[1:]]
    for other in others:
        other.start()
    work(taken[0])
    for other in others:
        other.join()
    times = [one for own in taken for one in own]
    return times, (time.perf_counter() - start) / len(times)


def queue_p99(
    arrivals: Sequence[float], service: Mapping[int, Sequence[float]], workers: int
) -> float:
    """Return the 99th percentile of the time from arrival to answer, in seconds.

    ``service`` holds measured seconds by batch size, taken in turn; a batch goes when a worker is
    idle, as large as what waits, up to the largest size. The queue is computed, so that all
    settings meet the same arrivals (seconds, rising).

    >>> queue_p99([0.0, 0.0, 5.0], {1: [1.0]}, workers=1)
    1.98
    >>> queue_p99([0.0, 0.0, 5.0], {1: [1.0]}, workers=2)
    1.0
    """
    free = [0.0] * workers
    sizes, cap = sorted(service), max(service)
    latencies: list[float] = []
    at = runs = 0
    while at < len(arrivals):
        start = max(heapq.heappop(free), arrivals[at])
        end = at + 1
        while end < len(arrivals) and end - at < cap and arrivals[end] <= start:
            end += 1
        size = next(size for size in sizes if size >= end - at)
        done = start + service[size][runs % len(service[size])]
        latencies += [done - arrived for arrived in arrivals[at:end]]
        heapq.heappush(free, done)
        at, runs = end, runs + 1
    return float(np.quantile(latencies, 0.99))
