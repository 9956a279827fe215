"""What a router expects of a tier, as checks for its author's own tests."""

from __future__ import annotations

import asyncio
import copy
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.confidence import OutputFault
from cascade.errors import CascadeError
from cascade.tiers.awaited import AsyncTier
from cascade.tiers.columns import faulty, wrong_with
from cascade.tiers.python import each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cascade.tiers.python import PythonTier

__all__ = ["wrongs"]

_CLOSE = 1e-5  # by which a confidence may differ between batch sizes

Found: TypeAlias = "tuple[Any, Any]"
"""Values and confidences, of a row or of a batch."""


def wrongs(tier: PythonTier, rows: Any, n: int) -> Iterator[str]:
    """Yield what is wrong with a tier, asked for n rows of its own; each time for a copy of them.

    One that is awaited is asked in an event loop that lives as long as this does.
    """
    if isinstance(tier, AsyncTier) and _loop_runs():
        yield "it is asynchronous: check it where no event loop runs"
        return
    with closing(_Asker(tier)) as asker:
        found, wrong = _tried(asker.batch, rows, n)
        yield from wrong
        if found is None:
            return
        values, sure = found
        faults = faulty(values)
        bad = () if faults is None else np.flatnonzero(faults).tolist()
        yield from (f"row {i}: the value {wrong_with(values[i])}" for i in bad)
        places = () if sure is None else np.flatnonzero(np.isnan(sure)).tolist()
        unsure = [i for i in places if i not in bad]
        yield from _unsound(asker, rows, unsure)
        if unsure or bad:
            return
        yield from _alone(asker, rows, values, sure)
        again, wrong = _tried(asker.batch, rows, n)
        yield from (f"asked twice: {what}" for what in wrong)
        if again is not None and not _same(list(again[0]), list(values)):
            yield "asked twice, it answers differently: its answers must not be cached"


def _loop_runs() -> bool:
    try:
        return bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


class _Asker:
    """Asks a tier as the lanes do."""

    def __init__(self, tier: PythonTier) -> None:
        self.tier = tier
        self._runner = asyncio.Runner() if isinstance(tier, AsyncTier) else None

    def close(self) -> None:
        """Close the event loop."""
        if self._runner is not None:
            self._runner.close()

    def batch(self, rows: Any, n: int) -> Found:
        """Return values and confidences of n rows; their versions and costs are looked at."""
        tier = self.tier
        if self._runner is not None:
            raw = self._runner.run(tier.predict_rows_async(rows, _context()))  # type: ignore[attr-defined]
        else:
            raw = tier.run_rows(rows, n, _context())
        found = tier.read_rows(raw, n)
        for i in range(n):
            tier.remarks(raw, i)
        return found

    def one(self, row: Any) -> Found:
        """Return value and confidence of one row."""
        tier, job = self.tier, _context(row)
        if self._runner is not None:
            return tier.read(self._runner.run(tier.predict_async(job)))  # type: ignore[attr-defined]
        return tier.read(tier.run(job))


def _tried(ask: Callable[..., Found], given: Any, *args: Any) -> tuple[Found | None, list[str]]:
    """Ask for a copy of what is given; return what came of it, and what was wrong with that."""
    try:
        mine = copy.deepcopy(given)
    except Exception:  # noqa: BLE001  then nobody can see whether it is changed
        mine = given
    try:
        found = ask(mine, *args)
    except (CascadeError, OutputFault) as error:
        return None, [f"{error}"]
    except Exception as error:  # noqa: BLE001  whatever it raises is what is wrong
        return None, [f"it raised {type(error).__name__}: {error}"]
    return found, [] if _same(mine, given) else ["it changed its input"]


def _unsound(asker: _Asker, rows: Any, places: Iterable[int]) -> Iterator[str]:
    """Say of rows without a sound confidence what a router would, which asks for them alone."""
    listed = each(rows)
    for i in places:
        found, wrong = _tried(asker.one, listed[i])
        yield f"row {i}: {wrong[0] if found is None else 'no sound confidence in the batch'}"


def _alone(asker: _Asker, rows: Any, values: Any, sure: Any) -> Iterator[str]:
    for i, row in enumerate(each(rows)):
        found, wrong = _tried(asker.one, row)
        yield from (f"row {i}: alone: {what}" for what in wrong)
        if found is None:
            continue
        value, confidence = found
        if not _same([value], [values[i]]):
            yield f"row {i}: another value alone than in the batch"
        if (confidence is None) != (sure is None):
            yield f"row {i}: a confidence alone or in the batch, but not both"
        elif confidence is not None and abs(confidence - sure[i]) > _CLOSE:
            yield f"row {i}: confidence {confidence:.6g} alone, {sure[i]:.6g} in the batch"


def _context(row: Any = None) -> Any:
    return SimpleNamespace(
        tenant=None, metadata={}, remaining=lambda: 60.0, cancelled=lambda: False, row=row
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001  as of tables, where each cell is equal or not
        return repr(a) == repr(b)
