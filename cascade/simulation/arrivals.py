"""Arrivals: when requests come, from a trace or from a process with a seed."""

from __future__ import annotations

import csv
import difflib
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.admission import Priority
from cascade.errors import RecordingError
from cascade.tiers.columns import object_column

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

__all__ = ["Arrivals", "gamma", "on_off", "poisson"]

_COLUMNS = ("arrival_s", "deadline_s", "tenant", "priority")
_LONGEST = 1e9  # s; integer nanoseconds overflow beyond nine times that
_NEAR = 0.65  # how alike names are of which one is a misspelling: prio is, duration_s is none


@attrs.frozen(eq=False)
class Arrivals:
    """Times (n,) in seconds, rising from 0, and what requests name besides.

    ``deadlines`` (n,) in seconds, NaN where none is named; ``ranks`` (n,) of their priorities (0
    high, 1 normal, 2 low); ``tenants`` (n,).

    >>> Arrivals.of([3.0, 1.0, 2.0]).times.tolist()
    [0.0, 1.0, 2.0]
    """

    times: npt.NDArray[np.float64] = attrs.field()
    deadlines: npt.NDArray[np.float64] | None = None
    ranks: npt.NDArray[np.int64] | None = None
    tenants: npt.NDArray[np.object_] | None = None

    @times.validator
    def _check_span(self, _: Any, times: npt.NDArray[np.float64]) -> None:
        span = float(np.max(times, initial=0.0))
        if span > _LONGEST:
            raise RecordingError(
                f"arrivals: they go on for {span:.3g} s, of which at most {_LONGEST:g} s can be "
                "simulated; the times are seconds"
            )

    def __repr__(self) -> str:
        """Show how many there are in what time."""
        return f"Arrivals(n={len(self.times)}, seconds={self.times.max(initial=0.0):.4g})"

    @classmethod
    def of(cls, given: Any) -> Arrivals:
        """Return arrivals as they are, or read them from a path or a sequence of seconds.

        Raises:
            RecordingError: the file cannot be used; it names the place.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, (str, Path)):
            return cls.read(given)
        try:
            times = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            times = np.empty(0)
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
            raise RecordingError("arrivals: expected a sequence of finite times in seconds")
        return cls(np.sort(times) - times.min())

    @classmethod
    def read(cls, path: str | Path) -> Arrivals:
        """Read a CSV or CSV.gz with ``arrival_s``, and ``deadline_s``, ``tenant``, ``priority``.

        Other columns are left alone, but not one that is nearly called so.

        Raises:
            RecordingError: the file cannot be read, or a cell is not a number.
        """
        path = Path(path)
        try:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                rows, names = list(table), table.fieldnames or ()
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise RecordingError(f"{path}: cannot be read: {why}") from error
        _check_names(path, names)
        if not rows:
            raise RecordingError(f"{path}: no arrivals: there are no rows")
        times = np.array(list(_numbers(path, rows, "arrival_s")))
        order = np.argsort(times, kind="stable")
        deadlines = None
        if "deadline_s" in rows[0]:
            deadlines = np.array(list(_numbers(path, rows, "deadline_s", is_span=True)))[order]
        ranks = tenants = None
        if "priority" in rows[0]:
            ranks = np.array(list(_ranks(path, rows)))[order]
        if "tenant" in rows[0]:
            tenants = object_column([row["tenant"] or None for row in rows])[order]
        return cls(times[order] - times[order[0]], deadlines, ranks, tenants)

    def at_speed(self, speed: float) -> Arrivals:
        """Return the same arrivals, ``speed`` times as fast; deadlines stay as they are."""
        return attrs.evolve(self, times=self.times / speed)

    def slowest(self) -> float:
        """Return the lowest speed at which it is not too long to be simulated."""
        return float(self.times[-1]) / _LONGEST

    @property
    def rate(self) -> float:
        """Arrivals per second, over the whole."""
        span = float(self.times[-1])
        return len(self.times) / span if span > 0 else float("inf")


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a table without arrivals, or with a column that is misspelt."""
    for name in names:
        missing = [known for known in _COLUMNS if known not in names]
        near = [] if name in _COLUMNS else difflib.get_close_matches(name, missing, 1, _NEAR)
        if near:
            known = ", ".join(_COLUMNS)
            said = f"no column {name!r} is read; did you mean {near[0]!r}? ({known})"
            raise RecordingError(f"{path}: {said}")
    if "arrival_s" not in names:
        has = ", ".join(names) or "none"
        raise RecordingError(f"{path}: expected a column arrival_s (it has {has})")


def _numbers(
    path: Path, rows: list[dict[str, str]], column: str, *, is_span: bool = False
) -> Iterable[float]:
    """Read the times of a column; those that are spans may be left out, and are positive."""
    for line, row in enumerate(rows, 2):
        text = (row[column] or "").strip()
        if is_span and not text:
            yield float("nan")
            continue
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not np.isfinite(number):
            raise RecordingError(f"{path}:{line}: {column}: expected a number, got {text!r}")
        if is_span and not 0.0 < number <= _LONGEST:
            what = f"expected more than 0 s, and at most {_LONGEST:g}"
            raise RecordingError(f"{path}:{line}: {column}: {what}, got {text!r}")
        yield number


def _ranks(path: Path, rows: list[dict[str, str]]) -> Iterable[int]:
    for line, row in enumerate(rows, 2):
        try:
            yield Priority.of((row["priority"] or "").strip() or Priority.NORMAL).rank
        except ValueError as error:
            raise RecordingError(f"{path}:{line}: {error}") from None


def poisson(rate: float, n: int, seed: int = 0) -> Arrivals:
    """Return n arrivals of a Poisson process, ``rate`` per second.

    Raises:
        ValueError: a rate, spread or time is not positive and finite.

    >>> len(poisson(10.0, 5).times)
    5
    """
    return gamma(rate, n, 1.0, seed)


def _expect_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 < number < np.inf:  # so written for NaN
            raise ValueError(f"{name}: expected a positive number, got {number!r}")


def gamma(rate: float, n: int, cv: float, seed: int = 0) -> Arrivals:
    """Return n arrivals with gamma-distributed gaps; ``cv`` is their coefficient of variation.

    Raises:
        ValueError: a rate, spread or time is not positive and finite.

    >>> gaps = np.diff(gamma(10.0, 100_000, 3.0).times)
    >>> round(float(gaps.std() / gaps.mean()))
    3
    """
    _expect_positive(rate=rate, cv=cv)
    shape = 1.0 / cv**2
    gaps = np.random.default_rng(seed).gamma(shape, 1.0 / (rate * shape), n)
    return Arrivals.of(np.cumsum(gaps))


def on_off(
    rate: float, n: int, *, on: float, off: float, low: float = 0.0, seed: int = 0
) -> Arrivals:
    """Return n arrivals: ``rate`` per second for ``on`` seconds, ``low`` for ``off``, in turn.

    Raises:
        ValueError: a rate, spread or time is not positive and finite.

    >>> float(on_off(100.0, 300, on=1.0, off=9.0).times[-1]) > 10
    True
    """
    _expect_positive(rate=rate, on=on, off=off or on)  # no pause is one of nothing
    chance, now, busy = np.random.default_rng(seed), 0.0, True
    times: list[float] = []
    while len(times) < n:
        span, current = (on, rate) if busy else (off, low)
        if current > 0:
            count = chance.poisson(current * span)
            times += np.sort(now + chance.random(count) * span).tolist()
        now, busy = now + span, not busy
    return Arrivals.of(times[:n])
