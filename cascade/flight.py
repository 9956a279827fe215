"""Flights: one computation that several callers of one key wait for; pure, for every driver.

The leader's request is the flight. The driver brings the lock, the waiting and the waking; what
each waiter gets is decided here. Only an ACCEPTED answer is shared. On any other end, waiters with
more time than the leader had go on from where it stopped, under a new leader; a tier fault is
shared, not retried.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

from cascade.decide import Decision
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from cascade.admission import Priority
    from cascade.decide import Call
    from cascade.facts import Replied
    from cascade.plan import Plan
    from cascade.protocols import QueuedLane
    from cascade.types import Finish, OperatingPoint

__all__ = [
    "Flight",
    "Follower",
    "Landed",
    "Landing",
    "Lead",
    "Pending",
    "Request",
    "Verdict",
    "land",
]

_NANO = 1_000_000_000
_CONSTANT = frozenset({str, bytes, int, float, bool, type(None)})
_NOTHING: Mapping[str, Any] = {}


class Flight(Decision):
    """A decision that others may wait for; ``followers`` is None until somebody does."""

    followers: list[Follower] | None = None

    def join(self, follower: Follower) -> None:
        """Wait for this request's answer."""
        follower.flight = self
        if self.followers is None:
            self.followers = []
        self.followers.append(follower)


class Request(Flight):
    """One request on its way: what the lanes, the decision and the ledger need of it.

    It is the context that a tier sees, and the flight that others of its key wait for.
    """

    # What most requests never set costs them nothing as a class-level default.
    tenant: str | None = None
    metadata: Mapping[str, Any] = _NOTHING
    key: Hashable = None  # set while the request leads a flight
    follower: Follower | None = None  # set when it waits for another's answer
    pending: Pending | None = None  # the call that it waits for, on another thread
    heir: Request | None = None  # who waits for that call now
    move: Call | Finish | None = None  # what is next, where that is decided already
    kept = False  # the row, from its caller's hands
    routed = 0
    rank = 1  # of its class

    def __init__(self, plan: Plan, row: Any, floor: int, arrived: int, until: int) -> None:
        self._ladder = plan.ladder  # as Decision.__init__ does: a call less
        self.floor = floor
        self.plan = plan
        self.etas = plan.etas
        self.row = row
        self.arrived = arrived
        self.until = until

    def _latest(self) -> int:
        """The latest deadline of those who wait: a flight runs as long."""
        last = self
        while last.heir is not None:
            last = last.heir
        if last is not self:
            self.heir = last  # the way is long where many have left, and need not be gone again
        return max([last.until, *(follower.until for follower in tuple(last.followers or ()))])

    def remaining(self) -> float:
        """Seconds until the last deadline of those who wait; negative once it has passed."""
        return (self._latest() - self.plan.clock()) / _NANO

    def cancelled(self) -> bool:
        """Whether nobody waits any more: here, once the last deadline has passed."""
        return self.plan.clock() >= self._latest()

    def keep(self) -> None:
        """Hold a row of one's own: the caller may write to his before a run for others is over."""
        if self.key is not None and not self.kept:
            self.row, self.kept = _copied(self.row), True

    def put_in(self, priority: Priority) -> None:
        """Put the request into a class."""
        self.rank, self.etas = priority.rank, self.plan.ranked[priority]

    def flight_key(self) -> Hashable:
        """Tell flights apart that may be answered by different tiers, or in different modes."""
        first_only = self._ladder.first_only
        if self.floor or first_only:
            return self.key, self.floor, first_only
        return self.key


def _copied(row: Any) -> Any:
    kind = type(row)
    if kind in _CONSTANT:
        return row
    if kind is np.ndarray:
        return row.copy()
    if kind in {list, tuple}:
        return kind([_copied(one) for one in row])
    if kind is dict:
        return {name: _copied(one) for name, one in row.items()}
    try:  # what has a key is an array, or a mapping of such
        return copy.deepcopy(row)
    except Exception:  # noqa: BLE001  the row's own code runs here
        return row


@attrs.define(eq=False)
class Follower:
    """A caller that waits: its own request, its deadline (ns), and how the driver wakes it."""

    own: Flight
    until: int
    signal: Callable[[], None]
    flight: Flight | None = None
    verdict: Verdict | None = None

    def leave(self) -> None:
        """Stop waiting; harmless when the flight has landed."""
        waiting = None if self.flight is None else self.flight.followers
        if waiting is not None and self in waiting:
            waiting.remove(self)


@attrs.define(eq=False)
class Landed:
    """The verdict 'this is your answer too', or the error."""

    finish: Finish
    answer: Replied | None = None
    error: BaseException | None = None
    point: OperatingPoint | None = None


@attrs.define(eq=False)
class Lead:
    """The verdict 'go on yourself': after the leader's decision, or from the start if None.

    ``pending`` is the call that the leader was waiting for, where it left before that was over.
    """

    after: Decision | None
    pending: Pending | None = None


Verdict: TypeAlias = Landed | Lead

Pending: TypeAlias = "tuple[QueuedLane, Any]"
"""A call under way: its lane and ticket."""


@attrs.define(eq=False)
class Landing:
    """Who has which verdict; ``leader`` is the request that flies on, if one does.

    A verdict holds from the landing on, whenever its follower is woken: one who leaves in between
    has been given his answer, or the lead.
    """

    verdicts: Sequence[tuple[Follower, Verdict]]
    leader: Flight | None = None

    def __attrs_post_init__(self) -> None:
        """Give the followers their verdicts."""
        for follower, verdict in self.verdicts:
            follower.verdict = verdict


def land(
    flight: Flight, landed: Landed | None, now: int, need: int = -1, pending: Pending | None = None
) -> Landing:
    """Decide what each follower gets when the leader stops; call it under the flights' lock.

    ``landed`` is None when the leader was interrupted. ``need`` is the time (ns) that the step
    which was refused to the leader takes; negative when no amount of time would do. A call that is
    ``pending`` goes on for those with more time: a flight runs to the latest deadline of its
    members.
    """
    waiting = flight.followers or []
    flight.followers = None
    if pending is not None:
        need = max(need, 1)  # any time that is left
    if landed is not None and _shared(landed.finish, need):
        return Landing([(follower, landed) for follower in waiting])
    able = [f for f in waiting if landed is None or f.until - now >= need]
    if not able:
        return Landing([(f, landed) for f in waiting if landed is not None])
    leader = able[0].own
    for follower in able[1:]:
        leader.join(follower)
    late = [(f, landed) for f in waiting if f not in able and landed is not None]
    lead = Lead(None if landed is None and pending is None else flight, pending)
    return Landing([*late, (able[0], lead)], leader)


def _shared(finish: Finish, need: int) -> bool:
    if finish.disposition is Disposition.ACCEPTED or need < 0:
        return True
    return finish.disposition is Disposition.FAILED and finish.reason is Reason.FAULT
