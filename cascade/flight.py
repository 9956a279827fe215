"""Flights: one computation that several callers of one key wait for; pure, for every driver.

The leader's request is the flight. The driver brings the lock, the waiting and the waking; what
each waiter gets is decided here. Only an ACCEPTED answer is shared. On any other end, waiters with
more time than the leader had go on from where it stopped, under a new leader; a tier fault is
shared, not retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from cascade.decide import Decision
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.facts import Replied
    from cascade.protocols import QueuedLane
    from cascade.types import Finish, OperatingPoint

__all__ = ["Flight", "Follower", "Landed", "Landing", "Lead", "Pending", "Verdict", "land"]


class Flight(Decision):
    """A decision that others may wait for; ``followers`` is None until somebody does."""

    followers: list[Follower] | None = None

    def join(self, follower: Follower) -> None:
        """Wait for this request's answer."""
        follower.flight = self
        if self.followers is None:
            self.followers = []
        self.followers.append(follower)


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
