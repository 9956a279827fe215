"""The ladder: what a decision needs to know of a policy, and its ends, made once per ladder.

A step of a decision allocates nothing but its record: what it returns stands here.
"""

from __future__ import annotations

import attrs

from cascade.types import Disposition, Finish, Reason

__all__ = ["Call", "Ladder"]


@attrs.frozen
class Call:
    """Ask this tier; its answer counts until the decision's ``until``."""

    tier: int


@attrs.frozen(slots=False)
class Ladder:
    """What a decision needs to know of a policy: the tiers, and when to abstain."""

    tiers: tuple[str, ...]
    abstain_below: float | None = None
    first_only: bool = False
    top: int = attrs.field(init=False)
    special: bool = attrs.field(init=False)  # a sure answer may yet be turned down
    calls: tuple[Call, ...] = attrs.field(init=False, eq=False)
    accepted: tuple[tuple[Finish, Finish], ...] = attrs.field(init=False, eq=False)
    _ends: dict[tuple[Disposition, Reason, int, bool], Finish] = attrs.field(
        factory=dict, init=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        """Derive what every request asks for; ``accepted`` goes by tier and by covered."""
        top = len(self.tiers) - 1
        derived = {
            "top": top,
            "special": self.first_only or self.abstain_below is not None,
            "calls": tuple(map(Call, range(top + 1))),
            "accepted": tuple(
                (self._accepted(rank, top, False), self._accepted(rank, top, True))  # noqa: FBT003
                for rank in range(top + 1)
            ),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _accepted(self, rank: int, top: int, covered: bool) -> Finish:  # noqa: FBT001
        why = Reason.TOP if rank == top else Reason.CONFIDENT
        return self.finish(Disposition.ACCEPTED, why, rank, covered)

    def finish(
        self,
        disposition: Disposition,
        reason: Reason,
        rank: int = -1,
        covered: bool = False,  # noqa: FBT001, FBT002
    ) -> Finish:
        """Return the one record of this kind of end; ``rank`` is that of the tier that answered."""
        kind = (disposition, reason, rank, covered)
        found = self._ends.get(kind)
        if found is None:
            name, hit = None if rank < 0 else self.tiers[rank], None
            if disposition is Disposition.ACCEPTED:
                hit = self.finish(Disposition.CACHED, Reason.CACHE, rank, covered)
            made = Finish(disposition, reason, name, covered, rank, hit)
            found = self._ends.setdefault(kind, made)
        return found
