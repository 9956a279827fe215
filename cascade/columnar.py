"""The columnar driver: the decision restated over columns, one model run per tier.

Not a driver of the state machine but its vectorised restatement over the same compiled point; a
property test holds the two together. Objects per row are made only when somebody asks for them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import attrs
import numpy as np

from cascade.cache import entry as cache_entry
from cascade.climb import Climb
from cascade.outcome import Outcome, next_serial
from cascade.runs import FOREVER
from cascade.tiers.columns import object_column, plain
from cascade.types import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from cascade.engine import Engine
    from cascade.plan import Plan
    from cascade.runs import BatchContext
    from cascade.types import Finish, RawStep, Site

__all__ = ["Batch", "Outcomes", "route_rows"]

V = TypeVar("V")

_ROW_BITS = 40  # of a row's serial: its place; above them that of its batch


@attrs.frozen(eq=False)
class Batch:
    """A batch as it is asked for: its rows, the lowest tier, on whose behalf and until when."""

    data: Any
    arrived: int
    floor: int
    use_cache: bool
    context: BatchContext


@attrs.frozen(eq=False)
class _Times:
    arrived: int
    routed: int
    ended: int
    budget: int | None


class Outcomes(Generic[V]):
    """The outcomes of a batch as columns; iterate or index it for Outcome objects.

    ``values`` (n,), None where a row has no answer or abstains; ``tiers`` (n,) names or None;
    ``confidences`` (n,) float64 with NaN where there is none; ``dispositions`` and ``reasons`` (n,)
    of the enums; ``covered`` (n,) bool.

    >>> import cascade, numpy as np
    >>> policy = cascade.Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "one",
    ...         "deadline": "1s",
    ...         "tiers": [{"name": "only", "kind": "external"}],
    ...     }
    ... )
    >>> with cascade.Router(policy, tiers={"only": lambda xs: [len(x) for x in xs]}) as router:
    ...     many = router.route_many(["a", "bb", "ccc"])
    >>> many.values.tolist(), many.tiers.tolist(), many[2].value
    ([1, 2, 3], ['only', 'only', 'only'], 3)
    """

    def __init__(self, climb: Climb, site: Site, times: _Times) -> None:
        self._values: npt.NDArray[Any] = climb.values
        self.confidences: npt.NDArray[np.float64] = climb.confidences
        self._end = climb.end
        self._ends = climb.ends
        self._runs = climb.runs
        self._site = site
        self._times = times
        self._serial = next_serial() << _ROW_BITS
        self._withheld = [_withholds(finish) for finish in climb.ends]
        self._shown = None if any(self._withheld) else climb.values

    def _column(self, of: Callable[[Finish], Any]) -> npt.NDArray[Any]:
        """Return one thing that is said of each row's end."""
        return object_column([of(finish) for finish in self._ends])[self._end]

    @property
    def values(self) -> npt.NDArray[Any]:
        """The answers; where a row has none the column holds Python values, and None."""
        if self._shown is None:
            shown = np.empty(len(self), dtype=object)
            withheld = np.asarray(self._withheld, dtype=np.bool_)[self._end]
            shown[~withheld] = object_column(self._values[~withheld].tolist())
            self._shown = shown
        return self._shown

    @property
    def tiers(self) -> npt.NDArray[Any]:
        """The names of the tiers that answered, None where none did."""
        return self._column(lambda finish: finish.tier)

    @property
    def dispositions(self) -> npt.NDArray[Any]:
        """How each row ended."""
        return self._column(lambda finish: finish.disposition)

    @property
    def reasons(self) -> npt.NDArray[Any]:
        """Why each row ended so."""
        return self._column(lambda finish: finish.reason)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Whether the certificate's promise covers each row's answer."""
        return self._column(lambda finish: finish.covered).astype(np.bool_)

    @property
    def seconds(self) -> float:
        """How long the whole call took."""
        return (self._times.ended - self._times.arrived) * 1e-9

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._end)

    @overload
    def __getitem__(self, index: int) -> Outcome[V]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome[V]]: ...
    def __getitem__(self, index: int | slice) -> Outcome[V] | list[Outcome[V]]:
        """Return the outcome of one row, or a list for a slice."""
        if isinstance(index, slice):
            return [self._outcome(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            msg = f"row {index} of {len(self)}"
            raise IndexError(msg)
        return self._outcome(index % len(self))

    def __iter__(self) -> Iterator[Outcome[V]]:
        """Yield an Outcome per row."""
        return map(self._outcome, range(len(self)))

    def __repr__(self) -> str:
        """Count the dispositions."""
        counts = Counter(self.dispositions.tolist())
        found = "".join(f", {disposition}={n}" for disposition, n in sorted(counts.items()))
        return f"Outcomes(n={len(self)}{found})"

    def _outcome(self, i: int) -> Outcome[V]:
        finish = self._ends[self._end[i]]
        value = plain(self._values[i]) if finish.rank >= 0 else None
        extra: dict[str, Any] = {}
        if finish.disposition is Disposition.ABSTAINED:
            value, extra["best"] = None, value
        costs = [cost for run in self._runs if (cost := run.cost(i)) is not None]
        if costs:
            extra["cost"] = sum(costs)
        confidence = float(self.confidences[i])
        known = None if confidence != confidence else confidence  # noqa: PLR0124  NaN
        times = self._times
        trace = (finish, times.arrived, times.routed, times.ended, self._steps(i))
        return Outcome(
            self._serial + i, value, known, times.budget, trace, self._site, extra or None
        )

    def _steps(self, i: int) -> list[RawStep]:
        return [step for run in self._runs if (step := run.step(i)) is not None]


def _withholds(finish: Finish) -> bool:
    """Whether rows that end so show no answer."""
    return finish.rank < 0 or finish.disposition is Disposition.ABSTAINED


def route_rows(plan: Plan, batch: Batch) -> Outcomes[Any]:
    """Serve a batch, and count it; while it is on its way, too."""
    engine = plan.engine
    with engine.lock:
        engine.batches += 1
    try:
        outcomes = _routed(plan, batch)
    finally:
        with engine.lock:
            engine.batches -= 1
    if engine.observers:
        for outcome in outcomes:
            engine.observed(outcome)
    return outcomes


def _routed(plan: Plan, batch: Batch) -> Outcomes[Any]:
    engine, arrived = plan.engine, batch.arrived
    rows, n = plan.rows(batch.data)
    climb = Climb(plan, n, batch.floor, batch.context)
    keys = _look_up(plan, climb, rows, batch) if batch.use_cache else None
    hard = None
    if plan.rows_complexity is not None and plan.point.skip_above and n:
        hard = plan.rows_complexity(batch.data if plan.by_name else rows, n)
    routed = engine.clock()
    climb.run(rows, hard)
    if plan.post is not None:
        climb.post(plan.post)
    if keys is not None:
        _store(plan, climb, keys, batch)
    _count(engine, climb)
    until = batch.context.until
    budget = None if until >= FOREVER else until - arrived
    return Outcomes(climb, plan.site, _Times(arrived, routed, engine.clock(), budget))


def _look_up(plan: Plan, climb: Climb, rows: Any, batch: Batch) -> list[Any] | None:
    engine, tenant = plan.engine, batch.context.tenant
    cache = engine.cache
    if cache is None:
        return None
    keys = []
    for i in range(climb.n):
        key = plan.key(row_at(rows, i, declared=bool(plan.specs)))
        keys.append(key if tenant is None or key is None else (tenant, key))
    with engine.lock:
        for i, key in enumerate(keys):
            held = None if key is None else cache.get(key, batch.arrived)
            if held is None or held.finish.rank < batch.floor:
                engine.ledger.misses += key is not None
                continue
            climb.place(i, held)
    return keys


def row_at(rows: Any, i: int, *, declared: bool) -> Any:
    """Return one row of a batch; of declared inputs as it is cast alone, where numbers are arrays.

    >>> row_at(np.zeros(2), 0, declared=True), row_at({"a": [1, 2]}, 1, declared=False)
    (array(0.), {'a': 2})
    """
    if isinstance(rows, dict):
        return {name: row_at(column, i, declared=declared) for name, column in rows.items()}
    row = rows[i]
    return np.asarray(row) if declared and isinstance(row, np.generic) else row


def _store(plan: Plan, climb: Climb, keys: list[Any], batch: Batch) -> None:
    """Store the answers that were accepted, as ``Engine._land`` does."""
    engine, cache = plan.engine, plan.engine.cache
    promised = batch.floor > 0 and plan.point.certified
    kept = [end.hit if end.covered or not promised else None for end in climb.ends]
    for i, code in enumerate(climb.end.tolist()):
        hit = kept[code]
        if hit is None or keys[i] is None or cache is None:
            continue
        confidence = float(climb.confidences[i])
        known = None if confidence != confidence else confidence  # noqa: PLR0124  NaN
        item = cache_entry(plain(climb.values[i]), known, hit)
        if item is not None:
            with engine.lock:
                cache.put(keys[i], item, batch.arrived)


def _count(engine: Engine, climb: Climb) -> None:
    """Count the rows' ends and the tiers' calls."""
    ends = dict(zip(climb.ends, climb.counts, strict=True))
    calls: dict[tuple[int, str], int] = {}
    for run in climb.runs:
        for result, count in run.results().items():
            calls[run.tier, result] = calls.get((run.tier, result), 0) + count
    engine.ledger.add_rows(ends, calls)
