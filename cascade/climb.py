"""The ladder over columns: the rules of ``decide``, for n rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.decide import REFUSALS
from cascade.facts import RowsReply
from cascade.lanes.handle import Handle
from cascade.lanes.lane import EXITS
from cascade.lanes.watchdog import in_time
from cascade.tiers.columns import object_column
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from cascade.cache import Entry
    from cascade.plan import Plan
    from cascade.protocols import Clock, Lane
    from cascade.types import Finish

__all__ = ["Climb", "Run"]

_REASONS = list(Reason)
_R = {reason: code for code, reason in enumerate(Reason)}
_NONE = -1
_ALL = slice(None)
_CHUNK = 256  # rows per model run where a deadline has to be honoured between runs
_NANO = 1_000_000_000
_FOREVER = 2**62


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
    known: bool = True  # the version that the policy names
    late: bool = False  # it was stopped, or left, at the deadline
    refusal: Reason | None = None
    eta: int = -1
    left: int = -1

    def results(self) -> dict[str, int]:
        """Count the rows by the result of their step."""
        if self.refusal is not None:
            return {"refused": len(self.rows)}
        failed, accepted = int(self.failed.sum()), int(self.accepted.sum())
        counts = {"accepted": accepted, "timed_out" if self.late else "failed": failed}
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
    """The columns of one batch on its way up.

    ``end`` is, for each row, the place of its Finish in ``ends``; -1 until it has one. ``tier`` and
    ``confidences`` are those of the best answer so far.
    """

    def __init__(
        self, plan: Plan, n: int, floor: int, until: int, clock: Clock, tenant: str | None,
        metadata: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.n = n
        self.values: npt.NDArray[Any] = np.empty(0)
        self.tier = np.full(n, _NONE, dtype=np.int16)
        self.confidences = np.full(n, np.nan)
        self.end = np.full(n, _NONE, dtype=np.int16)
        self.ends: list[Finish] = []
        self.runs: list[Run] = []
        self._plan = plan
        self._top = len(plan.lanes) - 1
        self._first_only = plan.ladder.first_only
        self._floor = floor
        self._until = until
        self._clock = clock
        self._context = _BatchContext(until, clock, tenant, metadata)
        self._why = np.full(n, _NONE, dtype=np.int16)  # what first stood in a row's way
        self._strayed = np.zeros(n, dtype=np.bool_)
        self._faulted = np.zeros(n, dtype=np.bool_)
        self._deviated = False  # any row strayed or faulted
        self._purse = None if plan.allowance is None else plan.allowance.earn(tenant, n)
        self._overtaking = False  # nothing cheaper is left for the rows that go up
        self._tried = np.zeros((len(plan.lanes), n), dtype=np.bool_)

    def run(self, rows: Any, hard: npt.NDArray[np.float64] | None) -> None:
        """Take every row that has not ended to its end."""
        done, useful = self._top + 1, self._useful()
        entry = self._entries(hard, useful)
        at = entry.copy()  # the tier that a row is about to ask
        at[self.end != _NONE] = done
        self._ascend(rows, at, useful)
        if (self.end == _NONE).any():
            self._fall_back(rows, entry)
            self._overtake(rows, entry, useful)
            self._give_up()

    def _ascend(self, rows: Any, at: npt.NDArray[np.int16], useful: npt.NDArray[np.int16]) -> None:
        """Take the rows up from the tiers that they are about to ask."""
        for tier in range(self._floor, self._top + 1):
            here = np.flatnonzero(at == tier)
            if len(here):
                at[_ALL if len(here) == self.n else here] = useful[tier + 1]
                if self._deviated:  # some may have been here before
                    here = here[~self._tried[tier, here]]
                self._ask(tier, here, rows, at)

    def place(self, i: int, held: Entry) -> None:
        """Fill one row from the cache."""
        self._values_as(object)[i] = held.out()
        self.tier[i] = held.finish.rank
        self.confidences[i] = np.nan if held.confidence is None else held.confidence
        self.end[i] = self._code(held.finish)

    # -- the way up ------------------------------------------------------------------------------

    def _entries(
        self, hard: npt.NDArray[np.float64] | None, useful: npt.NDArray[np.int16]
    ) -> npt.NDArray[np.int16]:
        entry = np.full(self.n, useful[self._floor], dtype=np.int16)
        if hard is None or self._plan.ladder.first_only:
            return entry
        beyond = np.zeros(self.n, dtype=np.int16)
        for cut in self._plan.point.skip_above[self._floor :]:
            beyond += hard >= cut  # cuts do not fall, so counting them is stopping at the first
        skipping = np.flatnonzero(beyond)
        entry[skipping] = useful[self._floor + beyond[skipping]]
        return entry

    def _useful(self) -> npt.NDArray[np.int16]:
        """The nearest tier at or above each that could be accepted; the last entry is 'done'."""
        nearest = np.arange(self._top + 2, dtype=np.int16)
        for tier in range(self._top - 1, -1, -1):
            if self._plan.point.thresholds[tier] > 1.0 and not self._first_only:
                nearest[tier] = nearest[tier + 1]
        return nearest

    def _ask(
        self, tier: int, here: npt.NDArray[np.intp], rows: Any, at: npt.NDArray[np.int16]
    ) -> None:
        """Ask one tier for its rows; those that end do not go on."""
        first = self._first_only and tier < self._top
        if tier > self._floor and self._purse is not None:
            here = self._afford(tier, here)
        for part in self._parts(here) if len(here) else ():
            run = self._run_tier(tier, part, rows)
            if run.refusal is Reason.DEADLINE and not self._overtaking:
                # the cheaper ones first; not for those whose entry tier is down
                late = (self.tier[part] == _NONE) & (self._why[part] == _R[Reason.DEADLINE])
                at[part[late]] = self._top + 1
            if run.refusal is not None:
                continue
            ended = part[np.flatnonzero(~run.failed if first else run.accepted)]
            if first:
                self._end(ended, Disposition.DEGRADED, Reason.MODE, tier)
            else:
                self._accept(tier, ended, run.known)
            at[ended] = self._top + 1

    def _afford(self, tier: int, here: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Pay for as many rows as the allowance holds; refuse the others."""
        assert self._purse is not None  # noqa: S101  the caller looked
        paid = self._purse.take(len(here))
        if paid < len(here):
            self._refuse(tier, here[paid:], Reason.ALLOWANCE, self._clock())
        return here[:paid]

    def _refuse(
        self, tier: int, part: npt.NDArray[np.intp], reason: Reason, now: int, eta: int = -1
    ) -> Run:
        """Note that a tier was not to be had for these rows."""
        self._tried[tier, part] = True
        self._blame(part, reason)
        self._strayed[part] = self._deviated = True
        left = max(0, self._until - now)
        run = Run(tier, part, now, now, refusal=reason, eta=eta, left=left)
        self.runs.append(run)
        return run

    def _parts(self, here: npt.NDArray[np.intp]) -> Iterable[npt.NDArray[np.intp]]:
        if self._until >= _FOREVER or len(here) <= _CHUNK:
            return [here]
        return np.array_split(here, -(-len(here) // _CHUNK))

    def _run_tier(self, tier: int, part: npt.NDArray[np.intp], rows: Any) -> Run:
        lane = self._plan.lanes[tier]
        now = self._clock()
        everything = len(part) == self.n
        self._tried[tier, _ALL if everything else part] = True
        eta, left = lane.eta(len(part)), self._until - now
        if not 0 <= eta <= left:
            return self._refuse(tier, part, REFUSALS.get(eta, Reason.DEADLINE), now, eta)
        given = rows if everything else take(rows, part)
        try:
            reply = self._bounded(lane, given, len(part))
        except EXITS:
            raise
        except BaseException:  # noqa: BLE001  a tier may raise anything; the rows go on
            reply = RowsReply(None, None, now, self._clock())
        late = reply is None or (reply.values is None and self._clock() >= self._until)
        run = self._weigh(tier, part, reply or RowsReply(None, None, now, self._clock()), late)
        self.runs.append(run)
        return run

    def _bounded(self, lane: Lane, rows: Any, n: int) -> RowsReply | None:
        """Run a batch until the deadline of the whole call; None: it had to be left."""
        if self._until >= _FOREVER:
            return lane.call_rows(rows, n, self._context)
        handle = Handle(None, (self._context,))
        if lane.inline or lane.tier.can_stop:
            with self._plan.watchdog.over(handle, self._until):
                return lane.call_rows(rows, n, handle)
        return in_time(
            lambda: lane.call_rows(rows, n, handle), self._until - self._clock(), handle.stop
        )

    def _weigh(
        self,
        tier: int,
        part: npt.NDArray[np.intp],
        reply: RowsReply,
        late: bool,  # noqa: FBT001
    ) -> Run:
        top = tier == self._top
        values, confidences = reply.values, reply.confidences
        threshold = None if top else self._plan.point.thresholds[tier]
        if values is None or (confidences is None and not top):
            sound = np.zeros(len(part), dtype=np.bool_)
        elif confidences is None:
            sound = np.ones(len(part), dtype=np.bool_)
        else:
            sound = np.asarray(confidences >= 0.0)  # a fault is NaN
        passed = sound
        if threshold is not None and confidences is not None:
            passed = np.asarray(confidences >= threshold)  # so written, NaN escalates
        if values is not None:
            self._answer(tier, part, sound, values, confidences)
        failed = ~sound
        if failed.any():
            lost = part[failed]
            self._blame(lost, Reason.DEADLINE if late else Reason.FAULT)
            self._faulted[lost] = self._faulted[lost] | (not late)
            self._strayed[lost] = self._deviated = True
        times = reply.started, reply.finished
        return Run(
            tier, part, *times, threshold, confidences, passed, failed, known=reply.known, late=late
        )

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

    def _accept(self, tier: int, rows: npt.NDArray[np.intp], known: bool) -> None:  # noqa: FBT001
        top = tier == self._top
        reason = Reason.TOP if top else Reason.CONFIDENT
        promised = known and (top or self._plan.point.certified)
        self._end(rows, Disposition.ACCEPTED, reason, tier, covered=promised)
        if promised and self._deviated and not top:
            strayed = rows[self._strayed[rows] | self._faulted[rows]]
            self._end(strayed, Disposition.ACCEPTED, reason, tier)
        limit = self._plan.ladder.abstain_below
        if top and limit is not None:
            low = rows[self.confidences[rows] < limit]
            self._end(low, Disposition.ABSTAINED, Reason.UNSURE, tier)

    # -- ends without an accepted answer ---------------------------------------------------------

    def _fall_back(self, rows: Any, entry: npt.NDArray[np.int16]) -> None:
        """Without an answer yet: the nearest cheaper tier that can, as a forced accept."""
        for tier in range(self._top - 1, self._floor - 1, -1):
            lost = (self.end == _NONE) & (self.tier == _NONE)
            here = np.flatnonzero(lost & (entry > tier) & ~self._tried[tier])
            if len(here):
                run = self._run_tier(tier, here, rows)
                run.accepted, run.forced = np.zeros(len(here), dtype=np.bool_), True

    def _overtake(
        self, rows: Any, entry: npt.NDArray[np.int16], useful: npt.NDArray[np.int16]
    ) -> None:
        """Without an answer still: the tiers above an entry tier that is too slow."""
        done = self._top + 1
        lost = (self.end == _NONE) & (self.tier == _NONE) & (self._why == _R[Reason.DEADLINE])
        if lost.any():
            self._overtaking = True
            above = useful[np.minimum(entry + 1, done)]
            self._ascend(rows, np.where(lost, above, done).astype(np.int16), useful)

    def _give_up(self) -> None:
        """End the rows that are left, all of one kind at a time."""
        rest = np.flatnonzero(self.end == _NONE)
        limit = self._plan.ladder.abstain_below
        if limit is not None:
            low = self.confidences[rest] < limit
            for tier in np.unique(self.tier[rest[low]]).tolist():
                kind = rest[low & (self.tier[rest] == tier)]
                self._end(kind, Disposition.ABSTAINED, Reason.UNSURE, tier)
            rest = rest[~low]
        why = np.where(self._faulted & (self.tier == _NONE), _R[Reason.FAULT], self._why)[rest]
        kinds = np.stack([self.tier[rest], why], axis=1)
        for tier, code in np.unique(kinds, axis=0).tolist():
            reason = Reason.FAULT if code == _NONE else _REASONS[code]
            disposition = Disposition.DEGRADED
            if tier == _NONE:
                ran = reason in {Reason.FAULT, Reason.DEADLINE}
                disposition = Disposition.FAILED if ran else Disposition.SHED
            self._end(rest[(kinds == (tier, code)).all(axis=1)], disposition, reason, tier)

    def _end(
        self, rows: npt.NDArray[np.intp], disposition: Disposition, reason: Reason, tier: int,
        *, covered: bool = False,
    ) -> None:  # fmt: skip
        if len(rows):
            self.end[rows] = self._code(
                self._plan.ladder.finish(disposition, reason, tier, covered)
            )

    def _code(self, finish: Finish) -> int:
        if finish not in self.ends:
            self.ends.append(finish)
        return self.ends.index(finish)

    def _blame(self, rows: npt.NDArray[np.intp], reason: Reason) -> None:
        fresh = rows[self._why[rows] == _NONE]
        self._why[fresh] = _R[reason]


def take(rows: Any, index: npt.NDArray[np.intp]) -> Any:
    """Return these rows of a batch: an array, a list, or a dict of those."""
    if isinstance(rows, np.ndarray):
        return rows.take(index, axis=0)
    if isinstance(rows, dict):
        return {name: take(column, index) for name, column in rows.items()}
    return [rows[i] for i in index.tolist()]
