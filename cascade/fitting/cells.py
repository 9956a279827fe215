"""The cells of a recording's table, as arrays; and where one cannot be used."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Column = npt.NDArray[Any]

__all__ = ["AMOUNTS", "FLAGS", "FRACTIONS", "Cells", "is_empty", "is_number"]

FLAGS = ("correct", "agrees")
FRACTIONS = ("confidence", "margin", "quality")
AMOUNTS = ("seconds", "cost")
"""What the columns of a tier hold, by their names: 0 or 1, [0, 1], 0 or more."""

_FLAG = "0 or 1"
_WORDS = {"True": 1, "False": 0, "true": 1, "false": 0}  # as tables write what is right or wrong
_NESTED = (list, tuple, dict, np.ndarray)


class Cells:
    """Turns the cells of a table into arrays; says where one cannot be used."""

    def __init__(self, table: Mapping[str, Any], source: str) -> None:
        self._table = table
        self._source = source

    def __call__(self, name: str, keep: Column) -> Column | None:
        """Return a column by what its name says that it holds, or None if it is not there."""
        if name not in self._table or all(map(is_empty, self._table[name])):
            return None  # a column that nobody filled in is not there
        field = name.rpartition(".")[2]
        if field == "input":
            return self._texts(name, keep)
        if field in {"value", "truth", "id", "at"}:
            return self._whole(name, _answers(_kept(self._table[name], keep)))
        numbers = self.numbers(name, keep, _FLAG if field in FLAGS else "a number")
        if field in FLAGS:
            self._all(name, keep, (numbers == 0) | (numbers == 1), _FLAG)
            return numbers.astype(np.bool_)
        if field in FRACTIONS:
            self._all(name, keep, (numbers >= 0) & (numbers <= 1), "a number in [0, 1]")
        if field in AMOUNTS:
            self._all(name, keep, numbers >= 0, "a number that is not negative")
        return numbers

    def numbers(
        self, name: str, keep: Column, expected: str = "a number"
    ) -> npt.NDArray[np.float64]:
        """Return a column of finite numbers."""
        cells = self._table[name]
        if expected == _FLAG:
            cells = [_WORDS.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
        try:
            numbers = np.asarray(_kept(cells, keep), dtype=np.float64)
        except (TypeError, ValueError):
            at = next(int(i) for i in keep if not is_number(cells[i]))
            raise self._error(name, at, cells[at], expected) from None
        if numbers.ndim > 1:
            raise self._error(name, int(keep[0]), cells[int(keep[0])], expected)
        self._all(name, keep, np.isfinite(numbers), "a finite number")
        return numbers

    def _texts(self, name: str, keep: Column) -> Column:
        cells = self._table[name]
        for at in keep.tolist():
            if not isinstance(cells[at], str):
                raise self._error(name, at, cells[at], "text")
        return np.array(_kept(self._table[name], keep), dtype=object)

    def _whole(self, name: str, answers: Column) -> Column:
        """Return the integers that a frame has made fractions of, to have a place for gaps."""
        whole = answers.dtype.kind == "f" and bool((answers % 1.0 == 0.0).all())
        gaps = whole and any(map(is_empty, self._table[name]))
        return answers.astype(np.int64) if gaps else answers

    def _all(self, name: str, keep: Column, sound: Column, expected: str) -> None:
        if not sound.all():
            at = int(keep[int(np.flatnonzero(~sound)[0])])
            raise self._error(name, at, self._table[name][at], expected)

    def _error(self, name: str, at: int, cell: Any, expected: str) -> RecordingError:
        place = f"{self._source}: row {at + 1}, column {name}"
        return RecordingError(f"{place}: expected {expected}, got {cell!r}")

    def complete(self, names: Sequence[str], *, only: bool) -> Column:
        """Return the rows that have an answer of every tier, and the truth where others have one.

        Without ``only`` all must: on a row without a truth nothing could be lost.
        """
        n = len(next(iter(self._table.values())))
        answered, known = np.ones(n, dtype=np.bool_), self._filled("truth", n)
        for name in names:
            said = next((f for f in ("value", "correct") if f"{name}.{f}" in self._table), None)
            if said is not None:
                answered &= self._filled(f"{name}.{said}", n)
        known |= not known.any()  # a column that nobody filled in is not there
        for whole, what, how in (
            (answered, "a tier's value", "rows were sampled before routing"),
            (known, "the truth", "the rows to be labelled were chosen at random"),
        ):
            lacking = int(n - whole.sum())
            if lacking and not only:
                raise RecordingError(
                    f"{self._source}: {lacking} of {n} rows lack {what} (the first is row "
                    f"{int(np.flatnonzero(~whole)[0]) + 1}); --complete-only keeps the others, "
                    f"which is sound if {how}"
                )
        return np.flatnonzero(answered & known)

    def _filled(self, name: str, n: int) -> npt.NDArray[np.bool_]:
        """Return which cells of a column, if it is there, are not empty."""
        cells = self._table.get(name)
        if cells is None:
            return np.zeros(n, dtype=np.bool_)
        return np.fromiter((not is_empty(cell) for cell in cells), np.bool_, n)

    def digest(self) -> str:
        """Return the digest of all the cells."""
        data = hashlib.blake2b(digest_size=16)
        for name in self._table:
            data.update(repr((name, [str(cell) for cell in self._table[name]])).encode())
        return data.hexdigest()


def _kept(cells: Any, keep: Column) -> Any:
    """Return the cells of a column that are kept: what others hold decides nothing."""
    return cells if len(keep) == len(cells) else [cells[i] for i in keep.tolist()]


def _answers(cells: Any) -> Column:
    """Return answers (n,): an array, or objects where some are lists, dicts or arrays."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind != "O":
        return cells
    if not any(isinstance(cell, _NESTED) for cell in cells):
        return np.asarray(cells)
    plain = (cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells)
    return np.fromiter(plain, dtype=object, count=len(cells))


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing: None, no text, NaN, or what pandas has for it."""
    if cell is None or isinstance(cell, _NESTED):
        return cell is None
    try:
        return bool(cell == "" or cell != cell)  # noqa: PLR0124  NaN
    except TypeError:  # NA is neither equal to itself nor not
        return True


def is_number(cell: Any) -> bool:
    """Whether a cell spells a number."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
