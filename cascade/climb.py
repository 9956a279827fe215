"""The ladder over columns: the rules of ``decide``, for n rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.decide import REFUSALS
from cascade.facts import Refused, RowsReply
from cascade.lanes.lane import EXITS
from cascade.lanes.watchdog import in_time
from cascade.runs import CODES, FOREVER, NONE, Abandoned, Run, Setbacks, take
from cascade.tiers.columns import faulty, object_column
from cascade.tiers.faults import as_post_error, as_tier_error
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from cascade.allowance import Purse
    from cascade.cache import Entry
    from cascade.plan import Plan
    from cascade.protocols import Lane
    from cascade.runs import BatchContext, Indices
    from cascade.types import Finish

__all__ = ["Climb"]

_REASONS = list(Reason)


class Climb:
    """The columns of one batch on its way up.

    ``end`` is, for each row, the place of its Finish in ``ends``, -1 until it has one; ``counts``
    says how many rows have each. ``confidences`` are those of the best answer so far.
    """

    def __init__(self, plan: Plan, n: int, floor: int, context: BatchContext) -> None:
        self.n = n
        self.values: npt.NDArray[Any] = np.empty(0)
        self.confidences: npt.NDArray[np.float64] = np.empty(0)
        self.end = np.full(n, NONE, dtype=np.int16)
        self.ends: list[Finish] = []
        self.counts: list[int] = []
        self.runs: list[Run] = []
        self._plan = plan
        self._top = len(plan.lanes) - 1
        self._first_only = plan.ladder.first_only
        self._floor = floor
        self._until = context.until
        self._clock = plan.clock
        self._context = context
        self._setbacks: Setbacks | None = None
        self._purse: Purse | None = None
        self._overtaking = False  # nothing cheaper is left for the rows that go up

    def run(self, rows: Any, hard: npt.NDArray[np.float64] | None) -> None:
        """Take every row that has not ended to its end."""
        useful = self._useful()
        entry = self._entries(hard, useful)
        waiting = np.flatnonzero(self.end == NONE) if self.ends else np.arange(self.n)
        if self._plan.allowance is not None:
            self._purse = self._plan.allowance.earn(self._context.tenant, len(waiting))
        if isinstance(entry, int):
            begin = {entry: waiting}
        else:
            here = entry[waiting]
            begin = {tier: waiting[here == tier] for tier in range(self._top + 1)}
        self._ascend(rows, begin, useful)
        if sum(self.counts) < self.n:
            self._fall_back(rows, entry)
            self._overtake(rows, entry, useful)
            self._give_up()
        if not len(self.confidences):  # no row has an answer
            self._columns_as(object)

    def _ascend(self, rows: Any, begin: Mapping[int, Indices], useful: Sequence[int]) -> None:
        """Take rows up from the tiers that they are about to ask."""
        coming: dict[int, list[Indices]] = {tier: [here] for tier, here in begin.items()}
        for tier in range(self._floor, self._top + 1):
            parts = [part for part in coming.pop(tier, ()) if len(part)]
            if not parts:
                continue
            here = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
            tried = self._tried(tier)  # by some that have been here before
            seen = here[:0]
            if tried is not None:
                here, seen = here[~tried[here]], here[tried[here]]
            coming.setdefault(useful[tier + 1], []).extend([*self._ask(tier, here, rows), seen])

    def _tried(self, tier: int) -> npt.NDArray[np.bool_] | None:
        """Mark the rows that have asked a tier, or were refused; None: none can have."""
        if self._setbacks is None:
            return None
        tried = np.zeros(self.n, dtype=np.bool_)
        for run in self.runs:
            if run.tier == tier:
                tried[run.rows] = True
        return tried

    def place(self, i: int, held: Entry) -> None:
        """Fill one row from the cache."""
        self._columns_as(object)[i] = held.out()
        self.confidences[i] = np.nan if held.confidence is None else held.confidence
        self.end[i] = self._code(held.finish, 1)

    def post(self, function: Callable[[int, Any], Any]) -> None:
        """Have every new answer postprocessed; a row at which that fails has failed."""
        self.values = object_column(self.values.tolist())
        for i, code in enumerate(self.end.tolist()):
            finish = self.ends[code]
            if finish.rank < 0 or finish.disposition is Disposition.CACHED:
                continue
            try:
                self.values[i] = function(finish.rank, self.values[i])
            except Exception as error:  # noqa: BLE001  the user's function may raise anything
                self._spoil(i, finish.rank, error)

    def _spoil(self, i: int, tier: int, error: Exception) -> None:
        """End a row as failed after all: its answer could not be postprocessed."""
        now, here = self._clock(), np.array([i])
        what = str(as_post_error(self._plan.site.tiers[tier], error))
        self.runs.append(Run(tier, here, now, now, failed=np.ones(1, dtype=np.bool_), error=what))
        self.values[i], self.confidences[i] = None, np.nan
        self.counts[self.end[i]] -= 1
        self._end(here, Disposition.FAILED, Reason.FAULT, NONE)

    # -- the way up ------------------------------------------------------------------------------

    def _entries(
        self, hard: npt.NDArray[np.float64] | None, useful: Sequence[int]
    ) -> int | npt.NDArray[np.int16]:
        """Return the tier at which each row begins, or the one at which all do."""
        if hard is None or self._first_only:
            return useful[self._floor]
        beyond = np.zeros(self.n, dtype=np.int16)
        for cut in self._plan.point.skip_above[self._floor :]:
            beyond += hard >= cut  # cuts do not fall, so counting them is stopping at the first
        return np.asarray(useful, dtype=np.int16)[self._floor + beyond]

    def _useful(self) -> list[int]:
        """The nearest tier at or above each that could be accepted; the last entry is 'done'."""
        nearest = list(range(self._top + 2))
        for tier in range(self._top - 1, -1, -1):
            if self._plan.point.thresholds[tier] > 1.0 and not self._first_only:
                nearest[tier] = nearest[tier + 1]
        return nearest

    def _ask(self, tier: int, here: Indices, rows: Any) -> list[Indices]:
        """Ask one tier for its rows; return those that go on."""
        here, poor = self._afford(tier, here)
        going = [poor]
        for part in self._parts(tier, here):
            run = self._run_tier(tier, part, rows)
            if run.refusal is not None:
                going.append(self._after_refusal(run))
                continue
            first = self._first_only and tier < self._top
            passed = _not(run.failed, len(part)) if first else run.accepted
            whole = len(part) == self.n
            ended = np.flatnonzero(passed) if whole else part[passed]
            if first:
                self._end(ended, Disposition.DEGRADED, Reason.MODE, tier)
            else:
                self._accept(tier, ended, run.known)
            if len(ended) < len(part):
                going.append(np.flatnonzero(~passed) if whole else part[~passed])
        return going

    def _after_refusal(self, run: Run) -> Indices:
        """Return the rows that go on: of those that have no time, not before the cheaper tiers."""
        if run.refusal is not Reason.DEADLINE or self._overtaking or self._setbacks is None:
            return run.rows
        return run.rows[~self._setbacks.unanswered(Reason.DEADLINE)[run.rows]]

    def _afford(self, tier: int, here: Indices) -> tuple[Indices, Indices]:
        """Pay for as many rows as the allowance holds, if the lane takes any; refuse the others."""
        purse, lane, until = self._purse, self._plan.lanes[tier], self._until
        if purse is None or tier <= self._floor or not 0 <= lane.eta() <= until - self._clock():
            return here, here[:0]
        paid = purse.take(len(here))
        if paid < len(here):
            self._refuse(tier, here[paid:], Reason.ALLOWANCE, self._clock())
        return here[:paid], here[paid:]

    def _refuse(self, tier: int, part: Indices, reason: Reason, now: int, eta: int = -1) -> Run:
        """Note that a tier was not to be had for these rows."""
        self._set_back(part, reason)
        run = Run(tier, part, now, now, refusal=reason, eta=eta, left=max(0, self._until - now))
        self.runs.append(run)
        return run

    def _set_back(self, rows: Indices, reason: Reason, *, fault: bool = False) -> None:
        if self._setbacks is None:
            self._setbacks = Setbacks(self.n, self.runs)
        self._setbacks.note(rows, reason, fault=fault)

    def _parts(self, tier: int, here: Indices) -> Iterator[Indices]:
        """Yield the rows of one run after the other; all that are left when there is no time."""
        lane, at, size = self._plan.lanes[tier], 0, 0
        while at < len(here):
            size = self._context.portion(lane, len(here) - at, size)
            yield here[at : at + size]
            at += size

    def _run_tier(self, tier: int, part: Indices, rows: Any) -> Run:
        lane, now = self._plan.lanes[tier], self._clock()
        eta, left = lane.eta(len(part)), self._until - now
        if not 0 <= eta <= left:
            return self._refuse(tier, part, REFUSALS.get(eta, Reason.DEADLINE), now, eta)
        given, error = rows if len(part) == self.n else take(rows, part), None
        try:
            reply = self._bounded(lane, given, len(part))
        except (*EXITS, Abandoned):
            raise
        except BaseException as caught:  # noqa: BLE001  a tier may raise anything; the rows go on
            reply, error = None, str(as_tier_error(lane.tier.name, caught))
        if isinstance(reply, Refused):
            return self._refuse(tier, part, reply.reason, reply.finished)
        late = False
        if reply is None:  # nothing came of it
            ended = self._clock()
            reply, late = RowsReply(None, None, now, ended), error is None or ended >= self._until
        return self._weigh(tier, part, reply, late=late, error=error)

    def _bounded(self, lane: Lane, rows: Any, n: int) -> RowsReply | Refused | None:
        """Run a batch until the deadline of the whole call; None: it had to be left."""
        handle = self._context.handle()
        if self._until >= FOREVER:
            return lane.call_rows(rows, n, handle)
        if lane.inline or lane.tier.can_stop:
            with self._plan.watchdog.over(handle, self._until):
                return lane.call_rows(rows, n, handle)

        def leave() -> Callable[[], None] | None:
            handle.stop()
            return lane.lose()

        return in_time(lambda: lane.call_rows(rows, n, handle), self._until - self._clock(), leave)

    def _weigh(
        self, tier: int, part: Indices, reply: RowsReply, *, late: bool, error: str | None
    ) -> Run:
        """Take in what a tier answered: which rows are sound, and which are sure enough."""
        n, top, confidences = len(part), tier == self._top, reply.confidences
        threshold = None if top else self._plan.point.thresholds[tier]
        failed = self._failed(reply, n, top)
        passed = _not(failed, n)
        if threshold is not None and confidences is not None:
            passed = np.asarray(confidences >= threshold)  # so written, NaN escalates
        run = Run(
            tier, part, reply.started, reply.finished, threshold, confidences, passed, failed,
            known=reply.known, late=late, costs=reply.costs, error=error or reply.error,
        )  # fmt: skip
        if failed is None:
            self._answer(tier, part, reply.values, confidences)
        else:
            reason = Reason.DEADLINE if late else Reason.FAULT
            self._set_back(part[failed], reason, fault=not late)
            if reply.values is not None:
                sure = None if confidences is None else confidences[~failed]
                self._answer(tier, part[~failed], reply.values[~failed], sure)
        self.runs.append(run)
        return run

    @staticmethod
    def _failed(reply: RowsReply, n: int, top: bool) -> npt.NDArray[np.bool_] | None:  # noqa: FBT001
        """Mark the rows without a sound answer; None: all have one."""
        confidences = reply.confidences
        if reply.values is None or (confidences is None and not top):
            return np.ones(n, dtype=np.bool_)
        if confidences is None:
            return faulty(reply.values)
        if confidences.min() >= 0.0:  # a fault is NaN
            return None
        return np.asarray(~(confidences >= 0.0))

    def _answer(
        self, tier: int, part: Indices, values: Any, confidences: npt.NDArray[np.float64] | None
    ) -> None:
        """Enter sound answers into the columns."""
        if self._setbacks is not None:
            self._setbacks.tier[part] = tier
        if len(part) == self.n:
            self.values = values if values.flags.writeable else values.copy()
            if confidences is not None:
                self.confidences = confidences.copy()  # the run keeps its own
            else:
                self.confidences = np.full(self.n, np.nan)
        else:
            self._columns_as(values.dtype)[part] = values
            self.confidences[part] = np.nan if confidences is None else confidences

    def _columns_as(self, dtype: Any) -> npt.NDArray[Any]:
        """Return the value column, able to hold this dtype too without changing a value's type."""
        held = self.values
        if not len(self.confidences):
            self.values = np.zeros(self.n, dtype=dtype)
            if self.values.dtype == object:
                self.values[:] = None
            self.confidences = np.full(self.n, np.nan)
        elif held.dtype != dtype:
            wide = held.dtype.kind == np.dtype(dtype).kind and held.dtype.kind in "iufUS"
            joint = np.promote_types(held.dtype, dtype) if wide else np.dtype(object)
            self.values = held.astype(joint) if wide else object_column(held.tolist())
        return self.values

    def _accept(self, tier: int, rows: Indices, known: bool) -> None:  # noqa: FBT001
        top = tier == self._top
        limit = self._plan.ladder.abstain_below
        if top and limit is not None:
            low = self.confidences[rows] < limit
            self._end(rows[low], Disposition.ABSTAINED, Reason.UNSURE, tier)
            rows = rows[~low]
        reason = Reason.TOP if top else Reason.CONFIDENT
        promised = known and (top or (self._plan.point.certified and not self._floor))
        if promised and not top and self._setbacks is not None:
            strayed = self._setbacks.strayed[rows]
            self._end(rows[strayed], Disposition.ACCEPTED, reason, tier)
            rows = rows[~strayed]
        self._end(rows, Disposition.ACCEPTED, reason, tier, covered=promised)

    # -- ends without an accepted answer ---------------------------------------------------------

    def _lost(self) -> npt.NDArray[np.bool_]:
        """Mark the rows that have neither an end nor an answer yet."""
        assert self._setbacks is not None  # noqa: S101  else all have ended
        return np.asarray((self.end == NONE) & (self._setbacks.tier == NONE))

    def _fall_back(self, rows: Any, entry: int | npt.NDArray[np.int16]) -> None:
        """Without an answer yet: the nearest cheaper tier that can, as a forced accept."""
        for tier in range(self._top - 1, self._floor - 1, -1):
            tried = self._tried(tier)
            assert tried is not None  # noqa: S101  as in _lost
            lost = np.flatnonzero(self._lost() & (entry > tier) & ~tried)
            here, _ = self._afford(tier, lost)
            if len(here):
                run = self._run_tier(tier, here, rows)
                run.accepted, run.forced = np.zeros(len(here), dtype=np.bool_), True

    def _overtake(
        self, rows: Any, entry: int | npt.NDArray[np.int16], useful: Sequence[int]
    ) -> None:
        """Without an answer still: the tiers above an entry tier that is too slow."""
        assert self._setbacks is not None  # noqa: S101  as in _lost
        lost = self._lost() & self._setbacks.unanswered(Reason.DEADLINE)
        if lost.any():
            self._overtaking = True
            above = np.asarray(useful)[np.minimum(entry + 1, self._top + 1)]
            begin = {t: np.flatnonzero(lost & (above == t)) for t in range(self._top + 1)}
            self._ascend(rows, begin, useful)

    def _give_up(self) -> None:
        """End the rows that are left, all of one kind at a time."""
        assert self._setbacks is not None  # noqa: S101  as in _lost
        rest, answered = np.flatnonzero(self.end == NONE), self._setbacks.tier
        limit = self._plan.ladder.abstain_below
        if limit is not None and len(self.confidences):
            low = self.confidences[rest] < limit
            for tier in np.unique(answered[rest[low]]).tolist():
                kind = rest[low & (answered[rest] == tier)]
                self._end(kind, Disposition.ABSTAINED, Reason.UNSURE, tier)
            rest = rest[~low]
        fault = self._setbacks.faulted & (answered == NONE)
        why = np.where(fault, CODES[Reason.FAULT], self._setbacks.why)[rest]
        kinds = np.stack([answered[rest], why], axis=1)
        for tier, code in np.unique(kinds, axis=0).tolist():
            reason = Reason.FAULT if code == NONE else _REASONS[code]
            disposition = Disposition.DEGRADED
            if tier == NONE:
                ran = reason in {Reason.FAULT, Reason.DEADLINE}
                disposition = Disposition.FAILED if ran else Disposition.SHED
            self._end(rest[(kinds == (tier, code)).all(axis=1)], disposition, reason, tier)

    def _end(
        self, rows: Indices, disposition: Disposition, reason: Reason, tier: int,
        *, covered: bool = False,
    ) -> None:  # fmt: skip
        """End rows that have not ended, all alike."""
        if len(rows):
            finish = self._plan.ladder.finish(disposition, reason, tier, covered)
            self.end[rows] = self._code(finish, len(rows))

    def _code(self, finish: Finish, rows: int) -> int:
        """Count rows that end so, and return the place of their end."""
        if finish not in self.ends:
            self.ends.append(finish)
            self.counts.append(0)
        code = self.ends.index(finish)
        self.counts[code] += rows
        return code


def _not(mask: npt.NDArray[np.bool_] | None, n: int) -> npt.NDArray[np.bool_]:
    """Mark those that a mask does not; None marks nothing."""
    return np.ones(n, dtype=np.bool_) if mask is None else ~mask
