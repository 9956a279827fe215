"""The inline lane: the tier runs in the caller's thread, for tiers that answer in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.facts import Failed, Replied, RowsReply
from cascade.load import ServiceTime
from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cascade.calibration import Calibration
    from cascade.facts import Fact
    from cascade.protocols import BoundTier, Clock, Context, OnDone

__all__ = ["InlineLane", "Prepared"]


@attrs.define(eq=False)
class Prepared:
    """A job whose row is one tier's own preparation of the request's."""

    row: Any
    job: Any

    @property
    def tenant(self) -> str | None:
        """On whose behalf the request is made."""
        return self.job.tenant  # type: ignore[no-any-return]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller passed along."""
        return self.job.metadata  # type: ignore[no-any-return]

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.job.remaining()  # type: ignore[no-any-return]

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.job.cancelled()  # type: ignore[no-any-return]


class InlineLane:
    """Runs a tier where it is called; completes each call with exactly one fact.

    ``prepare`` is the tier's own preparation of a row, counted as that step's input;
    ``calibration`` turns the tier's confidence into what it means for the label given.
    """

    def __init__(
        self,
        index: int,
        tier: BoundTier,
        clock: Clock,
        service: ServiceTime | None = None,
        prepare: Callable[[Any], Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.tier = tier
        self.service = service or ServiceTime()
        self.eta = self.service.eta
        self.prepare = prepare
        self.calibration = calibration
        self._clock = clock
        self.call = self._compile(index)

    def submit(self, job: Any, on_done: OnDone) -> None:
        """Run the call here and now; ``on_done`` has its fact before this returns."""
        on_done(self.call(job))

    def _compile(self, index: int) -> Callable[[Any], Fact]:
        """Compile ``call``, which runs a call and returns its fact.

        What the tier raises becomes a Failed; KeyboardInterrupt and SystemExit pass through: they
        are not the tier's.
        """
        tier, clock, prepare, observe = self.tier, self._clock, self.prepare, self.service.observe
        run, read, silent, calibration = tier.run, tier.read, tier.silent, self.calibration

        def call(job: Any) -> Fact:
            submitted = started = clock()
            finished = 0
            try:
                if prepare is not None:
                    job = Prepared(prepare(job.row), job)
                    started = clock()
                raw = run(job)
                finished = clock()
                value, confidence = read(raw)
                if calibration is not None:
                    confidence = calibration.one(value, confidence, job.row)
                reply = Replied(
                    index, value, confidence, submitted, started, finished, started - submitted
                )
                if not silent:
                    reply.known, reply.cost = tier.remarks(raw)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  a tier may raise anything
                fault = as_tier_error(tier.name, error)
                ended = finished or clock()
                return Failed(index, fault, submitted, started, ended, started - submitted)
            observe(finished - started)
            return reply

        return call

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Ask the tier outside of the ledger: value and confidence before calibration."""
        if self.prepare is not None:
            job = Prepared(self.prepare(job.row), job)
        return self.tier.read(self.tier.run(job))

    def call_rows(self, rows: Any, n: int, context: Context) -> RowsReply:
        """Run n rows at once; what the tier raises is raised."""
        if self.prepare is not None:
            batch = getattr(self.prepare, "batch", None)
            listed = each_row(rows, n)
            rows = stack(batch(listed) if batch is not None else [self.prepare(x) for x in listed])
        started = self._clock()
        raw = self.tier.run_rows(rows, n, context)
        finished = self._clock()
        self.service.observe_rows(finished - started, n)
        values, confidences = self.tier.read_rows(raw, n)
        if confidences is None and self.calibration is not None and self.calibration.blind:
            confidences = np.full(n, 0.5)
        if self.calibration is not None and confidences is not None:
            confidences = self.calibration.rows(values, confidences, rows)
        known = self.tier.silent or self.tier.remarks(raw)[0]
        return RowsReply(values, confidences, started, finished, known)


def each_row(rows: Any, n: int) -> list[Any]:
    """Return the rows of a batch, one by one."""
    if isinstance(rows, dict):
        return [{name: column[i] for name, column in rows.items()} for i in range(n)]
    return [rows[i] for i in range(n)]


def stack(rows: Any) -> Any:
    """Return prepared rows as a batch: arrays stacked, dicts by name, anything else a list."""
    if isinstance(rows, np.ndarray) or not len(rows):
        return rows
    if isinstance(rows[0], np.ndarray):
        return np.stack(rows)
    if isinstance(rows[0], dict):
        return {name: stack([row[name] for row in rows]) for name in rows[0]}
    return rows
