"""The rows that tiers are measured and judged on: from .npy and .npz files, or golden inputs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.bundle import load_golden
from cascade.errors import InputValueError

if TYPE_CHECKING:
    import numpy.typing as npt

    from cascade.policy import Policy

    Array = npt.NDArray[Any]

__all__ = ["Data", "Parts", "golden_rows", "load_data", "split"]


@attrs.frozen(eq=False)
class Data:
    """Rows by input name, (n, …) each, and the truth (n,) where it is known.

    The name is "" where there is one input, whatever its model calls it.

    >>> data = Data({"": np.zeros((3, 4))}, np.array([0, 1, 1]))
    >>> data.n, data.take([0]).truth.tolist(), data.row(1).shape
    (3, [0], (4,))
    """

    columns: dict[str, Array]
    truth: Array | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    @property
    def rows(self) -> Any:
        """The rows as a router takes them: an array, or a dict of arrays."""
        return self.columns.get("", self.columns)

    def row(self, i: int) -> Any:
        """Return row i, counted round: an array without the first axis, or a dict of them."""
        i %= self.n
        if "" in self.columns:
            return self.columns[""][i]
        return {name: column[i] for name, column in self.columns.items()}

    def take(self, index: Any) -> Data:
        """Return the rows of ``index``."""
        truth = None if self.truth is None else self.truth[index]
        return Data({name: column[index] for name, column in self.columns.items()}, truth)

    def batch(self, start: int, size: int) -> Any:
        """Return ``size`` rows from ``start`` on, counted round, as a router takes them."""
        return self.take(np.arange(start, start + size) % self.n).rows


@attrs.frozen(eq=False)
class Parts:
    """Disjoint rows: to learn from, to choose by, and to certify on."""

    learn: Data
    choose: Data
    certify: Data


def split(data: Data, seed: int = 0) -> Parts:
    """Split at random: a quarter to learn from, three eighths to choose by, the rest to certify on.

    Quantisers are calibrated and temperatures fitted on the first, candidates pass the gate on the
    second; the certificate is tested on rows that had a say in neither. The same seed on the same
    data gives the same parts to every command.

    >>> parts = split(Data({"": np.zeros((80, 2))}))
    >>> parts.learn.n, parts.choose.n, parts.certify.n
    (20, 30, 30)
    """
    order = np.random.default_rng(seed).permutation(data.n)
    first, second = data.n // 4, data.n // 4 + 3 * data.n // 8
    cut = (order[:first], order[first:second], order[second:])
    return Parts(*(data.take(np.sort(index)) for index in cut))


def load_data(path: str | Path) -> Data:
    """Read ``.npy`` (the rows) or ``.npz``: X and, where known, y; or one array per input, and y.

    Raises:
        InputValueError: the file is not one of these, or its arrays do not fit together.
    """
    path = Path(path)
    if path.suffix not in {".npy", ".npz"}:
        raise InputValueError(f"{path}: expected a .npy or .npz file")
    try:
        with path.open("rb") as file:  # of a broken archive NumPy would leave its own open
            found = np.load(file, allow_pickle=False)
            plain = isinstance(found, np.ndarray)
            arrays = {"X": found} if plain else {key: found[key] for key in found.files}
    except OSError as error:
        raise InputValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error):  # what NumPy takes any other file for
            error = ValueError("it holds something else")
        raise InputValueError(f"{path}: not a file of plain arrays: {error}") from error
    return _checked(arrays, path)


def _checked(arrays: dict[str, Array], path: Path) -> Data:
    truth = arrays.pop("y", None)
    if not arrays:
        raise InputValueError(f"{path}: expected X, or an array per input; it has no rows")
    if len(arrays) > 1 and "X" in arrays:
        others = ", ".join(sorted(set(arrays) - {"X"}))
        raise InputValueError(f"{path}: X stands beside {others}; the truth is called y")
    for name, array in arrays.items():
        if array.ndim < 1 or not len(array):
            raise InputValueError(f"{path}: {name}: expected rows, got the shape {array.shape}")
    sizes = {name: len(array) for name, array in arrays.items()}
    if truth is not None:
        sizes["y"] = _labels(truth, path)
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputValueError(f"{path}: expected as many rows in each; got {said}")
    if set(arrays) == {"X"}:
        arrays = {"": arrays["X"]}
    return Data(arrays, truth)


def _labels(truth: Array, path: Path) -> int:
    """Count the labels of y; each row has one."""
    if truth.ndim != 1:
        raise InputValueError(
            f"{path}: y: expected labels, one a row; got an array of {truth.ndim} axes"
        )
    lacking = int((truth != truth).sum()) if truth.dtype.kind == "f" else 0  # noqa: PLR0124  NaN
    lacking += int((truth == "").sum()) if truth.dtype.kind == "U" else 0
    if lacking:
        raise InputValueError(
            f"{path}: y: {lacking:,} of {len(truth):,} rows have no label, and nothing could be "
            "lost on them; leave them out"
        )
    return len(truth)


def golden_rows(policy: Policy) -> Data:
    """Return the golden inputs of a bundle as rows, those of the first tier that has some.

    Raises:
        InputValueError: the policy names no golden inputs.
    """
    for golden in load_golden(policy).values():
        columns = {name: np.asarray(array) for name, array in golden.inputs.items()}
        if len(columns) == 1:
            columns = {"": next(iter(columns.values()))}
        return Data(columns)
    raise InputValueError("the policy has no golden inputs: give DATA, a .npy or .npz file of rows")
