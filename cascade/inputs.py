"""Inputs: what a row and a batch must look like, checked and cast once, before keying."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.errors import InputTypeError, InputValueError
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import numpy.typing as npt

    from cascade.protocols import InputSpec

__all__ = ["Cast", "CastRows", "row_caster", "rows_caster", "rows_of"]

Cast: TypeAlias = "Callable[[Any], Any]"
"""A request's input → the row that is keyed and served."""

CastRows: TypeAlias = "Callable[[Any], tuple[Any, int]]"
"""A batch → (rows, n)."""


def row_caster(specs: Sequence[InputSpec], *, strict: bool = False, finite: bool = False) -> Cast:
    """Compile the check of one row against the declared inputs; none declared: taken as it is.

    With ``strict`` the dtype must be the declared one, otherwise it is cast where NumPy's
    ``same_kind`` rule allows. With ``finite`` NaN and infinities are refused.

    Raises (when called):
        InputTypeError: wrong type or dtype.
        InputValueError: wrong shape, missing names, or not finite.

    >>> from cascade.protocols import InputSpec
    >>> cast = row_caster([InputSpec("x", "float32", (2,))])
    >>> cast([1, 2]).dtype.name
    'float32'
    >>> cast(np.zeros((5, 2)))
    Traceback (most recent call last):
      ...
    cascade.errors.InputValueError: input 'x': float32 row of shape (2,) expected, got ...
    """
    if not specs:
        return _taken_as_is
    if len(specs) > 1:
        return _named_rows(specs, strict, finite)
    return _single(specs[0], strict, finite)


def _taken_as_is(x: Any) -> Any:
    if x is None:
        msg = "input: expected a value, got None"
        raise InputTypeError(msg)
    if type(x) is dict and not x:  # there is no batch of those: it would have no length
        msg = "input: expected a value, got an empty dict"
        raise InputValueError(msg)
    return x


def _single(spec: InputSpec, strict: bool, finite: bool) -> Cast:  # noqa: FBT001  internal
    if spec.dtype == "text":
        return _text(spec)
    dtype = np.dtype(spec.dtype)
    shape = spec.shape
    ndarray = np.ndarray

    def cast(x: Any) -> Any:
        if type(x) is ndarray and x.dtype is dtype and x.shape == shape:
            if finite:
                _check_finite(x, spec)
            return x
        return slow(x)

    def slow(x: Any) -> Any:
        array = _as_array(_unwrap(x, spec), spec, strict)
        if array.ndim == 0 and shape == (1,):  # a number is a row of one
            array = array.reshape(shape)
        if not _fits(array.shape, shape):
            raise InputValueError(_wrong_shape(spec, array.shape))
        if finite:
            _check_finite(array, spec)
        return np.ascontiguousarray(array).reshape(array.shape)

    return cast


def _unwrap(x: Any, spec: InputSpec) -> Any:
    """Accept ``{name: row}`` for a model with one input; its name must be right.

    Numbers by any other name are refused: the model names none, so only the order in which a dict
    was filled could say which is which.
    """
    if not isinstance(x, Mapping):
        return x
    if set(x) == {spec.name}:
        return x[spec.name]
    several = spec.dtype != "text" and len(x) > 1
    named = several and all(isinstance(value, numbers.Real) for value in x.values())
    hint = "; the model does not name its numbers: give a list, or prepare=f" if named else ""
    raise InputValueError(f"input {spec} expected, got {_keys(x, {spec.name})}{hint}")


def _keys(x: Mapping[Any, Any], wanted: Collection[str]) -> str:
    """Say how the keys of an input differ from those declared, without showing its own."""
    missing = ", ".join(repr(name) for name in wanted if name not in x)
    unknown = sum(name not in wanted for name in x)
    wrong = [f"lacks {missing}"] if missing else []
    wrong += [f"has {unknown} unknown key{'s' * (unknown > 1)}"] if unknown else []
    return f"a dict that {' and '.join(wrong)}"


def _text(spec: InputSpec) -> Cast:
    def cast(x: Any) -> Any:
        if type(x) is str and x.isascii():
            return x
        x = _unwrap(x, spec)
        if isinstance(x, np.ndarray) and x.dtype.kind in "UO" and x.size == 1:
            x = x.item()
        if not isinstance(x, str):
            msg = f"input {spec} expected, got {_describe(x)}"
            raise InputTypeError(msg)
        try:
            x.encode()  # as the model will be given it
        except UnicodeEncodeError:
            msg = f"input {spec} expected, got a str that is no Unicode (a lone surrogate)"
            raise InputValueError(msg) from None
        return str(x)

    return cast


def _named_rows(specs: Sequence[InputSpec], strict: bool, finite: bool) -> Cast:  # noqa: FBT001
    casts = {spec.name: _single(spec, strict, finite) for spec in specs}
    listing = "; ".join(map(str, specs))

    def cast(x: Any) -> Any:
        if not isinstance(x, Mapping):
            msg = f"inputs: expected a dict with {listing}, got {_describe(x)}"
            raise InputTypeError(msg)
        if set(x) != set(casts):
            raise InputValueError(f"inputs: expected a dict with {listing}, got {_keys(x, casts)}")
        return {name: one(x[name]) for name, one in casts.items()}

    return cast


def _as_array(x: Any, spec: InputSpec, strict: bool) -> npt.NDArray[Any]:  # noqa: FBT001
    """Read ``x`` as an array, and cast it to the declared dtype where that is allowed."""
    array, want = _read(x, spec), np.dtype(spec.dtype)
    if array.dtype == want:
        return array.astype(want, copy=False)
    listed = not isinstance(x, (np.ndarray, np.generic))
    if listed and array.size == 0:
        msg = f"input {spec} expected, got an empty {type(x).__name__}"
        raise InputValueError(msg)
    if listed and array.ndim and array.dtype.kind == "O" and _no_number(array) is None:
        array = np.asarray(array.tolist())  # a row of a table, whose columns are of several dtypes
        if array.dtype.kind not in "biuf":  # not even Python's own would do
            raise InputValueError(_too_large(spec))
    if array.dtype.kind not in "biuf":
        msg = f"input {spec} expected, got {_describe(x, array)}"
        raise InputTypeError(msg)
    # A list of Python numbers has no dtype of its own, so whatever NumPy guessed may be cast down.
    lossless = listed and (want.kind == "f" or array.dtype.kind in "bi")
    if (strict and _has_dtype(x)) or not (lossless or np.can_cast(array.dtype, want, "same_kind")):
        rule = "the policy says cast: none" if strict else f"another kind is not cast to {want}"
        msg = f"input {spec} expected, got dtype {array.dtype}: {rule}"
        raise InputTypeError(msg)
    try:
        with np.errstate(over="raise"):
            cast = array.astype(want)
        fits = want.kind not in "iub" or array.dtype.kind not in "iu" or np.array_equal(cast, array)
    except FloatingPointError:
        fits = False
    if not fits:
        raise InputValueError(_too_large(spec))
    return cast


def _has_dtype(x: Any) -> bool:
    """Whether numbers come in a dtype: those of an array, of a table, or of a list of arrays."""
    first = x[0] if isinstance(x, (list, tuple)) and x else x
    return hasattr(first, "dtype") or hasattr(first, "__array__")


def _too_large(spec: InputSpec) -> str:
    return f"input {spec} expected, got numbers outside the range of {spec.dtype}"


def _read(x: Any, spec: InputSpec) -> npt.NDArray[Any]:
    if isinstance(x, (str, bytes)) or x is None:
        msg = f"input {spec} expected, got {_describe(x)}"
        raise InputTypeError(msg)
    try:
        array = np.asarray(x)
    except Exception as error:  # a type of somebody else's may raise anything
        msg = f"input {spec} expected, got a ragged or unreadable {type(x).__name__}"
        raise InputValueError(msg) from error
    arrays = x if array.ndim > 1 and isinstance(x, (list, tuple)) else (x,)
    if any(type(one) is np.ma.MaskedArray and np.ma.is_masked(one) for one in arrays):
        raise InputValueError(f"input {spec} expected, got masked values, which are none")
    return array


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(
        b is None or a == b for a, b in zip(shape, want, strict=True)
    )


def _wrong_shape(spec: InputSpec, shape: tuple[int, ...]) -> str:
    hint = ""
    if len(shape) == len(spec.shape) + 1 and _fits(shape[1:], spec.shape):
        hint = ": this is a batch; route() takes one row, route_many() a batch"
    return f"input {spec} expected, got shape {shape}{hint}"


def _check_finite(array: npt.NDArray[Any], spec: InputSpec) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"input {spec}: NaN or infinite numbers, and the policy says validate: finite"
        raise InputValueError(msg)


def _describe(x: Any, array: npt.NDArray[Any] | None = None) -> str:
    """Say what an input is, without a word of what it holds; ``array`` is what it was read as."""
    if x is None:
        return "None"
    if isinstance(x, np.ndarray) and not x.dtype.hasobject:
        return f"an array of dtype {x.dtype} and shape {x.shape}"
    kind = "an object array" if isinstance(x, np.ndarray) else a_kind(x)
    if array is None or array.ndim == 0:
        return kind
    odd = _no_number(array)
    return kind if odd is None else f"{kind} that holds a {odd}"


def _no_number(array: npt.NDArray[Any]) -> str | None:
    """Name the type of the first thing in an array that is no number."""
    items = array.astype(object).flat
    kinds = (type(item) for item in items if not isinstance(item, (int, float, np.number)))
    return next((kind.__name__ for kind in kinds), None)


def rows_caster(
    specs: Sequence[InputSpec], *, strict: bool = False, finite: bool = False
) -> CastRows:
    """Compile the check of a batch: arrays with a leading batch axis, lists, or a dict of arrays.

    >>> from cascade.protocols import InputSpec
    >>> rows, n = rows_caster([InputSpec("x", "float32", (2,))])([[1, 2], [3, 4], [5, 6]])
    >>> rows.shape, n
    ((3, 2), 3)
    """
    if not specs:
        return _any_rows
    if len(specs) > 1:
        return _named_batches(specs, strict, finite)
    if specs[0].dtype == "text":
        return _text_rows(specs[0])
    return _array_rows(specs[0], strict, finite)


def rows_of(x: Any) -> tuple[Any, int]:
    """Return a batch of anything, and how many rows it has; a dict of columns is a dict.

    Raises:
        InputTypeError: it is neither a list, nor an array, nor a dict of those.
        InputValueError: its columns are not of one length.

    >>> rows_of({"a": [1, 2], "b": np.zeros((2, 3))})[1]
    2
    """
    if not isinstance(x, Mapping):
        rows = _listed(x, "batch: expected a list, an array or a dict of arrays")
        return rows, len(rows)
    what = "batch: expected a list or an array in each column"
    columns = {name: _listed(column, what) for name, column in x.items()}
    return columns, _one_length(map(len, columns.values()))


def _listed(x: Any, expected: str) -> Any:
    """Return what has one row after the other; refuse anything else."""
    if hasattr(x, "keys") and hasattr(x, "__array__"):  # a table: it is indexed by its names
        x = np.asarray(x)
    found = hasattr(x, "__getitem__") and not hasattr(x, "keys")
    try:
        len(x)
    except TypeError:  # also of an array without an axis
        found = False
    if not found or isinstance(x, (str, bytes, bytearray)):
        msg = f"{expected}, got {_describe(x)}"
        raise InputTypeError(msg)
    return x


def _one_length(lengths: Iterable[int]) -> int:
    found = set(lengths)
    if len(found) != 1:
        msg = f"batch: expected columns of one length, got {sorted(found) or 'no columns'}"
        raise InputValueError(msg)
    return found.pop()


_ODD = {type(None), dict}  # of which some are no rows


def _any_rows(x: Any) -> tuple[Any, int]:
    rows, n = rows_of(x)
    numeric = isinstance(rows, np.ndarray) and not rows.dtype.hasobject
    if not numeric and not isinstance(rows, dict) and not _ODD.isdisjoint(map(type, rows)):
        _each(_taken_as_is, rows)
    return rows, n


def _each(one: Cast, rows: Any) -> tuple[list[Any], int]:
    """Check and cast row by row; what is wrong with one names its place."""
    cast: list[Any] = []
    try:
        cast.extend(map(one, rows))
    except (InputTypeError, InputValueError) as error:
        raise type(error)(f"row {len(cast)}: {error}") from error.__cause__
    return cast, len(cast)


def _text_rows(spec: InputSpec) -> CastRows:
    one = _text(spec)
    expected = f"batch of input {spec} expected (a list of str)"

    def cast(x: Any) -> tuple[Any, int]:
        rows = _listed(_unwrap(x, spec), expected)
        if isinstance(rows, np.ndarray):
            if rows.dtype.kind not in "UOT" or math.prod(rows.shape[1:]) != 1:
                raise InputTypeError(f"{expected}, got {_describe(rows)}")
            rows = rows.reshape(-1).tolist()
        return _each(one, rows)

    return cast


def _array_rows(spec: InputSpec, strict: bool, finite: bool) -> CastRows:  # noqa: FBT001
    one = _single(spec, strict, finite)
    free = None in spec.shape

    def cast(x: Any) -> tuple[Any, int]:
        x = _unwrap(x, spec)
        listed = isinstance(x, (list, tuple))
        if listed and not x:
            empty = (0, *(1 if size is None else size for size in spec.shape))
            return np.empty(empty, dtype=spec.dtype), 0
        try:
            array = _as_array(x, spec, strict)
        except (InputTypeError, InputValueError):
            if not listed:
                raise
            rows, n = _each(one, x)  # says which row it is
            return rows if free else np.stack(rows), n  # of unequal shape, or each in a dict
        if array.ndim == 1 and spec.shape == (1,):  # as many numbers as rows
            array = array[:, None]
        if array.ndim == 0 or not _fits(array.shape[1:], spec.shape):
            hint = ": this is one row" if _fits(array.shape, spec.shape) else ""
            msg = f"batch of input {spec} expected, got shape {array.shape}{hint}"
            raise InputValueError(msg)
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            _each(one, array)
        return np.ascontiguousarray(array), len(array)

    return cast


def _named_batches(specs: Sequence[InputSpec], strict: bool, finite: bool) -> CastRows:  # noqa: FBT001
    casts = {spec.name: rows_caster([spec], strict=strict, finite=finite) for spec in specs}
    named = _named_rows(specs, strict, finite)
    listing = "; ".join(map(str, specs))

    def cast(x: Any) -> tuple[Any, int]:
        if isinstance(x, (list, tuple)) and x and all(isinstance(row, Mapping) for row in x):
            rows, _ = _each(named, x)  # row by row, as a function that prepares them gives them
            x = {name: [row[name] for row in rows] for name in casts}
        if not isinstance(x, Mapping) or set(x) != set(casts):
            got = _keys(x, casts) if isinstance(x, Mapping) else _describe(x)
            msg = f"batch: expected a dict of arrays with {listing}, got {got}"
            raise (InputValueError if isinstance(x, Mapping) else InputTypeError)(msg)
        columns = {name: one(x[name]) for name, one in casts.items()}
        n = _one_length(length for _, length in columns.values())
        return {name: rows for name, (rows, _) in columns.items()}, n

    return cast
