"""What all lanes share: a tier with its preparation, calibration and learned times."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.confidence import OutputFault
from cascade.errors import InputTypeError, InputValueError, TierOutputError
from cascade.facts import Failed, Refused, Replied, RowsReply
from cascade.lanes.handle import Handle
from cascade.lanes.rows import groups, is_ragged, join, reported, spread
from cascade.load import ServiceTime
from cascade.protocols import Occupancy
from cascade.tiers.columns import marked, plain
from cascade.tiers.faults import NotAsked, as_tier_error
from cascade.tiers.python import each
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cascade.breaker import Breaker
    from cascade.calibration import Calibration
    from cascade.facts import Fact
    from cascade.protocols import BoundTier, Clock, Context, Rows

__all__ = ["EXITS", "QueueingLane", "Served", "TierLane", "answered"]

EXITS = (KeyboardInterrupt, SystemExit)
"""What is not the tier's: it goes to the caller as it is."""


class Served:
    """One request in a batch: what its row was made into, how long that took, and its fact."""

    __slots__ = ("fact", "job", "prepared", "row", "submitted")

    struck = False  # its running out of time was counted: others may go on waiting for it

    def __init__(self, job: Any, submitted: int) -> None:
        self.job = job
        self.submitted = submitted
        self.row: Any = None
        self.prepared = 0
        self.fact: Fact | None = None


class TierLane:
    """A tier as it is served: prepared for, run, read and calibrated; observed all the while.

    ``prepare`` is the tier's own preparation of a row, counted as that step's input;
    ``calibration`` turns the tier's confidence into what it means for the label given, and for what
    the request shows: the row before it is prepared for the tier.
    """

    inline = False
    bare = False  # it may run where it is called, with nothing to be done around a run
    breaker: Breaker | None = None
    pad: Mapping[str, float] | None = None

    def __init__(
        self,
        index: int,
        tier: BoundTier,
        clock: Clock,
        service: ServiceTime | None = None,
        prepare: Callable[[Any], Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.index = index
        self.tier = tier
        self.service = service or ServiceTime()
        self.prepare = prepare
        self.calibration = calibration
        self._clock = clock
        spec = tier.inputs[0] if len(tier.inputs) == 1 and prepare is None else None
        self._uniform = spec is not None and spec.dtype != "text" and None not in spec.shape

    def _struck(self, calls: Sequence[Served] = ()) -> None:
        """Count a call that failed, or ran out of time; once, whoever waits for it."""
        if self.breaker is not None and not (calls and all(one.struck for one in calls)):
            self.breaker.failed(self._clock(), self.service.answered)

    def _broken(self) -> bool:
        """Whether the breaker keeps calls away."""
        breaker = self.breaker
        if breaker is None or not breaker.is_open:
            return False
        return breaker.refuses(self._clock(), self.service.answered)

    def _kept_away(self) -> Refused | None:
        """Refuse a call that is about to be made, where the breaker keeps it away."""
        breaker = self.breaker
        if breaker is None or not breaker.is_open:
            return None
        now = self._clock()
        admitted = breaker.admits(now, self.service.answered)
        return None if admitted else Refused(self.index, Reason.BREAKER, now)

    def eta_for(self, rank: int) -> Callable[[], int]:  # noqa: ARG002  there is no queue
        """Return the ``eta`` of requests of another class."""
        return lambda: self.eta()  # type: ignore[attr-defined]  # noqa: PLW0108  it may change

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs: none, where it runs in its caller."""
        return 0

    def live(self) -> int:
        """How many calls somebody waits for: those in their callers are not known here."""
        return 0

    def resize(self, workers: int) -> None:
        """Have so many workers: none, where it runs in its caller."""

    def occupancy(self) -> Occupancy:
        """Say what the lane is at; what runs in its callers is not counted."""
        return Occupancy(broken=self._is_open())

    def _is_open(self) -> bool:
        """Whether the breaker keeps calls away, but for one now and then."""
        return self.breaker is not None and self.breaker.is_open

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Ask the tier outside of the ledger: value and confidence before calibration."""
        if self.prepare is not None:
            job = Handle(self.prepare(job.row), (job,))
        return self.tier.read(self.tier.run(job))

    # -- requests that were put together ---------------------------------------------------------

    def serve(
        self, served: Sequence[Served], handle: Handle | None = None, why: str = "turn"
    ) -> None:
        """Answer requests in as few runs as their shapes allow; each ends up with its fact.

        A request whose deadline passes before its run begins keeps None: it never ran.
        """
        if self.prepare is None:
            for one in served:
                one.row = one.job.row
            ready = served
        else:
            ready = [one for one in served if self._make_ready(one)]
        if len(ready) < 2:
            for one in ready:
                self._run_one(one, handle or Handle(None, (one.job,)), why)
            return
        if self._uniform:  # the rows were cast to one shape
            self._run_group(list(ready), handle, why)
            return
        for places in groups([one.row for one in ready], self.pad):
            self._run_group([ready[i] for i in places], handle, why)

    def _make_ready(self, one: Served) -> bool:
        begun, prepare = self._clock(), self.prepare
        try:
            one.row = one.job.row if prepare is None else prepare(one.job.row)
        except BaseException as error:  # noqa: BLE001  the user's function may raise anything
            self._fail([one], error, begun, self._clock())
            return False
        one.prepared = self._clock() - begun
        return True

    def _run_one(self, one: Served, handle: Handle, why: str) -> None:
        started, finished, tier = self._clock(), 0, self.tier
        if one.job.until <= started or handle.stopped:
            return
        handle.row = one.row
        try:
            raw = tier.run_stoppable(handle)
            finished = self._clock()
            value, confidence = tier.read_stoppable(raw)
            if self.calibration is not None:
                confidence = self.calibration.one(value, confidence, one.job.row)
            known, cost = (True, None) if tier.silent else tier.remarks(raw)
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            if not handle.stopped:  # else nobody waits, and it was no fault of the tier's
                self._fail([one], error, started, finished or self._clock())
            return
        self.service.observe_rows(finished - started, 1)
        one.fact = Replied(
            self.index, value, confidence, one.submitted, started, finished, one.prepared,
            known, cost, (1, why),
        )  # fmt: skip

    def _run_group(self, group: list[Served], handle: Handle | None, why: str) -> None:
        now, tier = self._clock(), self.tier
        group = [one for one in group if one.job.until > now]
        n = len(group)
        if n < 2:
            for one in group:
                self._run_one(one, handle or Handle(None, (one.job,)), why)
            return
        handle = handle or Handle(None, [one.job for one in group])
        if handle.stopped:  # everybody has left
            return
        started, finished = now, 0
        try:
            raw = tier.run_rows(join([one.row for one in group], self.pad), n, handle)
            finished = self._clock()
            values, confidences = self._read_rows(raw, n)
            listed = values.tolist()
            sure = [None] * n if confidences is None else confidences.tolist()
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            if not handle.stopped:
                self._fail(group, error, started, finished or self._clock())
            return
        self.service.observe_rows(finished - started, n)
        simple = values.dtype.kind not in "Ofc" and self.calibration is None and tier.silent
        index, batch = self.index, (n, why)
        for i, (one, value, confidence) in enumerate(zip(group, listed, sure, strict=True)):
            known, cost = True, None
            try:
                if not simple or not (confidence is None or 0.0 <= confidence <= 1.0):
                    value, confidence, known, cost = self._weigh(one, value, confidence, raw, i)  # noqa: PLW2901
            except BaseException as error:  # noqa: BLE001  one row's fault is not another's
                self._fail([one], error, started, finished)
                continue
            one.fact = Replied(
                index, value, confidence, one.submitted, started, finished, one.prepared,
                known, cost, batch,
            )  # fmt: skip

    def _read_rows(self, raw: Any, n: int) -> Rows:
        """Read a batch of n rows; a tier that brings its own reader may miscount."""
        values, confidences = self.tier.read_rows(raw, n)
        if len(values) != n or (confidences is not None and len(confidences) != n):
            raise OutputFault(f"expected {n} values, and as many confidences if any")
        return values, confidences

    def _weigh(
        self, one: Served, value: Any, confidence: float | None, raw: Any, i: int
    ) -> tuple[Any, float | None, bool, float | None]:
        """Check and calibrate one row of a batch: value, confidence, version as named, cost."""
        if confidence is not None and not 0.0 <= confidence <= 1.0:
            msg = f"tier {self.tier.name!r}: this row of a batch has no sound confidence"
            raise TierOutputError(msg, tier=self.tier.name)
        if self.calibration is not None:
            confidence = self.calibration.one(value, confidence, one.job.row)
        known, cost = (True, None) if self.tier.silent else self.tier.remarks(raw, i)
        return plain(value), confidence, known, cost

    def _fail(
        self, group: Sequence[Served], error: BaseException, started: int, finished: int
    ) -> None:
        if not isinstance(error, NotAsked):
            self._struck(group)
        fault = error if isinstance(error, EXITS) else as_tier_error(self.tier.name, error)
        for one in group:
            one.fact = Failed(self.index, fault, one.submitted, started, finished, one.prepared)

    # -- the columnar driver's batches -----------------------------------------------------------

    def call_rows(self, rows: Any, n: int, context: Context) -> RowsReply | Refused:
        """Run n rows at once; what the tier raises is raised."""
        refused = self._kept_away()
        if refused is not None:
            return refused
        places: Sequence[int] = range(n)
        made, lost = rows, None
        try:
            if self.prepare is not None:
                made, places, lost = self._prepared(rows, n, self.prepare)
            reply = self._run_rows(made, len(places), context)
        except BaseException as error:
            asked = not isinstance(error, NotAsked)
            if asked and not getattr(context, "abandoned", False):  # else it was stopped
                self._struck()
            raise
        if lost is not None:
            listed = each(rows)
            rows = [listed[i] for i in places]
        calibration = self.calibration
        if reply.confidences is None and calibration is not None and calibration.blind:
            assert reply.values is not None  # noqa: S101  as below
            reply.confidences = marked(reply.values, np.full(len(reply.values), 0.5))
        if calibration is not None and reply.confidences is not None:
            assert reply.values is not None  # noqa: S101  what a tier read has values
            reply.confidences = calibration.rows(reply.values, reply.confidences, rows)
        if lost is None:
            return reply
        return spread(reply, places, n, str(as_tier_error(self.tier.name, lost)))

    @staticmethod
    def _prepared(
        rows: Any, n: int, prepare: Callable[[Any], Any]
    ) -> tuple[Any, Sequence[int], BaseException | None]:
        """Prepare rows; return the places of those that can be, and why the others cannot."""
        batch, lost = getattr(prepare, "batch", None), None
        if batch is not None:
            with contextlib.suppress(InputTypeError, InputValueError):  # one of them does not fit
                return batch(rows), range(n), None
        made, places = [], []
        for i, row in enumerate(each(rows)):
            try:
                made.append(prepare(row))
            except EXITS:
                raise
            except BaseException as error:  # noqa: BLE001  the user's function may raise anything
                lost = error
            else:
                places.append(i)
        if lost is not None and not made:
            raise lost
        return made, places, lost

    def lose(self) -> Callable[[], None] | None:
        """Count rows that run on a thread of their own as left: here nothing is bounded."""

    def _run_rows(self, rows: Any, n: int, context: Context) -> RowsReply:
        """Run rows together, or those of each kind where they are not all of one."""
        made = self.prepare is not None and isinstance(rows, list)
        if not made and not is_ragged(rows):
            return self._run_batch(rows, n, context)
        listed = each(rows)
        if len(listed) != n:
            msg = f"prepare.batch: expected {n} rows back, got {len(listed)}"
            raise TierOutputError(msg, tier=self.tier.name)
        parts = groups(listed, self.pad)
        if len(parts) > 1:
            return self._run_groups(listed, parts, context)
        return self._run_batch(join(listed, self.pad), n, context)

    def _run_batch(self, rows: Any, n: int, context: Context) -> RowsReply:
        """Run a batch as it is."""
        started = self._clock()
        raw = self.tier.run_rows(rows, n, context)
        finished = self._clock()
        values, confidences = self._read_rows(raw, n)
        self.service.observe_rows(finished - started, n)  # only now: breakers count these rows
        return reported(self.tier, raw, RowsReply(values, confidences, started, finished))

    def _run_groups(
        self, listed: Sequence[Any], parts: Sequence[list[int]], context: Context
    ) -> RowsReply:
        n, replies = len(listed), []
        values, sure = np.empty(n, dtype=object), np.full(n, np.nan)
        costs: list[float | None] = [None] * n
        for places in parts:
            batch = join([listed[i] for i in places], self.pad)
            reply = self._run_batch(batch, len(places), context)
            values[places] = reply.values
            if reply.confidences is not None:
                sure[places] = reply.confidences
            for place, cost in zip(places, reply.costs or (), strict=False):
                costs[place] = cost
            replies.append(reply)
        supplied = any(reply.confidences is not None for reply in replies)
        return RowsReply(
            values, sure if supplied else None, replies[0].started, replies[-1].finished,
            all(reply.known for reply in replies),
            costs if any(cost is not None for cost in costs) else None,
            next((reply.error for reply in replies if reply.error is not None), None),
        )  # fmt: skip


class QueueingLane(TierLane):
    """A lane with a queue: ``workers`` runs at a time, ``limit`` rows may wait, ``cap`` together.

    Rows of unequal shape are padded with the values of ``pad``, by the name of the input.
    """

    def __init__(
        self, *args: Any, workers: int = 1, limit: int = 256, cap: int = 1,
        pad: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.workers = workers
        self.limit = limit
        self.cap = cap
        self.pad = pad

    def eta_for(self, rank: int) -> Callable[[], int]:
        """Return the ``eta`` of requests of another class."""
        return partial(self.eta, 1, rank)  # type: ignore[attr-defined]  # a lane's own


def answered(fact: Fact) -> Fact:
    """Return a worker's fact; raise what it could not raise where it ran."""
    if type(fact) is Failed and isinstance(fact.error, EXITS):
        raise fact.error
    return fact
