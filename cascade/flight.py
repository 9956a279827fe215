"""Flights: one computation that several callers of one key wait for; pure, for every driver.

The driver brings the lock, the waiting and the waking; what each waiter gets is decided here. Only
an ACCEPTED answer is shared. On any other end, waiters with more time than the leader had go on
from where it stopped, under a new leader; a tier fault is shared, not retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from cascade.decide import Finish
from cascade.types import Disposition, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.decide import Decision

__all__ = ["Flight", "Follower", "Landing", "Lead", "land"]


@attrs.define(eq=False)
class Follower:
    """A caller that waits: its deadline (ns), its verdict, and how the driver wakes it."""

    until: int
    signal: Callable[[], None]
    verdict: Verdict | None = None

    def wake(self, verdict: Verdict) -> None:
        """Give the follower its verdict."""
        self.verdict = verdict
        self.signal()


@attrs.define(eq=False)
class Flight:
    """What is under way for one key; ``followers`` is None until somebody joins."""

    decision: Decision | None = None
    followers: list[Follower] | None = None

    def join(self, follower: Follower) -> None:
        """Wait for the leader's answer."""
        if self.followers is None:
            self.followers = []
        self.followers.append(follower)

    def leave(self, follower: Follower) -> None:
        """Stop waiting; harmless when the flight has landed."""
        if self.followers is not None and follower in self.followers:
            self.followers.remove(follower)


@attrs.define(eq=False)
class Lead:
    """The verdict 'go on yourself': from the leader's decision, or from the start if None."""

    decision: Decision | None


Verdict: TypeAlias = Finish | Lead


@attrs.define(eq=False)
class Landing:
    """Whom to wake with what; ``aloft`` says that the flight goes on under a new leader."""

    verdicts: Sequence[tuple[Follower, Verdict]]
    aloft: bool


def land(
    flight: Flight, finish: Finish | None, decision: Decision | None, now: int, need: int
) -> Landing:
    """Decide what each follower gets when the leader stops.

    ``finish`` is None when the leader was interrupted. ``need`` is the time (ns) that the step
    which was refused to the leader takes; negative when no amount of time would do.
    """
    waiting = flight.followers or []
    flight.followers = None
    if finish is not None and _shared(finish, need):
        return Landing([(follower, finish) for follower in waiting], aloft=False)
    able = [f for f in waiting if finish is None or f.until - now >= need]
    rest = [f for f in waiting if f not in able]
    verdicts: list[tuple[Follower, Verdict]] = [(f, finish) for f in rest if finish is not None]
    if able:
        verdicts.append((able[0], Lead(None if finish is None else decision)))
        flight.followers = able[1:] or None
    return Landing(verdicts, aloft=bool(able))


def _shared(finish: Finish, need: int) -> bool:
    if finish.disposition is Disposition.ACCEPTED or need < 0:
        return True
    return finish.disposition is Disposition.FAILED and finish.reason is Reason.FAULT
