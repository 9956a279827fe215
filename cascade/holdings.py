"""What a value holds: its bytes, whether anybody could change it, and whether a NaN is in it.

One walk says all three. It is bounded, needs no stack, and asks no method of the value's own: what
a value refers to is what the interpreter says it does, sizes and comparisons are those of the types
that the interpreter, its library and NumPy bring. What keeps its state elsewhere is not counted,
and so not kept.
"""

from __future__ import annotations

import array
import datetime as dt
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from gc import get_referents
from sys import getsizeof
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["holds_nan", "survey"]

_MOST = 20_000  # things that a value may hold
_AROUND = 48  # bytes around an object of a class, beside eight for each attribute (measured)
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: of types that a class statement makes, and of others
_IN_PYTHON = {"__slots__", "__dict__", "__weakref__"}  # one is there where Python adds state

_NUMBERS = {np.dtype(code).type for code in np.typecodes["All"]} - {np.object_, np.void}
_MAY_BE_NAN = {float, complex, Decimal, array.array} | {
    kind for kind in _NUMBERS if np.dtype(kind).kind in "fcmM"
}
_UNCHANGEABLE = {str, bytes, int, float, bool, type(None), tuple} | _NUMBERS
_SIZED = {list, tuple, dict, set, frozenset, deque, OrderedDict, defaultdict}
_ARRAYS = {np.ndarray, np.void}
_KNOWN = _UNCHANGEABLE | _SIZED | _MAY_BE_NAN | _ARRAYS | {
    object, bytearray, range, slice,
    dt.date, dt.time, dt.datetime, dt.timedelta, dt.timezone, dt.tzinfo,
}  # fmt: skip
_NOTHING: tuple[int, list[Any]] = (0, [])
_SHARED = {type, FunctionType, BuiltinFunctionType}  # by all copies


def survey(value: Any) -> tuple[int, bool] | None:
    """Return the bytes that a value holds, and whether nobody can change it.

    None where it must not be kept: it holds a NaN, more than can be looked through, or something
    of a type that keeps its state where it cannot be seen.

    >>> survey(("cat", 1))[1], survey(["cat", 1])[1]
    (True, False)
    >>> survey({"cat": [float("nan")]}) is None
    True
    """
    size, unchangeable = 0, True
    seen: set[int] = set()
    todo = [value]
    for one in todo:  # it grows on the way
        kind = type(one)
        if id(one) in seen or kind in _SHARED or issubclass(kind, type):
            continue
        seen.add(id(one))
        base = _known(kind)
        if base is None or (base in _MAY_BE_NAN and base.__ne__(one, one)):
            return None
        if kind not in _UNCHANGEABLE:
            unchangeable = False
        inner = get_referents(one)
        size += getsizeof(one) if kind is base else base.__sizeof__(one) + _AROUND + 8 * len(inner)
        if base in _SIZED and base.__len__(one) > _MOST:
            return None
        inside = _inside(one, base) if base in _ARRAYS else _NOTHING
        if inside is None:
            return None
        size += inside[0]
        todo += inside[1]
        todo += inner
        if len(todo) > _MOST:
            return None
    return size, unchangeable


def _inside(one: Any, base: Any) -> tuple[int, list[Any]] | None:
    """Return what an array holds beside itself: bytes of another's, and objects; None as above."""
    held: npt.NDArray[Any] = np.asarray(one)  # of a subclass too, the array that it is
    others = 0 if base is np.ndarray and held is one and held.flags.owndata else held.nbytes
    if held.dtype.kind == "O" and held.size <= _MOST:
        return others, held.ravel().tolist()
    return None if held.dtype.hasobject or holds_nan(held) else (others, [])


def holds_nan(held: npt.NDArray[Any]) -> bool:
    """Whether an array of numbers, times or fields of those holds a NaN.

    >>> holds_nan(np.array([1.0, np.nan])), holds_nan(np.array(["nan"]))
    (True, False)
    """
    kind = held.dtype.kind
    if kind in "fc":
        return bool(np.isnan(held).any())
    if kind in "mM":
        return bool(np.isnat(held).any())
    return any(holds_nan(held[name]) for name in held.dtype.names or ())


def _known(kind: Any) -> Any:
    """Return the type, known here, that a class is made of; None where others add state to it."""
    while kind not in _KNOWN:
        base = kind.__base__
        added = kind.__basicsize__ != base.__basicsize__
        if not kind.__flags__ & _HEAP or (added and not _IN_PYTHON & kind.__dict__.keys()):
            return None
        kind = base
    return kind
