"""What the policies of a router have counted, the earlier ones too: counters do not fall."""

from __future__ import annotations

from cascade.ledger import Ledger, Totals

__all__ = ["Counters"]

_NAMED, _LADDERS = 4, 8  # policies that are counted by name, ladders of those before them


class Counters:
    """A ledger per policy's name and tiers; the names of all but the latest few are forgotten."""

    def __init__(self) -> None:
        self._named: dict[tuple[str, tuple[str, ...]], Ledger] = {}
        self._earlier: dict[tuple[str, ...], Ledger] = {}  # of policies before those, by tiers

    def ledger(self, name: str, tiers: tuple[str, ...]) -> Ledger:
        """Return where a policy is counted: a new ledger, unless it is known."""
        return self._named.get((name, tiers)) or Ledger(len(tiers))

    def add(self, name: str, tiers: tuple[str, ...], ledger: Ledger) -> None:
        """Have the ledger of the policy that is in force now counted."""
        self._named.pop((name, tiers), None)
        self._named[name, tiers] = ledger  # the latest is the last
        if len(self._named) > _NAMED:
            _, old = first = next(iter(self._named))
            self._earlier.setdefault(old, Ledger(len(old))).absorb(self._named.pop(first))
        if len(self._earlier) > _LADDERS:
            del self._earlier[next(iter(self._earlier))]

    def totals(self) -> list[tuple[str, tuple[str, ...], Totals]]:
        """Return name, tiers and counts; of those whose name is forgotten, by tiers."""
        kept = {("", tiers): ledger for tiers, ledger in self._earlier.items()} | self._named
        return [(*key, ledger.totals()) for key, ledger in kept.items()]
