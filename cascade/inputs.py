"""Inputs: what a row and a batch must look like, checked and cast once, before keying."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.errors import InputTypeError, InputValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy.typing as npt

    from cascade.protocols import InputSpec

__all__ = ["Cast", "CastRows", "row_caster", "rows_caster"]

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
    return x


def _single(spec: InputSpec, strict: bool, finite: bool) -> Cast:  # noqa: FBT001  internal
    if spec.dtype == "text":
        return _text(spec)
    dtype = np.dtype(spec.dtype)
    shape = spec.shape
    exact = None in shape
    ndarray = np.ndarray

    def cast(x: Any) -> Any:
        if type(x) is ndarray and x.dtype is dtype and x.shape == shape:
            if finite:
                _check_finite(x, spec)
            return x
        return slow(x)

    def slow(x: Any) -> Any:
        array = _as_array(_unwrap(x, spec), spec, strict)
        if not (_fits(array.shape, shape) if exact else array.shape == shape):
            raise InputValueError(_wrong_shape(spec, array.shape))
        if finite:
            _check_finite(array, spec)
        return np.ascontiguousarray(array).reshape(array.shape)

    return cast


def _unwrap(x: Any, spec: InputSpec) -> Any:
    """Accept ``{name: row}`` for a model with one input; its name must be right."""
    if not isinstance(x, Mapping):
        return x
    if set(x) == {spec.name}:
        return x[spec.name]
    if x and all(isinstance(value, numbers.Real) for value in x.values()):
        return list(x.values())
    raise InputValueError(f"input {spec} expected, got {_keys(x, {spec.name})}")


def _keys(x: Mapping[Any, Any], wanted: Collection[str]) -> str:
    """Say how the keys of an input differ from those declared, without showing its own."""
    missing = ", ".join(repr(name) for name in wanted if name not in x)
    others = sum(name not in wanted for name in x)
    return f"a dict without the keys {missing or '(none)'} and with {others} other keys"


def _text(spec: InputSpec) -> Cast:
    def cast(x: Any) -> Any:
        if type(x) is str:
            return x
        if isinstance(x, np.ndarray) and x.dtype.kind in "UO" and x.size == 1:
            x = x.item()
        if not isinstance(x, str):
            msg = f"input {spec} expected, got {_describe(x)}"
            raise InputTypeError(msg)
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
    if isinstance(x, (str, bytes)) or x is None:
        msg = f"input {spec} expected, got {_describe(x)}"
        raise InputTypeError(msg)
    listed = not isinstance(x, (np.ndarray, np.generic))
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        msg = f"input {spec} expected, got a ragged or unreadable {type(x).__name__}"
        raise InputValueError(msg) from error
    want = np.dtype(spec.dtype)
    if array.dtype == want:
        return array.astype(want, copy=False)
    if array.dtype.kind not in "biuf" or array.size == 0:
        msg = f"input {spec} expected, got {_describe(x, array)}"
        raise (InputValueError if array.size == 0 else InputTypeError)(msg)
    # A list of Python numbers has no dtype of its own, so whatever NumPy guessed may be cast down.
    lossless = listed and (want.kind == "f" or array.dtype.kind in "bi")
    if (strict and not listed) or not (lossless or np.can_cast(array.dtype, want, "same_kind")):
        msg = f"input {spec} expected, got dtype {array.dtype}"
        raise InputTypeError(msg)
    cast = array.astype(want)
    if want.kind in "iu" and array.dtype.kind in "iu" and not np.array_equal(cast, array):
        msg = f"input {spec} expected, got numbers outside the range of {want}"
        raise InputValueError(msg)
    return cast


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
    """Say what an input is, without a word of what it holds."""
    if array is not None and array.dtype.kind == "O":
        return "an object array"
    if isinstance(x, np.ndarray):
        return f"an array of dtype {x.dtype} and shape {x.shape}"
    if array is not None and array.size == 0:
        return f"an empty {type(x).__name__}"
    return f"a {type(x).__name__}" if x is not None else "None"


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


def _any_rows(x: Any) -> tuple[Any, int]:
    if isinstance(x, Mapping):
        lengths = {len(column) for column in x.values()}
        if len(lengths) != 1:
            msg = f"batch: expected columns of one length, got {sorted(lengths)}"
            raise InputValueError(msg)
        return x, lengths.pop()
    if isinstance(x, (str, bytes)) or not hasattr(x, "__len__") or not hasattr(x, "__getitem__"):
        msg = f"batch: expected a list, an array or a dict of arrays, got {_describe(x)}"
        raise InputTypeError(msg)
    return x, len(x)


def _text_rows(spec: InputSpec) -> CastRows:
    one = _text(spec)

    def cast(x: Any) -> tuple[Any, int]:
        if isinstance(x, str) or not hasattr(x, "__len__"):
            msg = f"batch of input {spec} expected (a list of str), got {_describe(x)}"
            raise InputTypeError(msg)
        rows = [one(item) for item in (x.tolist() if isinstance(x, np.ndarray) else x)]
        return rows, len(rows)

    return cast


def _array_rows(spec: InputSpec, strict: bool, finite: bool) -> CastRows:  # noqa: FBT001
    one = _single(spec, strict, finite)

    def cast(x: Any) -> tuple[Any, int]:
        if _is_ragged(x, spec):
            return [one(row) for row in x], len(x)
        if hasattr(x, "__len__") and len(x) == 0:
            empty = (0, *(1 if size is None else size for size in spec.shape))
            return np.empty(empty, dtype=spec.dtype), 0
        array = _as_array(_unwrap(x, spec), spec, strict)
        if array.ndim == 0 or not _fits(array.shape[1:], spec.shape):
            hint = ": this is one row" if _fits(array.shape, spec.shape) else ""
            msg = f"batch of input {spec} expected, got shape {array.shape}{hint}"
            raise InputValueError(msg)
        if finite:
            _check_finite(array, spec)
        return np.ascontiguousarray(array), len(array)

    return cast


def _is_ragged(x: Any, spec: InputSpec) -> bool:
    """Whether a batch is a list of rows of unequal shape, where the model allows for that."""
    if None not in spec.shape or not isinstance(x, (list, tuple)) or not x:
        return False
    return len({np.shape(row) if isinstance(row, np.ndarray) else len(row) for row in x}) > 1


def _named_batches(specs: Sequence[InputSpec], strict: bool, finite: bool) -> CastRows:  # noqa: FBT001
    casts = {spec.name: rows_caster([spec], strict=strict, finite=finite) for spec in specs}
    listing = "; ".join(map(str, specs))

    def cast(x: Any) -> tuple[Any, int]:
        if not isinstance(x, Mapping) or set(x) != set(casts):
            got = _keys(x, casts) if isinstance(x, Mapping) else _describe(x)
            msg = f"batch: expected a dict of arrays with {listing}, got {got}"
            raise (InputValueError if isinstance(x, Mapping) else InputTypeError)(msg)
        columns = {name: one(x[name]) for name, one in casts.items()}
        lengths = {n for _, n in columns.values()}
        if len(lengths) != 1:
            msg = f"batch: expected columns of one length, got {sorted(lengths)}"
            raise InputValueError(msg)
        return {name: rows for name, (rows, _) in columns.items()}, lengths.pop()

    return cast
