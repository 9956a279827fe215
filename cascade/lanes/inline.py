"""The inline lane: the tier runs in the caller's thread, for tiers that answer in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from cascade.decide import Failed, Replied
from cascade.load import ServiceTime
from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cascade.decide import Fact
    from cascade.protocols import BoundTier, Clock, OnDone

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

    ``prepare`` is the tier's own preparation of a row, counted as that step's input.
    """

    def __init__(
        self,
        index: int,
        tier: BoundTier,
        clock: Clock,
        service: ServiceTime | None = None,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self.tier = tier
        self.service = service or ServiceTime()
        self.eta = self.service.eta
        self.prepare = prepare
        self._index = index
        self._clock = clock
        self._observe = self.service.observe
        self._run, self._read, self._silent = tier.run, tier.read, tier.silent

    def submit(self, job: Any, on_done: OnDone) -> None:
        """Run the call here and now; ``on_done`` has its fact before this returns."""
        on_done(self.call(job))

    def call(self, job: Any) -> Fact:
        """Run the call and return its fact; what the tier raises becomes a Failed.

        KeyboardInterrupt and SystemExit pass through: they are not the tier's.
        """
        clock = self._clock
        submitted = started = clock()
        finished = 0
        try:
            if self.prepare is not None:
                job = Prepared(self.prepare(job.row), job)
                started = clock()
            raw = self._run(job)
            finished = clock()
            value, confidence = self._read(raw)
            self._observe(finished - started)
            times = submitted, started, finished
            if self._silent:
                return Replied(self._index, value, confidence, *times, started - submitted)
            known, cost = self.tier.remarks(raw)
            return Replied(
                self._index, value, confidence, *times, started - submitted, known, cost
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            fault = as_tier_error(self.tier.name, error)
            ended = finished or clock()
            return Failed(self._index, fault, submitted, started, ended, started - submitted)
