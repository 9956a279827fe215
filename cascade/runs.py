"""What has happened to the rows of a batch: the runs they took part in, and what set them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

from cascade.batching import portion
from cascade.lanes.handle import Handle
from cascade.types import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from cascade.protocols import Clock, Lane
    from cascade.types import RawStep

__all__ = [
    "CODES", "FOREVER", "NONE", "Abandoned", "BatchContext", "Indices", "Run", "Setbacks", "take",
]  # fmt: skip

Indices: TypeAlias = "npt.NDArray[np.intp]"
"""Places of rows, sorted."""

CODES = {reason: code for code, reason in enumerate(Reason)}
NONE = -1
FOREVER = 2**62
_FIRST = 4  # rows before the first run under a deadline, where nothing is known of the tier
_NANO = 1_000_000_000


class Abandoned(BaseException):
    """Nobody waits for a batch any more."""


class BatchContext:
    """The context of a batch: on whose behalf, until when (ns), and whether anybody waits."""

    def __init__(
        self, until: int, clock: Clock, tenant: str | None, metadata: Mapping[str, Any]
    ) -> None:
        self.tenant = tenant
        self.metadata = metadata
        self.until = until
        self.abandoned = False
        self._clock = clock
        self._running: Handle | None = None

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return (self.until - self._clock()) / _NANO

    def cancelled(self) -> bool:
        """Whether nobody waits, or the deadline has passed."""
        return self.abandoned or self._clock() >= self.until

    def portion(self, lane: Lane, rows: int, last: int) -> int:
        """Return how many rows a lane is to run next: all, where none of them can be in time."""
        if self.until >= FOREVER:
            return rows
        left = self.until - self._clock()
        size = portion(lane.service.curve, rows, left, last or _FIRST)
        while (eta := lane.eta(size)) > left and size > 1:
            size //= 2
        return size if 0 <= eta <= left else rows

    def handle(self) -> Handle:
        """Return the context of one run, the next.

        Raises:
            Abandoned: there need be none.
        """
        handle = self._running = Handle(None, (self,))
        if self.abandoned:  # looked at last: who abandons it in between stops the handle
            raise Abandoned
        return handle

    def abandon(self) -> None:
        """Say that nobody waits any more: what runs is stopped, and nothing begun."""
        self.abandoned = True
        running = self._running
        if running is not None:
            running.stop()


@attrs.define(eq=False)
class Run:
    """One run of one tier, or its refusal, with the rows (sorted) that took part."""

    tier: int
    rows: Indices
    started: int
    finished: int
    threshold: float | None = None
    confidences: npt.NDArray[np.float64] | None = None
    accepted: npt.NDArray[np.bool_] = attrs.field(factory=lambda: np.zeros(0, dtype=np.bool_))
    failed: npt.NDArray[np.bool_] | None = None  # None: no row has
    forced: bool = False
    known: bool = True  # the version that the policy names
    costs: Sequence[float | None] | None = None  # of each row, where the tier reports any
    error: str | None = None  # what went wrong with the run as a whole
    late: bool = False  # it was stopped, or left, at the deadline
    refusal: Reason | None = None
    eta: int = -1
    left: int = -1

    def results(self) -> dict[str, int]:
        """Count the rows by the result of their step."""
        if self.refusal is not None:
            return {"refused": len(self.rows)}
        failed = 0 if self.failed is None else int(np.count_nonzero(self.failed))
        accepted = int(np.count_nonzero(self.accepted))
        counts = {"accepted": accepted, "timed_out" if self.late else "failed": failed}
        counts["forced" if self.forced else "unsure"] = len(self.rows) - failed - accepted
        return {result: count for result, count in counts.items() if count}

    def step(self, row: int) -> RawStep | None:
        """Return one row's step, if it took part."""
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            return None
        tier, begun = self.tier, self.started
        if self.refusal is not None:
            looked = (tier, "refused", self.refusal, None, None, self.eta, self.left)
            return (*looked, begun, begun, begun, begun, 0, None)
        times = begun, begun, self.finished, self.finished, 0
        if self.failed is not None and self.failed[at]:
            if self.late:
                much = (len(self.rows), "rows")
                return (tier, "timed_out", Reason.DEADLINE, None, None, -1, -1, *times, much)
            what = (len(self.rows), "rows", self.error or "no sound confidence")
            return (tier, "failed", Reason.FAULT, None, None, -1, -1, *times, what)
        confidence = None if self.confidences is None else float(self.confidences[at])
        result = "accepted" if self.accepted[at] else "forced" if self.forced else "unsure"
        much = (len(self.rows), "rows")
        return (tier, result, None, confidence, self.threshold, -1, -1, *times, much)

    def cost(self, row: int) -> float | None:
        """Return what the answer to one row cost, if it has one and the tier said so."""
        at = int(np.searchsorted(self.rows, row))
        if self.costs is None or at == len(self.rows) or self.rows[at] != row:
            return None
        return None if self.failed is not None and self.failed[at] else self.costs[at]


class Setbacks:
    """What stood in the way of some rows; most batches have none.

    ``tier`` is that of a row's best answer so far, ``why`` the code of what first stood in its way,
    both -1 for none; ``strayed``: the certified rule would have gone another way.
    """

    def __init__(self, n: int, runs: Iterable[Run]) -> None:
        self.tier = np.full(n, NONE, dtype=np.int16)
        self.why = np.full(n, NONE, dtype=np.int16)
        self.strayed = np.zeros(n, dtype=np.bool_)
        self.faulted = np.zeros(n, dtype=np.bool_)
        for run in runs:  # of which none has failed or was refused
            self.tier[run.rows] = run.tier

    def note(self, rows: Indices, reason: Reason, *, fault: bool = False) -> None:
        """Note that something stood in these rows' way; whether it was a tier's own fault."""
        fresh = rows[self.why[rows] == NONE]
        self.why[fresh] = CODES[reason]
        self.strayed[rows] = True
        self.faulted[rows] |= fault

    def unanswered(self, reason: Reason) -> npt.NDArray[np.bool_]:
        """Mark the rows that have no answer, first of all for this reason."""
        return np.asarray((self.tier == NONE) & (self.why == CODES[reason]))


def take(rows: Any, index: Indices) -> Any:
    """Return these rows of a batch: an array, a list, or a dict of those."""
    if isinstance(rows, np.ndarray):
        return rows.take(index, axis=0)
    if isinstance(rows, dict):
        return {name: take(column, index) for name, column in rows.items()}
    return [rows[i] for i in index.tolist()]
