"""The inline lane: the tier runs in the caller's thread, for tiers that answer in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.decide import BREAKER
from cascade.facts import Failed, Replied, TimedOut
from cascade.lanes.handle import Handle
from cascade.lanes.lane import EXITS, Served, TierLane
from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cascade.breaker import Breaker
    from cascade.facts import Fact
    from cascade.lanes.watchdog import Watchdog
    from cascade.protocols import OnDone

__all__ = ["InlineLane"]


class InlineLane(TierLane):
    """Runs a tier where it is called; completes each call with exactly one fact.

    With a ``watchdog`` a run that passes its deadline is stopped; without, nobody could: it is for
    tiers that are over before anybody would.
    """

    inline = True

    def __init__(
        self, *args: Any, watchdog: Watchdog | None = None, cap: int = 1,
        pad: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.cap = cap  # rows that may be put together in one turn of an event loop
        self.pad = pad
        self._watchdog = watchdog if self.tier.can_stop else None
        self.eta: Callable[..., int] = self.service.eta
        if self._watchdog is not None:
            self.call = self._guarded(self._watchdog)
        else:
            self.call = self._compile()
            plain = self.prepare is None and self.calibration is None
            self.bare = plain and self.tier.silent

    def use(self, breaker: Breaker) -> None:
        """Have a breaker looked at before each call; without one that costs nothing.

        While it is open, the tier is not run directly: each call has to be let through.
        """
        self.breaker, known, call = breaker, self.service.eta, self.call
        breaker.on_change = self._suspect
        self.eta = lambda rows=1: BREAKER if self._broken() else known(rows)
        self.call = lambda job: self._kept_away() or call(job)

    def _suspect(self, is_open: bool) -> None:  # noqa: FBT001
        self.inline = not is_open

    def submit(self, job: Any, on_done: OnDone) -> Served:
        """Run the call here and now; ``on_done`` has its fact before this returns."""
        ticket = Served(job, self._clock())
        ticket.fact = fact = self.call(job)
        on_done(fact)
        return ticket

    def retire(self) -> None:
        """Nothing to let go of."""

    def close(self, grace: float = 0.0) -> None:
        """Nothing under way but in its callers."""

    def _compile(self) -> Callable[[Any], Fact]:
        """Compile ``call``, which runs a call and returns its fact.

        What the tier raises becomes a Failed; KeyboardInterrupt and SystemExit pass through: they
        are not the tier's.
        """
        tier, clock, prepare, observe = self.tier, self._clock, self.prepare, self.service.note
        run, read, silent, calibration = tier.run, tier.read, tier.silent, self.calibration
        index = self.index

        def call(job: Any) -> Fact:
            submitted = started = clock()
            finished, asked = 0, job
            try:
                if prepare is not None:
                    job = Handle(prepare(job.row), (job,))
                    started = clock()
                raw = run(job)
                finished = clock()
                value, confidence = read(raw)
                if calibration is not None:
                    confidence = calibration.one(value, confidence, asked.row)
                reply = Replied(
                    index, value, confidence, submitted, started, finished, started - submitted
                )
                if not silent:
                    reply.known, reply.cost = tier.remarks(raw)
            except BaseException as error:  # noqa: BLE001  a tier may raise anything
                return self.fault(error, submitted, started, finished or clock())
            observe(finished - started)
            return reply

        return call

    def fault(self, error: BaseException, submitted: int, started: int, finished: int) -> Failed:
        """Count a call that failed, and return its fact; what ends the program is raised again."""
        if isinstance(error, EXITS):
            raise error
        self._struck()
        shown = as_tier_error(self.tier.name, error)
        return Failed(self.index, shown, submitted, started, finished, started - submitted)

    def serve_turn(self, served: Sequence[Served]) -> None:
        """Answer requests of one turn of an event loop, until the last one's deadline."""
        refused = self._kept_away()
        if refused is not None:
            for one in served:
                one.fact = refused
            return
        if self._watchdog is None:
            self.serve(served)
            return
        handle = Handle(None, [one.job for one in served])
        with self._watchdog.over(handle, max(one.job.until for one in served)):
            self.serve(served, handle, "turn")
        if handle.stopped:
            for one in served:
                one.fact = one.fact or self._stopped(one)

    def _stopped(self, one: Served) -> TimedOut:
        """Learn from a run that was stopped, and return its fact."""
        now = self._clock()
        self.service.outlasted(now - one.submitted)
        self._struck()
        return TimedOut(self.index, one.submitted, one.submitted, now, one.prepared)

    def _guarded(self, watchdog: Watchdog) -> Callable[[Any], Fact]:
        """Compile ``call`` for runs that the watchdog stops at their deadline."""

        def call(job: Any) -> Fact:
            one = Served(job, self._clock())
            handle = Handle(None, (job,))
            if self._make_ready(one):
                with watchdog.over(handle, job.until):
                    self._run_one(one, handle, "")
            return self._stopped(one) if handle.stopped or one.fact is None else one.fact

        return call
