"""Recordings: what each tier answered to each request, as columns.

One row per request: ``truth``, and for each tier, cheapest first, ``<tier>.value`` (or
``<tier>.correct``), ``<tier>.confidence``, ``<tier>.margin``, ``<tier>.quality``,
``<tier>.agrees``, ``<tier>.seconds``, ``<tier>.cost``; also ``id``, ``at``, ``input``, ``tenant``
and ``x.<feature>``. A ``request`` is for people; nothing is fitted to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from cascade.complexity import TEXT_FEATURES
from cascade.errors import RecordingError
from cascade.fitting.cells import AMOUNTS, FLAGS, FRACTIONS, Cells, is_number
from cascade.fitting.tables import read_table
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    Column = npt.NDArray[Any]
    Costs = Sequence[float] | npt.NDArray[Any]

__all__ = ["Recording", "TierColumns"]

_FIELDS = ("value", *FLAGS, *FRACTIONS, *AMOUNTS, "score")
_ANSWERS = ("value", "correct", "agrees", "quality")
_DEAREST = 1e100  # a cost; sums and ratios of it stay finite
_SHARED = ("truth", "id", "at", "policy", "sampled", "input", "request", "tenant")


@attrs.frozen(eq=False)
class TierColumns:
    """What one tier said on n rows; every column is (n,) or None."""

    name: str
    value: Column | None = None
    correct: Column | None = None
    agrees: Column | None = None
    confidence: Column | None = None
    margin: Column | None = None
    quality: Column | None = None
    seconds: Column | None = None
    cost: Column | None = None
    score: Column | None = None

    def __repr__(self) -> str:
        """Name the columns that there are."""
        held = [name for name in _FIELDS if getattr(self, name) is not None]
        return f"TierColumns({', '.join([repr(self.name), *held])})"

    def take(self, rows: Any) -> TierColumns:
        """Return these rows of every column."""
        columns = {name: getattr(self, name) for name in _FIELDS}
        return TierColumns(
            self.name, **{k: None if c is None else c[rows] for k, c in columns.items()}
        )


@attrs.frozen(eq=False)
class Recording:
    """n requests, and what each of K tiers answered to them, cheapest first.

    >>> recording = Recording.from_columns(
    ...     {
    ...         "truth": ["cat", "dog"],
    ...         "small.value": ["cat", "cat"],
    ...         "small.confidence": [0.9, 0.4],
    ...         "large.value": ["cat", "dog"],
    ...     }
    ... )
    >>> recording.n, recording.names, recording.right().tolist()
    (2, ('small', 'large'), [[True, True], [False, True]])
    """

    tiers: tuple[TierColumns, ...]
    n: int
    digest: str
    truth: Column | None = None
    features: Mapping[str, Column] = attrs.field(factory=dict)
    text: Column | None = None
    ids: Column | None = None
    at: Column | None = None
    source: str = "recording"

    def __repr__(self) -> str:
        """Show its size; what it holds of the requests is not for logs."""
        return f"Recording({self.source!r}, n={self.n}, tiers={self.names})"

    # -- reading ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | Path, *, complete_only: bool = False) -> Self:
        """Read a CSV, CSV.gz or Parquet file, a folder of them, or a glob.

        ``complete_only`` keeps the rows that have every tier's value and, where others have one,
        the truth.

        Raises:
            RecordingError: the file cannot be read, or a cell cannot be used; it names the place.
            MissingExtra: Parquet needs the extra ``parquet``.
        """
        table = read_table(Path(path), only="recording")
        return cls._made(table, str(path), complete_only=complete_only)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, complete_only: bool = False) -> Self:
        """Take columns that are in memory: a mapping of names to sequences, or a data frame.

        Raises:
            RecordingError: a column is unknown or of another length, or a cell cannot be used.
        """
        if not hasattr(columns, "keys"):
            raise RecordingError(
                "recording: expected a path, a mapping of names to columns, or a data frame of "
                f"pandas, got {a_kind(columns)}"
            )
        table = {str(name): _cells_of(str(name), columns[name]) for name in columns.keys()}  # noqa: SIM118  a frame has no others
        return cls._made(table, "recording", complete_only=complete_only)

    @classmethod
    def of(cls, given: Any, *, complete_only: bool = False) -> Self:
        """Return a recording as it is, or read it from a path, a mapping or a data frame."""
        if isinstance(given, cls):
            return given
        if isinstance(given, (str, Path)):
            return cls.read(given, complete_only=complete_only)
        return cls.from_columns(given, complete_only=complete_only)

    @classmethod
    def _made(cls, table: Mapping[str, Any], source: str, *, complete_only: bool) -> Self:
        names = _tier_names(table, source)
        sizes = {len(column) for column in table.values()}
        if len(sizes) != 1 or sizes == {0}:
            what = "no rows" if sizes == {0} else f"columns of different lengths {sorted(sizes)}"
            raise RecordingError(f"{source}: {what}")
        read = Cells(table, source)
        keep = read.complete(names, only=complete_only)
        tiers = tuple(
            TierColumns(name, **{field: read(f"{name}.{field}", keep) for field in _FIELDS})
            for name in names
        )
        shared = {name: read(name, keep) for name in ("truth", "input", "id", "at")}
        features = {name[2:]: read.numbers(name, keep) for name in table if name.startswith("x.")}
        made = cls(
            tiers, len(keep), read.digest(), shared["truth"], features, shared["input"],
            shared["id"], shared["at"], source,
        )  # fmt: skip
        made.check()
        return made

    # -- looking ---------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tiers, cheapest first."""
        return tuple(tier.name for tier in self.tiers)

    @cached_property
    def shown(self) -> Mapping[str, Column]:
        """What is known of each input: its ``x.*``, or the statistics of its text."""
        if self.features or self.text is None:
            return self.features
        texts = self.text.tolist()
        return {
            name: np.fromiter(map(count, texts), dtype=np.float64, count=len(texts))
            for name, count in TEXT_FEATURES.items()
        }

    def check(self) -> None:
        """Refuse what no threshold could be fitted from.

        Raises:
            RecordingError: fewer than two tiers, or one that cannot be served.
        """
        if len(self.tiers) < 2:
            raise RecordingError(
                f"{self.source}: expected the columns of two tiers or more, got "
                f"{', '.join(self.names)}"
            )
        for tier in self.tiers[:-1]:
            if tier.score is not None and tier.confidence is None and tier.margin is None:
                raise RecordingError(
                    f"{self.source}: {tier.name}.score alone cannot be served; give "
                    f"{tier.name}.confidence, any rising function of it into [0, 1]"
                )

    def select(self, tiers: Sequence[str]) -> Self:
        """Return the recording of these tiers alone, in this order.

        Raises:
            RecordingError: no such tier, or one twice.
        """
        held = {tier.name: tier for tier in self.tiers}
        if len(set(tiers)) < len(tiers):
            raise RecordingError(f"tiers: expected each once, got {', '.join(tiers)}")
        for name in tiers:
            if name not in held:
                close = difflib.get_close_matches(name, held, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise RecordingError(
                    f"{self.source}: no tier {name!r}{hint} (it has {', '.join(held)})"
                )
        return attrs.evolve(self, tiers=tuple(held[name] for name in tiers))

    def take(self, rows: Any) -> Self:
        """Return these rows."""
        part: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("truth", "text", "ids", "at")
        }
        return attrs.evolve(
            self,
            tiers=tuple(tier.take(rows) for tier in self.tiers),
            n=len(np.arange(self.n)[rows]),
            features={name: column[rows] for name, column in self.features.items()},
            **part,
        )

    def right(self, same: Callable[[Any, Any], Any] | None = None) -> npt.NDArray[Any] | None:
        """Return (n, K): whether each tier is right, its quality where that is given, else None.

        Raises:
            RecordingError: labels of different types, and nothing says when two are the same.
        """
        columns: list[Any] = []
        compared: dict[str, Column] = {}
        for tier in self.tiers:
            if tier.quality is not None:
                columns.append(tier.quality)
            elif tier.correct is not None:
                columns.append(tier.correct)
            elif tier.value is not None and self.truth is not None:
                columns.append(_agree(tier.value, self.truth, same))
                compared |= {tier.name: tier.value, "truth": self.truth}
            else:
                return None
        self._comparable(compared, same)
        return np.column_stack(columns)

    def agrees(self, same: Callable[[Any, Any], Any] | None = None) -> npt.NDArray[np.bool_]:
        """Return (n, K): whether each tier's answer is the top tier's.

        Raises:
            RecordingError: labels of different types, and nothing says when two are the same.
        """
        top, columns = self.tiers[-1], []
        compared: dict[str, Column] = {}
        for tier in self.tiers:
            if tier is top:
                columns.append(np.ones(self.n, dtype=np.bool_))
            elif tier.agrees is not None:
                columns.append(tier.agrees)
            elif tier.value is not None and top.value is not None:
                columns.append(_agree(tier.value, top.value, same))
                compared |= {tier.name: tier.value, top.name: top.value}
            else:
                raise RecordingError(
                    f"{self.source}: {tier.name} and {top.name} have no values to compare; give "
                    f"{tier.name}.agrees"
                )
        self._comparable(compared, same)
        return np.column_stack(columns)

    def _comparable(self, columns: Mapping[str, Column], same: Any) -> None:
        """Refuse labels that equality would tell apart by how they are written."""
        kinds = {} if same is not None else {name: _kind(held) for name, held in columns.items()}
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
            raise RecordingError(
                f"{self.source}: labels of different types ({said}); write them alike, or say when "
                "two are the same: same=… or --same, number:0 or strip"
            )

    def costs(self, given: Costs | None = None) -> npt.NDArray[np.float64]:
        """Return (K,): the mean cost of a call per tier: given, ``.cost``, else ``.seconds``.

        Raises:
            RecordingError: there is none, or one is negative or not finite.
        """
        if given is not None:
            if isinstance(given, (str, Mapping)) or not hasattr(given, "__len__"):
                raise RecordingError(
                    f"costs: expected a list of numbers, one per tier ({', '.join(self.names)}), "
                    f"got {given!r}"
                )
            if len(given) != len(self.tiers):
                raise RecordingError(
                    f"costs: expected one per tier ({', '.join(self.names)}), got {len(given)}"
                )
            return _sound_costs(given, "costs")
        for field in ("cost", "seconds"):
            columns = [getattr(tier, field) for tier in self.tiers]
            if all(column is not None for column in columns):
                with np.errstate(over="ignore"):
                    means = [column.mean() for column in columns]
                return _sound_costs(means, f"{self.source}: the mean of .{field}")
        missing = self.tiers[0].name
        raise RecordingError(
            f"{self.source}: no {missing}.cost and no {missing}.seconds for every tier; say what "
            f"a call costs: costs=[…] or --costs 0.01,1"
        )


def _cells_of(name: str, column: Any) -> Any:
    """Return a column by its places: a frame's has an index of its own.

    What is in an array of objects, as pandas has of texts, says what they are.
    """
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind not in "OT":
        return column
    twice = hasattr(column, "columns")
    if twice or isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
        got = "several" if twice else a_kind(column)
        raise RecordingError(f"recording: column {name!r}: expected a list of cells, got {got}")
    return list(column)


def _tier_names(table: Mapping[str, Any], source: str) -> list[str]:
    names: dict[str, None] = {}
    for column in table:
        name, dot, field = column.rpartition(".")
        if name == "x" or column.startswith("x.") or column in _SHARED:
            continue
        if not dot or field not in _FIELDS:
            meant = (field if dot else column).strip().casefold()
            close = difflib.get_close_matches(meant, [*_FIELDS, *_SHARED], 1)
            hint = f"; leave it out, or name it x.{column}, if it shows what an input is like"
            hint = hint if column else "; is it a frame's index? Write the table without it"
            hint = f"; did you mean {f'{name}.' if dot else ''}{close[0]}?" if close else hint
            raise RecordingError(f"{source}: unknown column {column!r}{hint}")
        names.setdefault(name)
    _check_names(names, table, source)
    return list(names)


def _check_names(names: Iterable[str], table: Mapping[str, Any], source: str) -> None:
    """Refuse a tier that is another one by a slip, and one whose columns are taken for features."""

    def answers(name: str) -> bool:
        return any(f"{name}.{field}" in table for field in _ANSWERS)

    if answers("x") and ("x.confidence" in table or "x.margin" in table):
        raise RecordingError(
            f"{source}: no tier can be called x: x.… is what an input shows; name it otherwise"
        )
    held = {name.strip().casefold(): name for name in names if answers(name)}
    for name in names:
        twin = held.get(name.strip().casefold(), name)
        if twin != name and not answers(name):
            raise RecordingError(
                f"{source}: the columns of {name!r} hold no answers; did you mean {twin!r}?"
            )


def _sound_costs(costs: Costs, where: str) -> npt.NDArray[np.float64]:
    try:
        found = np.asarray(costs, dtype=np.float64)
    except (TypeError, ValueError):
        raise RecordingError(f"{where}: expected numbers, got {list(costs)!r}") from None
    for cost in found.tolist():
        if not 0.0 <= cost <= _DEAREST:
            raise RecordingError(f"{where}: expected finite numbers of 0 or more, got {cost:g}")
    return found


def _kind(column: Column) -> str:
    """What labels are: numbers, or text that spells whole numbers or fractions throughout."""
    if column.dtype.kind != "U":
        return {"b": "booleans", "O": "objects"}.get(column.dtype.kind, "numbers")
    labels = np.unique(column).tolist()
    if all(label.lstrip("-").isdecimal() for label in labels):
        return "integers as text"
    return "decimals as text" if all(map(is_number, labels)) else "text"


def _agree(
    mine: Column, other: Column, same: Callable[[Any, Any], Any] | None
) -> npt.NDArray[np.bool_]:
    if same is None:
        return np.asarray(mine == other, dtype=np.bool_)
    pairs = zip(mine.tolist(), other.tolist(), strict=True)
    return np.fromiter((bool(same(a, b)) for a, b in pairs), np.bool_, len(mine))
