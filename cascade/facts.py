"""Facts: what a lane can say of a call; the decision takes them in one by one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from cascade.errors import CascadeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cascade.types import Reason

__all__ = ["Fact", "Failed", "Refused", "Replied", "RowsReply", "TimedOut", "since"]


@attrs.define(eq=False)
class Replied:
    """A tier answered.

    Times in ns: handed to the lane, model started, model finished; ``prepared`` is how long the
    tier's own preparation took. ``confidence`` is None where the top tier supplies none. ``known``
    is False when the tier reports another version than the one that the policy names. ``batch``
    says how many rows the run had and why it went, where requests are put together.
    """

    tier: int
    value: Any
    confidence: float | None
    submitted: int
    started: int
    finished: int
    prepared: int = 0
    known: bool = True
    cost: float | None = None
    batch: tuple[int, str] | None = None


@attrs.define(eq=False)
class Failed:
    """A tier raised, or returned what cannot be an answer."""

    tier: int
    error: BaseException
    submitted: int
    started: int
    finished: int
    prepared: int = 0

    @property
    def what(self) -> str:
        """What went wrong, in words of this library: others may hold the input."""
        error = self.error
        return str(error) if isinstance(error, CascadeError) else type(error).__name__


@attrs.define(eq=False)
class TimedOut:
    """A tier ran past the time it had."""

    tier: int
    submitted: int
    started: int
    finished: int
    prepared: int = 0


@attrs.define(eq=False)
class Refused:
    """A lane would not take the call after all."""

    tier: int
    reason: Reason
    finished: int


@attrs.define(eq=False)
class RowsReply:
    """A tier answered a batch: columns of n values and confidences (NaN: a fault), or None.

    ``error`` says why some of its rows could not be asked.
    """

    values: npt.NDArray[Any] | None
    confidences: npt.NDArray[np.float64] | None
    started: int
    finished: int
    known: bool = True
    costs: list[float | None] | None = None  # of each row, where the tier reports any
    error: str | None = None


Fact: TypeAlias = Replied | Failed | TimedOut | Refused


def since(fact: Fact, begun: int) -> Fact:
    """Return a fact as it is to one who waits since then (ns): what was before is not his time."""
    if isinstance(fact, Refused) or fact.submitted >= begun:
        return fact
    started = max(fact.started, begun)
    return attrs.evolve(
        fact,
        submitted=begun,
        started=started,
        finished=max(fact.finished, begun),
        prepared=min(fact.prepared, started - begun),
    )
