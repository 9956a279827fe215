"""Rows into batches and back: those of one shape together, or padded as the policy says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.confidence import OutputFault
from cascade.facts import RowsReply
from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy.typing as npt

    from cascade.protocols import BoundTier

__all__ = ["groups", "is_ragged", "join", "reported", "spread"]


_INT = 62  # bits that are an int64 in any case


def is_ragged(rows: Any) -> bool:
    """Whether a batch is rows (or a column of them) that were not of one shape.

    >>> is_ragged([np.zeros(2), np.zeros(3)]), is_ragged(["a", "b"]), is_ragged(np.zeros((2, 2)))
    (True, False, False)
    """
    columns = rows.values() if isinstance(rows, Mapping) else (rows,)
    return any(isinstance(c, list) and c and isinstance(c[0], np.ndarray) for c in columns)


def groups(rows: Sequence[Any], pad: Mapping[str, float] | None = None) -> list[list[int]]:
    """Return the places of the rows that can be stacked with each other.

    A row that cannot be looked at stands alone: its tier says what is wrong with it.

    >>> groups([np.zeros(2), np.zeros(3), np.zeros(2)])
    [[0, 2], [1]]
    """
    first = rows[0]
    if type(first) is np.ndarray and not pad:  # the common case, in a fifth of the time
        shape, dtype = first.shape, first.dtype
        if all(type(r) is np.ndarray and r.shape == shape and r.dtype is dtype for r in rows):
            return [list(range(len(rows)))]
    found: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        try:
            kind = _kind(row, pad or {})
        except Exception:  # noqa: BLE001  a mapping runs its own code here
            kind = (i, "alone")
        found.setdefault(kind, []).append(i)
    return list(found.values())


def _kind(row: Any, pad: Mapping[str, float], name: str = "") -> Hashable:
    if isinstance(row, np.ma.MaskedArray):  # alone: stacked, it would lose its mask
        return id(row), "masked"
    if isinstance(row, np.ndarray):
        padded = name in pad or (not name and len(pad) == 1)
        return (row.dtype, row.ndim if padded else row.shape)
    if isinstance(row, Mapping):
        return tuple((name, _type(value, pad, name)) for name, value in row.items())
    return None  # a list of them takes anything


def _type(value: Any, pad: Mapping[str, float], name: str) -> Hashable:
    """Return what values of one column have in common: none changes the type of another."""
    if isinstance(value, np.ndarray):
        return _kind(value, pad, name)
    if isinstance(value, np.generic) or (isinstance(value, int) and value.bit_length() > _INT):
        return type(value), np.asarray(value).dtype
    return (type(value),)


def join(rows: Any, pad: Mapping[str, float] | None = None) -> Any:
    """Stack rows of one group into a batch: arrays, dicts of arrays, or a list of anything else.

    >>> join([np.zeros(2), np.ones(2)]).shape
    (2, 2)
    >>> join([{"ids": np.array([7, 8])}, {"ids": np.array([9])}], {"ids": 0})["ids"].tolist()
    [[7, 8], [9, 0]]
    >>> join(["a", "b"])
    ['a', 'b']
    """
    if isinstance(rows, np.ndarray) or not len(rows):
        return rows
    first = rows[0]
    if isinstance(first, np.ndarray):
        return _stack(rows, next(iter(pad.values())) if pad and len(pad) == 1 else None)
    if isinstance(first, Mapping):
        return {name: _column([row[name] for row in rows], (pad or {}).get(name)) for name in first}
    return list(rows)


def _column(values: list[Any], fill: float | None) -> Any:
    if isinstance(values[0], np.ndarray):
        return _stack(values, fill)
    if isinstance(values[0], (bool, int, float, np.number)):
        return np.array(values)
    return values


def _stack(arrays: Sequence[npt.NDArray[Any]], fill: float | None) -> npt.NDArray[Any]:
    shape, n = arrays[0].shape, len(arrays)
    if len(shape) == 1 and len(set(map(len, arrays))) == 1:  # in a third of the time of np.stack
        return np.concatenate(arrays).reshape(n, shape[0])
    if all(array.shape == shape for array in arrays):
        return np.stack(arrays)
    if fill is None:
        raise ValueError("rows of unequal shape, and nothing to pad them with")
    longest = tuple(map(max, zip(*(array.shape for array in arrays), strict=True)))
    batch = np.full((n, *longest), fill, dtype=arrays[0].dtype)
    for i, array in enumerate(arrays):
        place: Any = (i, *(slice(size) for size in array.shape))
        batch[place] = array
    return batch


def spread(reply: RowsReply, places: Sequence[int], n: int, error: str) -> RowsReply:
    """Return a reply for n rows, of which these were asked: the others are faulty, and why.

    >>> reply = RowsReply(np.array(["a"]), np.array([0.9]), 0, 1)
    >>> made = spread(reply, [1], 2, "why")
    >>> made.values.tolist(), made.confidences.tolist()
    ([nan, 'a'], [nan, 0.9])
    """
    values, sure, costs = np.full(n, np.nan, dtype=object), None, None
    values[places] = reply.values
    if reply.confidences is not None:
        sure = np.full(n, np.nan)
        sure[places] = reply.confidences
    if reply.costs is not None:
        costs = dict(zip(places, reply.costs, strict=True))
    return RowsReply(
        values, sure, reply.started, reply.finished, reply.known,
        None if costs is None else [costs.get(i) for i in range(n)], error,
    )  # fmt: skip


def reported(tier: BoundTier, raw: Any, reply: RowsReply) -> RowsReply:
    """Add what a tier reports beside its answers: its version, and what each row cost.

    A row whose cost is no number is faulty, as it is by itself; the others are not.
    """
    values, sure = reply.values, reply.confidences
    n = 0 if tier.silent or values is None else len(values)
    costs: dict[int, float | None] = {}
    wrong = None
    for i in range(n):
        try:
            reply.known, cost = tier.remarks(raw, i)
        except OutputFault as fault:
            wrong = fault
            continue
        if cost is None:  # then no row has one
            return reply
        costs[i] = cost
    if wrong is not None and not costs:
        raise wrong
    reply.costs = [*costs.values()] or None
    if wrong is None or values is None:
        return reply
    places = [*costs]
    reply.values, reply.confidences = values[places], None if sure is None else sure[places]
    return spread(reply, places, n, str(as_tier_error(tier.name, wrong)))
