"""What Router and AsyncRouter show of the service behind them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cascade.budget import nanoseconds
from cascade.columnar import Batch
from cascade.engine import whose
from cascade.errors import PolicyError
from cascade.observing import Aftermath, Watched
from cascade.policy import Policy
from cascade.runs import FOREVER, BatchContext
from cascade.service import Given, Service
from cascade.telemetry import Health, Statistics, statistics
from cascade.types import LoadSnapshot, TierLoad

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cascade.binding import PerTier
    from cascade.budget import Budget
    from cascade.plan import Plan
    from cascade.protocols import Clock, Observer
    from cascade.types import Mode

__all__ = ["Front"]

_LOOKS, _PAUSE = 3, 0.001  # that find nobody, and s between them: a router is idle then


class Front(Watched):
    """A router as its users see it, but for the routing."""

    _asynchronous = False

    def __init__(
        self,
        policy: Policy,
        *,
        tiers: Mapping[str, Any] | None = None,
        prepare: PerTier = None,
        postprocess: PerTier = None,
        models: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_outcome: Observer | Iterable[Observer] = (),
        clock: Clock = time.monotonic_ns,
    ) -> None:
        observers = (on_outcome,) if callable(on_outcome) else tuple(on_outcome)
        given = Given(tiers, prepare, postprocess, models, env)
        self._serve(Service(policy, given, observers, clock, asynchronous=self._asynchronous))

    def _serve(self, service: Service) -> None:
        self._service = service
        self._clock = service.clock
        self._aftermath = Aftermath()
        service.watchers.add(self)
        self._watch()

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        tiers: Mapping[str, Any] | None = None,
        prepare: PerTier = None,
        postprocess: PerTier = None,
        models: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_outcome: Observer | Iterable[Observer] = (),
        reload: float | str | None = None,
    ) -> Self:
        """Build a router from a policy file.

        ``models`` is the folder of the model files (default: ``CASCADE_MODELS``, else the policy's
        folder); ``env`` stands in for the environment. With ``reload`` (seconds, or a duration such
        as ``"5s"``) the file, its models and all that it names are looked at that often, and
        swapped in when their content has changed and stayed so for one look; a bad file leaves the
        old policy serving and is counted.

        Raises:
            PolicyError: with every problem of the file, and its place.
            ValueError: ``reload`` is not a positive time.
        """
        seconds = None if reload is None else nanoseconds(reload, "reload") / 1e9
        router = cls(
            Policy.from_yaml(path, env=env),
            tiers=tiers,
            prepare=prepare,
            postprocess=postprocess,
            models=models,
            env=env,
            on_outcome=on_outcome,
        )
        if seconds is not None:
            router._service.reload(Path(path), seconds)
        return router

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._service.policy

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._service.mode

    @property
    def ready(self) -> bool:
        """Whether the tiers are open and warm."""
        return self._service.plan is not None

    def set_mode(self, mode: Mode | str) -> None:
        """Change the mode, for requests that begin from now on.

        Raises:
            PolicyError: no such mode, or ``enforce`` without thresholds or certificate.
        """
        self._service.set_mode(mode)

    def _idling(self, plan: Plan | None) -> Iterator[float]:
        """Yield pauses (s) for as long as requests are on their way.

        One may be between two tiers when it is looked for, so that several looks must find none.
        """
        calm = 0
        while plan is not None and calm < _LOOKS:
            calm = 0 if self._service.busy(plan) else calm + 1
            yield _PAUSE

    def _floor(self, plan: Plan, at_least: str) -> int:
        try:
            return max(plan.floor, plan.site.tiers.index(at_least))
        except ValueError:
            known = ", ".join(plan.site.tiers)
            raise PolicyError(f"at_least: no tier {at_least!r}; the policy has {known}") from None

    def _many(
        self, plan: Plan, batch: Any, deadline: float | str | Budget | None, tenant: str | None,
        at_least: str | None, use_cache: bool, metadata: Mapping[str, Any] | None,  # noqa: FBT001
    ) -> Batch:  # fmt: skip
        """Take a batch in; its time runs from now on, wherever it is routed."""
        arrived, until = self._clock(), FOREVER
        if deadline is not None:
            until = arrived + plan.engine.budget(plan, deadline, arrived)
        floor = plan.floor if at_least is None else self._floor(plan, at_least)
        context = BatchContext(until, plan.clock, whose(tenant), metadata or {})
        return Batch(batch, arrived, floor, use_cache, context)

    # -- looking inside --------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Return a frozen snapshot of what has been counted, with the bottleneck named.

        It opens no tier; after ``close`` it is the last one.
        """
        now, after = self._service.standing(), self._aftermath
        recorded = 0 if after.recorder is None else after.recorder.rows
        return statistics(now, self.mode, recorded=recorded, dropped=after.dropped)

    def load(self) -> LoadSnapshot:
        """Return the load of the latest interval: of this process, in all and per tier.

        Where load moves the operating point that is what the controller has seen last; else the
        interval since this was last called. A router that is not open is at nothing.
        """
        plan = self._service.plan or self._service.leaving
        if plan is None:
            idle = tuple(TierLoad(spec.name) for spec in self.policy.tiers)
            return LoadSnapshot(self._clock(), 0.0, 0.0, 0.0, idle)
        steering = plan.steering
        if steering is not None and steering.latest is not None:
            return steering.latest
        return plan.monitor.read(self._clock())

    def metrics(self) -> str:
        """Return the counters as Prometheus text; after ``close``, as they were then.

        Where ``CASCADE_METRICS_DIR`` names a folder, those of all processes that share it. It opens
        no tier.
        """
        return self._service.metrics()

    def health(self) -> Health:
        """Say whether the router can serve, and by what."""
        return Health(
            ready=self.ready,
            closed=self._service.closed,
            mode=self.mode,
            policy=self.policy.digest,
            tiers=tuple(spec.name for spec in self.policy.tiers),
        )

    def __reduce__(self) -> Any:
        """Refuse: a live router holds sessions and locks."""
        kind = type(self).__name__
        msg = f"a live {kind} cannot be pickled; pickle its Policy and build a {kind} from that"
        raise TypeError(msg)

    def __repr__(self) -> str:
        """Show the policy's name and the state."""
        closed = self._service.closed
        state = "closed" if closed else "ready" if self.ready else "not entered"
        return f"{type(self).__name__}({self.policy.name!r}, mode={str(self.mode)!r}, {state})"
