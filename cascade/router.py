"""The synchronous driver: thread-safe, one request at a time per thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Generic, Self

from cascade.binding import bind, functions
from cascade.cache import ResultCache
from cascade.columnar import route_rows
from cascade.decide import Call, Finish
from cascade.engine import Engine, Request
from cascade.errors import PolicyError
from cascade.flight import Follower, Lead
from cascade.observing import Aftermath, Watched
from cascade.opening import open_plan
from cascade.outcome import Outcome
from cascade.plan import in_mode
from cascade.policy import Policy
from cascade.telemetry import Health, Statistics, prometheus, statistics
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cascade.binding import PerTier
    from cascade.budget import Budget
    from cascade.columnar import Outcomes
    from cascade.decide import Decision
    from cascade.flight import Verdict
    from cascade.plan import Plan
    from cascade.protocols import Clock, Observer

__all__ = ["Router"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # type checkers carry it: a default spares annotations

    X = TypeVar("X", default=Any)
    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    X, V = TypeVar("X"), TypeVar("V")


class Router(Watched, Generic[X, V]):
    """Answers requests with the cheapest tier that can be trusted to answer in time.

    Building it reads the policy and checks the model files' digests, but makes no session, so it is
    safe before a fork. Entering it (``with``, or :meth:`warmup`) opens the tiers, replays the
    golden inputs and warms up; a request before that does so itself.

    ``tiers`` binds external tiers by name (and may stand in for models, in tests); ``prepare`` and
    ``postprocess`` are functions for every request, or one per tier by name; ``on_outcome`` is
    called with each outcome after the answer; ``clock`` gives monotonic integer nanoseconds.

    Raises:
        PolicyError: the policy, or what is bound to it, does not fit.
        ModelIntegrityError: a model file is missing or not the one that the policy names.

    >>> import cascade
    >>> policy = cascade.Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "pets",
    ...         "deadline": "1s",
    ...         "tiers": [
    ...             {"name": "small", "kind": "external"},
    ...             {"name": "large", "kind": "external"},
    ...         ],
    ...         "escalation": {"thresholds": [0.8]},
    ...     }
    ... )
    >>> small = cascade.tier(
    ...     lambda x: ("cat", 0.9 if x == "meow" else 0.3), returns="pairs", rows="one"
    ... )
    >>> large = cascade.tier(lambda x: "dog", rows="one")
    >>> with cascade.Router(policy, tiers={"small": small, "large": large}) as router:
    ...     [router.route(x).tier for x in ("meow", "wuff")]
    ['small', 'large']
    """

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
        for spec in policy.tiers:
            if spec.confidence.calibration is not None and spec.name not in policy.calibrations:
                raise PolicyError(
                    f"tier {spec.name!r}: {spec.confidence.calibration} was not read; give the "
                    f"policy its folder: Policy.from_dict(…, root=folder)"
                )
        self._policy = policy
        self._prepare = functions("prepare", prepare, policy)
        self._postprocess = functions("postprocess", postprocess, policy)
        self._bound = bind(policy, tiers, models, env)
        self._mode = policy.mode
        observers = (on_outcome,) if callable(on_outcome) else tuple(on_outcome)
        self._engine = Engine(clock, observers)
        self._clock = clock
        self._opening = threading.Lock()
        self._plan: Plan | None = None
        self._closed = False
        self._aftermath = Aftermath()
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
    ) -> Self:
        """Build a router from a policy file.

        ``models`` is the folder of the model files (default: ``CASCADE_MODELS``, else the policy's
        folder); ``env`` stands in for the environment.

        Raises:
            PolicyError: with every problem of the file, and its place.
        """
        return cls(
            Policy.from_yaml(path, env=env),
            tiers=tiers,
            prepare=prepare,
            postprocess=postprocess,
            models=models,
            env=env,
            on_outcome=on_outcome,
        )

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Open the tiers and warm up."""
        self.warmup()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the tiers."""
        self.close()

    def warmup(self) -> None:
        """Open the tiers, replay the golden inputs and run each tier a few times. Idempotent.

        Raises:
            ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        """
        with self._opening:
            if self._closed:
                msg = "the router is closed"
                raise PolicyError(msg)
            if self._plan is None:
                policy = self._policy
                plan = open_plan(policy, self._bound, self._clock, self._prepare, self._postprocess)
                settings = policy.cache
                if settings is not None:
                    ttl = None if settings.ttl is None else round(settings.ttl * 1e9)
                    self._engine.cache = ResultCache(settings.entries, settings.bytes, ttl)
                self._plan = in_mode(plan, self._mode)

    def close(self) -> None:
        """Let go of the models; further requests are refused with a PolicyError."""
        with self._opening:
            self._closed = True
            self._plan = None
            self._aftermath.close()
            for tier in self._bound:
                tier.close()

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._mode

    @property
    def ready(self) -> bool:
        """Whether the tiers are open and warm."""
        return self._plan is not None

    def set_mode(self, mode: Mode | str) -> None:
        """Change the mode, for requests that begin from now on.

        Raises:
            PolicyError: no such mode, or ``enforce`` without thresholds or certificate.
        """
        try:
            wanted = Mode(mode)
        except ValueError:
            known = ", ".join(Mode)
            raise PolicyError(f"mode: expected one of {known}, got {mode!r}") from None
        _check_mode(self._policy, wanted)
        with self._opening:
            self._mode = wanted
            self._watch()
            if self._plan is not None:
                self._plan = in_mode(self._plan, wanted)

    def _open(self) -> Plan:
        self.warmup()
        plan = self._plan
        assert plan is not None  # noqa: S101  warmup has set it, or raised
        return plan

    # -- serving ---------------------------------------------------------------------------------

    def route(
        self,
        x: X,
        *,
        deadline: float | str | Budget | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        use_cache: bool = True,
        received: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcome[V]:
        """Answer one row.

        ``x`` is a string, number, array, list of numbers, or a dict of arrays, without a batch
        axis. ``deadline`` is in seconds, a duration such as ``"20ms"``, or a Budget; by default the
        policy's. ``at_least`` names the lowest tier that may answer. ``received`` starts the budget
        at a ``time.monotonic_ns()`` of arrival. ``metadata`` reaches the tiers' context.

        Raises:
            InputTypeError, InputValueError: the input is not what the first tier declares.
            ValueError: the deadline is zero, negative or NaN.
            PolicyError: no deadline in call and policy, or no such tier.
            DeadlineExceeded: no tier can answer in time; ``.outcome`` says more.
            Overloaded: refused by a bound.
            TierError: every tier failed; the last one's error.
        """
        plan = self._plan or self._open()
        engine = self._engine
        arrived = self._clock() if received is None else received
        if deadline is None and plan.budget is not None:
            budget = plan.budget
        else:
            budget = engine.budget(plan, deadline, arrived)
        floor = plan.floor if at_least is None else self._floor(plan, at_least)
        request = engine.begin(
            plan, x, arrived, arrived + budget, tenant, floor, use_cache, metadata, _SyncFollower
        )
        if type(request) is Outcome:  # from the cache
            return request
        assert type(request) is Request  # noqa: S101  the only other kind
        if request.follower is not None:
            return self._follow(request, x)
        return self._lead(request, x)

    def _lead(self, request: Request, x: X, after: Decision | None = None) -> Outcome[V]:
        """Drive a request up the ladder, from the start or on from where another stopped."""
        plan = request.plan
        lanes, etas = plan.lanes, plan.etas
        try:
            if after is None:
                hard = 0.0
                if plan.complexity is not None:
                    hard = plan.complexity(x if plan.by_name else request.row)
                request.routed = now = self._clock()
                move = request.start(plan.point, hard, now, request.until, etas)
            else:
                move = request.resume(after, self._clock(), request.until, etas)
            while type(move) is Call:
                fact = lanes[move.tier].call(request)
                move = request.step(fact, fact.finished, etas)
            assert type(move) is Finish  # noqa: S101  the only other kind
            return self._engine.settle(request, move)
        except BaseException:
            self._engine.abandon(request)
            raise

    def _follow(self, request: Request, x: X) -> Outcome[V]:
        """Wait for another's computation of the same answer; take over when it stops short."""
        follower = request.follower
        assert type(follower) is _SyncFollower  # noqa: S101  made by begin
        waited = request.routed = self._clock()
        verdict = follower.wait((request.until - waited) / 1e9)
        if verdict is None:
            verdict = self._engine.desert(follower)
        if isinstance(verdict, Lead):
            return self._lead(request, x, verdict.after)
        return self._engine.settle_follower(request, verdict, waited)

    def _floor(self, plan: Plan, at_least: str) -> int:
        try:
            return max(plan.floor, plan.site.tiers.index(at_least))
        except ValueError:
            known = ", ".join(plan.site.tiers)
            raise PolicyError(f"at_least: no tier {at_least!r}; the policy has {known}") from None

    def route_many(
        self,
        X: Any,
        *,
        deadline: float | str | Budget | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        use_cache: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcomes[V]:
        """Answer a batch: one model run per tier, the rows that need it going on.

        ``X`` is a list for text and objects, an array with a leading batch axis, or a dict of
        those. The policy's deadline does not apply; ``deadline`` covers the whole call, and rows
        not reached are FAILED/deadline. Nothing is raised for single rows: their dispositions say.

        Raises:
            InputTypeError, InputValueError: the batch is not what the first tier declares.
            ValueError: the deadline is zero, negative or NaN.
            PolicyError: no such tier.
        """
        plan = self._plan or self._open()
        arrived = self._clock()
        until = None
        if deadline is not None:
            until = arrived + self._engine.budget(plan, deadline, arrived)
        floor = plan.floor if at_least is None else self._floor(plan, at_least)
        return route_rows(
            self._engine, plan, X, arrived, until, tenant, floor, metadata, use_cache=use_cache
        )

    # -- looking inside --------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Return a frozen snapshot of what has been counted, with the bottleneck named."""
        plan, after = self._plan or self._open(), self._aftermath
        recorded = 0 if after.recorder is None else after.recorder.rows
        return statistics(
            self._engine, plan, self._policy, self._mode, recorded=recorded, dropped=after.dropped
        )

    def metrics(self) -> str:
        """Return the counters as Prometheus text."""
        return prometheus(self._engine, self._plan or self._open(), self._policy, self._mode)

    def health(self) -> Health:
        """Say whether the router can serve, and by what."""
        return Health(
            ready=self.ready,
            closed=self._closed,
            mode=self._mode,
            policy=self._policy.digest,
            tiers=tuple(tier.name for tier in self._bound),
        )

    def __reduce__(self) -> Any:
        """Refuse: a live router holds sessions and locks."""
        msg = "a live Router cannot be pickled; pickle its Policy and build a Router from that"
        raise TypeError(msg)

    def __repr__(self) -> str:
        """Show the policy's name and the state."""
        state = "closed" if self._closed else "ready" if self.ready else "not entered"
        return f"Router({self._policy.name!r}, mode={str(self._mode)!r}, {state})"


class _SyncFollower(Follower):
    """A follower that waits in its own thread."""

    def __init__(self, own: Request) -> None:
        self._event = threading.Event()
        super().__init__(own, own.until, self._event.set)

    def wait(self, seconds: float) -> Verdict | None:
        """Wait for the verdict, at most so long."""
        self._event.wait(max(0.0, seconds))
        return self.verdict


def _check_mode(policy: Policy, mode: Mode) -> None:
    escalation = policy.escalation
    bare = escalation.certificate is None and escalation.thresholds is None
    if mode is Mode.ENFORCE and bare and len(policy.tiers) > 1:
        msg = "mode: enforce needs escalation.certificate or escalation.thresholds in the policy"
        raise PolicyError(msg)
