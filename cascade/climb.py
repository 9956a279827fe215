"""The ladder over columns: the rules of ``decide``, for n rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.decide import REFUSALS
from cascade.tiers.columns import object_column
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from cascade.cache import Entry
    from cascade.plan import Plan
    from cascade.protocols import Clock

__all__ = ["Climb", "Run"]

_D = {disposition: code for code, disposition in enumerate(Disposition)}
_R = {reason: code for code, reason in enumerate(Reason)}
_NONE = -1
_CHUNK = 256  # rows per model run where a deadline has to be honoured between runs
_NANO = 1_000_000_000


@attrs.define(eq=False)
class Run:
    """One run of one tier, or its refusal, with the rows (sorted) that took part."""

    tier: int
    rows: npt.NDArray[np.intp]
    started: int
    finished: int
    threshold: float | None = None
    confidences: npt.NDArray[np.float64] | None = None
    accepted: npt.NDArray[np.bool_] = attrs.field(factory=lambda: np.zeros(0, dtype=np.bool_))
    failed: npt.NDArray[np.bool_] = attrs.field(factory=lambda: np.zeros(0, dtype=np.bool_))
    forced: bool = False
    refusal: Reason | None = None
    eta: int = -1
    left: int = -1

    def results(self) -> dict[str, int]:
        """Count the rows by the result of their step."""
        if self.refusal is not None:
            return {"refused": len(self.rows)}
        failed, accepted = int(self.failed.sum()), int(self.accepted.sum())
        counts = {"accepted": accepted, "failed": failed}
        counts["forced" if self.forced else "unsure"] = len(self.rows) - failed - accepted
        return {result: count for result, count in counts.items() if count}


class _BatchContext:
    """The context of a batch run."""

    def __init__(
        self, until: int, clock: Clock, tenant: str | None, metadata: Mapping[str, Any]
    ) -> None:
        self.tenant = tenant
        self.metadata = metadata
        self._until = until
        self._clock = clock

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return (self._until - self._clock()) / _NANO

    def cancelled(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._until


class Climb:
    """The columns of one batch on its way up."""

    def __init__(
        self, plan: Plan, n: int, floor: int, until: int, clock: Clock, tenant: str | None,
        metadata: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.n = n
        self.values: npt.NDArray[Any] = np.empty(0)
        self.tier = np.full(n, _NONE, dtype=np.int16)
        self.confidences = np.full(n, np.nan)
        self.covered = np.zeros(n, dtype=np.bool_)
        self.disposition = np.full(n, _NONE, dtype=np.int16)
        self.reason = np.full(n, _NONE, dtype=np.int16)
        self.runs: list[Run] = []
        self._plan = plan
        self._floor = floor
        self._until = until
        self._clock = clock
        self._context = _BatchContext(until, clock, tenant, metadata)
        self._why = np.full(n, _NONE, dtype=np.int16)  # what first stood in a row's way
        self._strayed = np.zeros(n, dtype=np.bool_)
        self._faulted = np.zeros(n, dtype=np.bool_)
        self._tried = np.zeros((len(plan.lanes), n), dtype=np.bool_)

    def run(self, rows: Any, hard: npt.NDArray[np.float64] | None) -> None:
        """Take every row that has not ended to its end."""
        top = len(self._plan.lanes) - 1
        entry = self._entries(hard)
        at = entry.copy()  # the tier that a row is about to ask
        at[self.disposition != _NONE] = top + 1
        useful = self._useful()
        for tier in range(self._floor, top + 1):
            here = np.flatnonzero(at == tier)
            if len(here):
                at[here] = useful[tier + 1]
                self._ask(tier, here, rows, at)
        self._fall_back(rows, entry)
        self._give_up()

    def place(self, i: int, held: Entry) -> None:
        """Fill one row from the cache."""
        self._values_as(object)[i] = held.out()
        self.tier[i] = held.finish.rank
        self.confidences[i] = np.nan if held.confidence is None else held.confidence
        self.covered[i] = held.finish.covered

    # -- the way up ------------------------------------------------------------------------------

    def _entries(self, hard: npt.NDArray[np.float64] | None) -> npt.NDArray[np.int16]:
        entry = np.full(self.n, self._floor, dtype=np.int16)
        if hard is not None and not self._plan.ladder.first_only:
            for cut in self._plan.point.skip_above[self._floor :]:
                entry += hard >= cut  # cuts do not fall, so counting them is stopping at the first
        return self._useful()[entry]

    def _useful(self) -> npt.NDArray[np.int16]:
        """The nearest tier at or above each that could be accepted; the last entry is 'done'."""
        top = len(self._plan.lanes) - 1
        nearest = np.arange(top + 2, dtype=np.int16)
        for tier in range(top - 1, -1, -1):
            if self._plan.point.thresholds[tier] > 1.0 and not self._plan.ladder.first_only:
                nearest[tier] = nearest[tier + 1]
        return nearest

    def _ask(
        self, tier: int, here: npt.NDArray[np.intp], rows: Any, at: npt.NDArray[np.int16]
    ) -> None:
        """Ask one tier for its rows; those that end do not go on."""
        top = len(self._plan.lanes) - 1
        for part in self._parts(here):
            run = self._run_tier(tier, part, rows)
            if run.refusal is Reason.DEADLINE:
                at[part[self.tier[part] == _NONE]] = top + 1  # only cheaper tiers may be in time
            if run.refusal is not None:
                continue
            done = run.accepted
            if self._plan.ladder.first_only and tier < top:
                done = ~run.failed
                self._end(part[done], Disposition.DEGRADED, Reason.MODE)
            else:
                self._accept(tier, part[done], run)
            at[part[done]] = top + 1

    def _parts(self, here: npt.NDArray[np.intp]) -> Iterable[npt.NDArray[np.intp]]:
        if self._until >= 2**62 or len(here) <= _CHUNK:
            return [here]
        return np.array_split(here, -(-len(here) // _CHUNK))

    def _run_tier(self, tier: int, part: npt.NDArray[np.intp], rows: Any) -> Run:
        lane = self._plan.lanes[tier]
        now = self._clock()
        self._tried[tier, part] = True
        eta, left = lane.eta(len(part)), self._until - now
        if not 0 <= eta <= left:
            reason = REFUSALS.get(eta, Reason.DEADLINE)
            self._blame(part, reason)
            self._strayed[part] = True
            run = Run(tier, part, now, now, refusal=reason, eta=eta, left=max(0, left))
            self.runs.append(run)
            return run
        try:
            values, confidences, started, finished = lane.call_rows(
                rows if len(part) == self.n else take(rows, part), len(part), self._context
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001  a tier may raise anything; the rows go on
            values, confidences = None, None
            started, finished = now, self._clock()
        run = self._weigh(tier, part, values, confidences, (started, finished))
        self.runs.append(run)
        return run

    def _weigh(
        self, tier: int, part: npt.NDArray[np.intp], values: Any,
        confidences: npt.NDArray[np.float64] | None, times: tuple[int, int],
    ) -> Run:  # fmt: skip
        top = len(self._plan.lanes) - 1
        threshold = None if tier == top else self._plan.point.thresholds[tier]
        if values is None or (confidences is None and tier != top):
            failed = np.ones(len(part), dtype=np.bool_)
        elif confidences is None:
            failed = np.zeros(len(part), dtype=np.bool_)
        else:
            failed = np.isnan(confidences)
        sure = np.ones(len(part), dtype=np.bool_)
        if threshold is not None and confidences is not None:
            sure = confidences >= threshold  # so written, NaN escalates
        if values is not None:
            self._answer(tier, part, ~failed, values, confidences)
        self._blame(part[failed], Reason.FAULT)
        self._faulted[part[failed]] = True
        return Run(tier, part, *times, threshold, confidences, sure & ~failed, failed)

    def _answer(
        self, tier: int, part: npt.NDArray[np.intp], sound: npt.NDArray[np.bool_], values: Any,
        confidences: npt.NDArray[np.float64] | None,
    ) -> None:  # fmt: skip
        if len(part) == self.n and sound.all():
            self.values = values if values.flags.writeable else values.copy()
            self.tier[:] = tier
            self.confidences = (
                np.full(self.n, np.nan) if confidences is None else confidences.copy()
            )
            return
        rows = part[sound]
        column = self._values_as(values.dtype)
        column[rows] = values[sound]
        self.tier[rows] = tier
        self.confidences[rows] = np.nan if confidences is None else confidences[sound]

    def _values_as(self, dtype: Any) -> npt.NDArray[Any]:
        """Return the value column, able to hold this dtype too without changing a value's type."""
        held = self.values
        if len(held) != self.n:
            self.values = np.zeros(self.n, dtype=dtype)
        elif held.dtype != dtype:
            wide = held.dtype.kind == np.dtype(dtype).kind and held.dtype.kind in "iufUS"
            joint = np.promote_types(held.dtype, dtype) if wide else np.dtype(object)
            self.values = held.astype(joint) if wide else object_column(held.tolist())
        return self.values

    def _accept(self, tier: int, rows: npt.NDArray[np.intp], run: Run) -> None:  # noqa: ARG002
        top = tier == len(self._plan.lanes) - 1
        self._end(rows, Disposition.ACCEPTED, Reason.TOP if top else Reason.CONFIDENT)
        trusted = self._plan.point.certified & ~(self._strayed[rows] | self._faulted[rows])
        self.covered[rows] = True if top else trusted
        limit = self._plan.ladder.abstain_below
        if top and limit is not None:
            low = rows[self.confidences[rows] < limit]
            self._end(low, Disposition.ABSTAINED, Reason.UNSURE)
            self.covered[low] = False

    # -- ends without an accepted answer ---------------------------------------------------------

    def _fall_back(self, rows: Any, entry: npt.NDArray[np.int16]) -> None:
        """Without an answer yet: the nearest cheaper tier that can, as a forced accept."""
        for tier in range(len(self._plan.lanes) - 2, self._floor - 1, -1):
            lost = (self.disposition == _NONE) & (self.tier == _NONE)
            here = np.flatnonzero(lost & (entry > tier) & ~self._tried[tier])
            if len(here):
                run = self._run_tier(tier, here, rows)
                run.accepted[:], run.forced = False, True

    def _give_up(self) -> None:
        rest = np.flatnonzero(self.disposition == _NONE)
        if not len(rest):
            return
        held = self.tier[rest] != _NONE
        answered, lost = rest[held], rest[~held]
        limit = self._plan.ladder.abstain_below
        self.disposition[answered] = _D[Disposition.DEGRADED]
        self.reason[answered] = np.where(
            self._why[answered] == _NONE, _R[Reason.FAULT], self._why[answered]
        )
        if limit is not None:
            low = answered[self.confidences[answered] < limit]
            self._end(low, Disposition.ABSTAINED, Reason.UNSURE)
        late = self._why[lost] == _R[Reason.DEADLINE]
        failed = late | self._faulted[lost]
        shed = Disposition.SHED
        self.disposition[lost] = np.where(failed, _D[Disposition.FAILED], _D[shed])
        faulted = self._faulted[lost]
        self.reason[lost] = np.where(faulted, _R[Reason.FAULT], self._why[lost])

    def _end(self, rows: npt.NDArray[np.intp], disposition: Disposition, reason: Reason) -> None:
        self.disposition[rows] = _D[disposition]
        self.reason[rows] = _R[reason]

    def _blame(self, rows: npt.NDArray[np.intp], reason: Reason) -> None:
        fresh = rows[self._why[rows] == _NONE]
        self._why[fresh] = _R[reason]


def take(rows: Any, index: npt.NDArray[np.intp]) -> Any:
    """Return these rows of a batch: an array, a list, or a dict of those."""
    if isinstance(rows, np.ndarray):
        return rows[index]
    if isinstance(rows, dict):
        return {name: take(column, index) for name, column in rows.items()}
    return [rows[i] for i in index.tolist()]
