"""The seams: what a tier, its context, a lane and a clock must be able to do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from cascade.calibration import Calibration
    from cascade.facts import Fact, Refused, RowsReply
    from cascade.load import ServiceTime
    from cascade.policy import Policy, TierSpec
    from cascade.types import Prediction

__all__ = [
    "BoundTier",
    "Clock",
    "Context",
    "InputSpec",
    "Job",
    "Lane",
    "Observer",
    "Occupancy",
    "OnDone",
    "QueuedLane",
    "Rows",
    "Tier",
]

Clock: TypeAlias = Callable[[], int]
"""A monotonic time in integer nanoseconds."""

Observer: TypeAlias = Callable[[Any], object]
"""Called with each outcome after the answer; what it raises is counted, never raised."""

OnDone: TypeAlias = "Callable[[Fact], None]"
"""The one completion slot of a call: called once, on the worker."""


@runtime_checkable
class Context(Protocol):
    """What a tier may know of the request that it serves."""

    @property
    def tenant(self) -> str | None:
        """On whose behalf the request is made."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller passed along."""

    def remaining(self) -> float:
        """Seconds until the deadline; negative once it has passed."""

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""


@runtime_checkable
class Tier(Protocol):
    """A predictor: any object with this method can be a tier.

    >>> class Constant:
    ...     def predict(self, batch, context):
    ...         from cascade import Prediction
    ...
    ...         return Prediction(["spam"] * len(batch), confidences=[0.9] * len(batch))
    >>> isinstance(Constant(), Tier)
    True
    """

    def predict(self, batch: Any, context: Context) -> Prediction:
        """Answer a batch of n rows with n values."""


@attrs.frozen
class InputSpec:
    """One declared input of a model: its name, dtype and the shape of a row.

    ``shape`` has no batch axis; None stands for an axis of any length. ``dtype`` is a NumPy dtype
    name, or ``text`` for strings.

    >>> str(InputSpec("x", "float32", (64,)))
    "'x': float32 row of shape (64,)"
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Describe the input as an error message would."""
        if self.dtype == "text":
            return f"{self.name!r}: text"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        comma = "," if len(self.shape) == 1 else ""
        return f"{self.name!r}: {self.dtype} row of shape ({sizes}{comma})"


class Job(Protocol):
    """One request as a lane sees it."""

    row: Any
    until: int
    rank: int  # of its class: 0 goes first


Rows: TypeAlias = "tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]"
"""Columns of a batch: values (n,), and confidences (n,) with NaN for faulty rows, or None."""


class BoundTier(Protocol):
    """A tier as the lanes run it: opened, with its settings compiled in.

    Packages that bring a kind of tier subclass it; what is not abstract here has a default.
    """

    name: str
    inputs: tuple[InputSpec, ...] = ()
    classes: Sequence[Any] | None = None  # the labels that it answers with, where they are known
    silent: bool = True  # reports neither version nor cost: no remarks to read
    can_stop: bool = False  # a run can be ended from another thread, as ``job.stop_with`` is told
    batches: bool = True  # several rows in one run take less than one by one

    def open(self) -> None:
        """Load what is needed; called once, before the first run. Idempotent."""
        return

    def close(self) -> None:
        """Let go of what was loaded."""
        return

    def retire(self) -> None:
        """Let go of what nobody will ask for soon; runs under way, and late ones, still go on."""
        return

    def reset(self) -> None:
        """Begin anew in a forked child: what was loaded belongs to the parent."""
        return

    def identify(self) -> Hashable:
        """Name what answers once it is open, beyond what the policy says of it.

        A cache outlives a swap where the policy answers the same and these are equal.
        """
        return None

    @abstractmethod
    def run(self, job: Any) -> Any:
        """Run the model on one row; the time inside counts as compute."""

    @abstractmethod
    def read(self, raw: Any) -> tuple[Any, float | None]:
        """Turn what ``run`` returned into (value, confidence)."""

    def run_stoppable(self, job: Any) -> Any:
        """Run the model on one row; ``job.stop_with(f)`` is told how to end the run."""
        return self.run(job)

    def read_stoppable(self, raw: Any) -> tuple[Any, float | None]:
        """Turn what ``run_stoppable`` returned into (value, confidence)."""
        return self.read(raw)

    def remarks(self, raw: Any, i: int = 0) -> tuple[bool, float | None]:  # noqa: ARG002
        """Return whether the version is the policy's, and row i's cost, where they are reported."""
        return True, None

    @abstractmethod
    def run_rows(self, rows: Any, n: int, context: Context) -> Any:
        """Run the model on a batch of n rows."""

    @abstractmethod
    def read_rows(self, raw: Any, n: int) -> Rows:
        """Turn what ``run_rows`` returned into columns, which are then written to."""


class TierKind(Protocol):
    """A kind of tier that a package brings along, as its entry point in ``cascade.tiers`` names it.

    ``settings`` is a subclass of :class:`cascade.TierSpec` with a ``kind``, so that its keys are
    validated, appear in the schema, and count in the certificate.
    """

    @property
    def settings(self) -> type[TierSpec]:
        """The class of its settings."""

    def bind(
        self, policy: Policy, spec: Any, models: str | Path | None, env: Mapping[str, str] | None
    ) -> BoundTier:
        """Return the tier that these settings describe; it is opened later."""


class Occupancy(NamedTuple):
    """What a lane is at: calls running and queued, how many may run, and what keeps it from it.

    >>> Occupancy(running=2, workers=2).zombies
    0
    """

    running: int = 0
    queued: int = 0
    workers: int = 1
    zombies: int = 0
    broken: bool = False


class Lane(Protocol):
    """How a tier is executed; completes every call with exactly one fact.

    While it is ``inline`` it runs in the caller; else it is a :class:`QueuedLane`.
    """

    tier: BoundTier
    service: ServiceTime
    inline: bool
    bare: bool  # it may run inline, with nothing to be done around a run
    calibration: Calibration | None
    pad: Mapping[str, float] | None
    cap: int  # rows that may run together

    def submit(self, job: Any, on_done: OnDone) -> Any:
        """Start the call; ``on_done`` gets its fact, on the worker."""

    def call(self, job: Any) -> Fact:
        """Make the call and wait for its fact, at most until the job's deadline."""

    def call_rows(self, rows: Any, n: int, context: Context) -> RowsReply | Refused:
        """Run n rows at once, unless the breaker keeps them away."""

    def lose(self) -> Callable[[], None] | None:
        """Count rows that were left while they run; what is returned is called when they end."""

    def plain(self, job: Any) -> tuple[Any, float | None]:
        """Ask the tier outside of the ledger."""

    def eta(self, rows: int = 1) -> int:
        """Nanoseconds until an answer; negative: a refusal (see ``cascade.decide``)."""

    def eta_for(self, rank: int) -> Callable[[], int]:
        """Return the ``eta`` of a class of requests: 0 goes first, 1 is that of ``eta``."""

    def wait(self) -> int:
        """Nanoseconds that a call would wait before it runs."""

    def occupancy(self) -> Occupancy:
        """Say what the lane is at."""

    def live(self) -> int:
        """How many calls somebody waits for, as far as they are not made by their callers."""

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""

    def retire(self) -> None:
        """Let workers go as soon as they have nothing to do; another lane takes over."""

    def close(self, grace: float = 0.0) -> None:
        """Let what is under way end, for at most ``grace`` seconds."""


class QueuedLane(Lane, Protocol):
    """A lane whose calls complete on a worker, and can be left before they do."""

    def submit(self, job: Any, on_done: OnDone) -> Any:
        """Start the call; ``on_done`` gets its fact, on the worker. Returns a ticket."""

    def cancel(self, ticket: Any) -> bool:
        """Stop waiting for a call; False when it is over, and the ticket has its fact."""

    def adopt(self, ticket: Any, job: Any, on_done: OnDone) -> bool:
        """Wait for a call that another has left; False when it is over."""

    def timed_out(self, ticket: Any) -> Fact:
        """Return the fact of a call that was left at its deadline."""
