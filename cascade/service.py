"""What the live drivers have in common: one policy in force, opened, replaced and closed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import attrs

from cascade.binding import bind, expect_policy, functions
from cascade.cache import FairCache, ResultCache
from cascade.engine import Engine
from cascade.errors import PolicyError
from cascade.ledger import Ledger
from cascade.opening import open_plan
from cascade.plan import in_mode, same_classes
from cascade.policy import Policy
from cascade.reloading import PolicyFiles
from cascade.telemetry import Standing, prometheus, standing
from cascade.telemetry.counters import Counters
from cascade.telemetry.shared import SharedMetrics
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from cascade.binding import Functions, PerTier
    from cascade.observing import Watched
    from cascade.plan import Plan
    from cascade.protocols import BoundTier, Clock, Observer

__all__ = ["Given", "Service"]

_LIVE: weakref.WeakSet[Service] = weakref.WeakSet()
_INHERITED: list[Any] = []  # of a parent: a child must not destroy the sessions in it


@attrs.frozen
class Given:
    """What a router was built with, beside its policy."""

    tiers: Mapping[str, Any] | None = None
    prepare: PerTier = None
    postprocess: PerTier = None
    models: str | Path | None = None
    env: Mapping[str, str] | None = None

    def of(self, policy: Policy) -> Given:
        """Return this with those tiers only that another policy still has."""
        if self.tiers is None:
            return self
        names = {spec.name for spec in policy.tiers}
        kept = {name: tier for name, tier in self.tiers.items() if name in names}
        return attrs.evolve(self, tiers=kept)


class Service:
    """A policy bound to its tiers, and the plan in force; drivers read ``plan`` once per request.

    Everything that a request needs hangs on its plan, cache and lanes included, so that replacing
    the plan is one assignment and no request mixes two policies.
    """

    def __init__(
        self,
        policy: Policy,
        given: Given,
        observers: tuple[Observer, ...],
        clock: Clock,
        *,
        asynchronous: bool = False,
    ) -> None:
        expect_policy(policy)
        self.policy = policy
        self.mode = policy.mode
        self.plan: Plan | None = None
        self.leaving: Plan | None = None  # of what is under way, while the router closes
        self._last: Standing | None = None  # what had been counted when it was closed
        self.closed = False
        self.over = threading.Event()  # it has been closed to the end
        self._claimed = False  # by who closes it
        self.opening = threading.RLock()  # held while models are opened: one policy at a time
        self.guard = threading.RLock()  # held briefly; a signal may come in it
        self.clock = clock
        self._counted = Counters()
        self.reload_failures = 0
        self.watchers: weakref.WeakSet[Watched] = weakref.WeakSet()  # of mode and policy
        self._mode_was_set = False
        self._given = given
        self._observers = observers
        self._asynchronous = asynchronous
        self._reloads: tuple[PolicyFiles, float] | None = None
        self._reloader: threading.Event | None = None  # stops it
        environment = os.environ if given.env is None else given.env
        self._folder = environment.get("CASCADE_METRICS_DIR")  # of metrics that are shared
        self._sharing = threading.RLock()
        self._shared: SharedMetrics | None = None
        self.bound, self._functions = self._bind(policy, given)
        _LIVE.add(self)

    def _bind(
        self, policy: Policy, given: Given
    ) -> tuple[tuple[BoundTier, ...], tuple[Functions, Functions]]:
        for spec in policy.tiers:
            if spec.confidence.calibration is not None and spec.name not in policy.calibrations:
                raise PolicyError(
                    f"tier {spec.name!r}: {spec.confidence.calibration} was not read; give the "
                    f"policy its folder: Policy.from_dict(…, root=folder)"
                )
        named = (
            functions("prepare", given.prepare, policy),
            functions("postprocess", given.postprocess, policy),
        )
        tiers, models, env = given.tiers, given.models, given.env
        bound = bind(policy, tiers, models, env, asynchronous=self._asynchronous)
        same_classes(bound, named[1])  # those of models are known when they are open
        return bound, named

    # -- opening ---------------------------------------------------------------------------------

    def open(self) -> Plan:
        """Open the tiers and warm up, once.

        Raises:
            PolicyError: the router is closed.
            ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        """
        with self.opening:
            self._refuse_closed()
            if self.plan is None:
                shared = self._share()
                with _open_or_closed(self.bound):
                    plan = self._opened(self.policy, self.bound, self._functions, None)
                    with self.guard:
                        self.plan = plan = in_mode(plan, self.mode)
                        self._counted.add(plan.policy.name, plan.site.tiers, plan.engine.ledger)
                if shared is not None:
                    shared.keep_writing(self, Service._own_metrics)
                self._watch_file()
                return plan
            return self.plan

    def _refuse_closed(self) -> None:
        if self.closed:
            msg = "the router is closed for good: build another; a policy is replaced by swap()"
            raise PolicyError(msg)

    def _opened(
        self, policy: Policy, bound: tuple[BoundTier, ...], named: tuple[Functions, Functions],
        before: Plan | None,
    ) -> Plan:  # fmt: skip
        return open_plan(
            policy, bound, self.clock, *named, lambda: self._engine(policy, bound, before),
            self._given.env,
        )  # fmt: skip

    def _engine(self, policy: Policy, bound: tuple[BoundTier, ...], before: Plan | None) -> Engine:
        """Return the cache and flights of a policy: those there are, if it answers the same."""
        ledger = self._counted.ledger(policy.name, tuple(tier.name for tier in bound))
        if before is not None:
            old = before.policy, [lane.tier for lane in before.lanes]
            if before.policy.cache == policy.cache and _answers(*old) == _answers(policy, bound):
                same = before.engine.ledger is ledger
                return before.engine if same else before.engine.counting(ledger)
        engine = Engine(self.clock, self._observers, ledger)
        settings = policy.cache
        if settings is not None:
            ttl = None if settings.ttl is None else round(settings.ttl * 1e9)
            sizes = settings.entries, settings.bytes, ttl
            share = settings.per_tenant
            engine.cache = ResultCache(*sizes) if share is None else FairCache(*sizes, share)
        return engine

    # -- changing --------------------------------------------------------------------------------

    def set_mode(self, mode: Mode | str) -> None:
        """Change the mode, for requests that begin from now on."""
        try:
            wanted = Mode(mode)
        except ValueError:
            known = ", ".join(Mode)
            raise PolicyError(f"mode: expected one of {known}, got {mode!r}") from None
        with self.guard:
            _check_mode(self.policy, wanted)
            self.mode, self._mode_was_set = wanted, True
            if self.plan is not None:
                self.plan = in_mode(self.plan, wanted)
        self._changed()

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher.watch_again()

    def swap(self, policy: Policy | str | Path, tiers: Mapping[str, Any] | None) -> None:
        """Put another policy in force; the one there is stays if anything is wrong with it."""
        if not isinstance(policy, Policy):
            policy = Policy.from_yaml(policy, env=self._given.env)
        with self.opening:
            self._refuse_closed()
            self._mode_for(policy)  # before anything is opened
            given = self._given
            if tiers is not None:
                given = attrs.evolve(given, tiers=tiers)
            bound, named = self._bind(policy, given if tiers is not None else given.of(policy))
            before, bound_before = self.plan, self.bound
            with _open_or_closed(bound):
                plan = None if before is None else self._opened(policy, bound, named, before)
                with self.guard:
                    self.mode = self._mode_for(policy)  # one may have been set meanwhile
                    self._given, self.policy = given, policy
                    self.bound, self._functions = bound, named
                    if plan is not None:
                        self.plan = in_mode(plan, self.mode)
                        self._counted.add(plan.policy.name, plan.site.tiers, plan.engine.ledger)
        if before is not None:
            before.retire()
            for tier in bound_before:
                tier.retire()
        self._changed()

    def _mode_for(self, policy: Policy) -> Mode:
        """Return the mode that a policy would be served in: its own, unless one was set."""
        mode = self.mode if self._mode_was_set else policy.mode
        _check_mode(policy, mode)
        return mode

    def reload(self, path: Path, seconds: float) -> None:
        """Look every few seconds whether the policy file or a model has changed; swap it in."""
        files = PolicyFiles(path, self.policy, self._given.models, self._given.env)
        self._reloads = files, seconds

    def _watch_file(self) -> None:
        """Start looking, in this process."""
        if self._reloads is None or self._reloader is not None:
            return
        stop = self._reloader = threading.Event()
        watched, (files, seconds) = weakref.ref(self), self._reloads

        def watch() -> None:
            while not stop.wait(seconds):
                service = watched()
                if service is None or service.closed:
                    return
                service.look(files)
                del service

        threading.Thread(target=watch, name="cascade-reload", daemon=True).start()

    def look(self, files: PolicyFiles) -> None:
        """Swap in the policy of a file if what it consists of has changed since last seen."""
        try:
            if files.changed():
                self.swap(files.read(), None)
        except Exception:  # noqa: BLE001  a bad file leaves the old policy serving
            self.reload_failures += 1

    # -- looking inside --------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Return what is counted: of the plan in force, of the last one, or of none yet."""
        plan = self.plan or self.leaving
        if plan is not None:
            return standing(plan)
        if self._last is None:
            names = tuple(spec.name for spec in self.policy.tiers)
            engine = Engine(self.clock, (), Ledger(len(names)))
            return Standing(self.policy, names, engine, self.policy.point.index)
        return self._last

    def _share(self) -> SharedMetrics | None:
        """Return where metrics are shared with other processes, if ``CASCADE_METRICS_DIR`` says."""
        if not self._folder:
            return None
        with self._sharing:
            if self._shared is None and not self.closed:
                self._shared = SharedMetrics(self._folder)
            return self._shared

    def _own_metrics(self) -> str:
        now = self.standing()
        with self.guard:
            counted = self._counted.totals()
        return prometheus(now, counted, self.mode, self.reload_failures)

    def metrics(self) -> str:
        """Return the counters as Prometheus text, of all processes that share a folder."""
        shared, own = self._share(), self._own_metrics()
        return own if shared is None else shared.all(own)

    # -- ending ----------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Whether it is the caller's to end this: nobody else is closing it."""
        with self.guard:
            first, self._claimed = not self._claimed, True
        return first

    def refuse(self) -> Plan | None:
        """Refuse what comes from now on; return the plan of what is under way."""
        with self.opening, self.guard:
            if self._reloader is not None:
                self._reloader.set()
            self.closed = True
            plan, self.plan = self.plan, None
            self.leaving = plan or self.leaving
            return self.leaving

    def busy(self, plan: Plan) -> bool:
        """Whether any request is on its way, as far as can be seen at one look."""
        return bool(
            plan.engine.batches
            or any(lane.live() for lane in plan.lanes)
            or any(front.on_their_way() for front in list(self.watchers))
        )

    def end(self, grace: float, *, idle: bool) -> None:
        """End what runs after the answers of all fronts, in ``grace`` seconds, and let go."""
        until = time.monotonic() + grace
        try:
            for front in list(self.watchers):
                front.end_aftermath(max(0.0, until - time.monotonic()))
        finally:
            self.let_go(self.refuse(), idle=idle)
            self.over.set()

    def let_go(self, plan: Plan | None, *, idle: bool) -> None:
        """Close lanes and tiers; what still waits is refused, unless all seemed ``idle``.

        Then there is at most a straggler between two tiers, which has its answer yet.
        """
        if plan is not None:
            plan.retire()
            for lane in () if idle else plan.lanes:
                lane.close()
        with self.guard:
            tiers, self.bound = self.bound, ()
            self._last, self.leaving = self.standing(), None
        for tier in tiers:
            tier.close()
        self._last.engine.forget()
        with self._sharing:
            shared = self._shared
        if shared is not None:
            shared.close(self._own_metrics())

    def in_child(self) -> None:
        """Begin anew after a fork: no thread, lock or session of the parent's is of use."""
        fronts = [front.in_child() for front in list(self.watchers)]
        _INHERITED.append((self.plan, self.bound, self._counted, fronts))
        self.opening, self.guard = threading.RLock(), threading.RLock()
        self._sharing, self.over = threading.RLock(), threading.Event()
        self._claimed = self.closed  # else a thread of the parent's was at it
        if self.closed:
            self.over.set()
        self._counted = Counters()
        self.plan = self.leaving = self._last = None
        self._shared = self._reloader = None  # a file and a thread of the parent's
        for tier in self.bound:
            tier.reset()


@contextlib.contextmanager
def _open_or_closed(bound: Iterable[BoundTier]) -> Iterator[None]:
    """Close the tiers again if anything is wrong."""
    try:
        yield
    except BaseException:
        for tier in bound:
            tier.close()
        raise


def _answers(policy: Policy, tiers: Iterable[BoundTier]) -> tuple[Any, ...]:
    """Return what answers hang on: the policy's digest, and what each tier is."""
    return (policy.answer_digest, *((tier.name, tier.identify()) for tier in tiers))


def _check_mode(policy: Policy, mode: Mode) -> None:
    escalation = policy.escalation
    bare = escalation.certificate is None and escalation.thresholds is None
    if mode is Mode.ENFORCE and bare and len(policy.tiers) > 1:
        msg = "mode: enforce needs escalation.certificate or escalation.thresholds in the policy"
        raise PolicyError(msg)


def _after_fork() -> None:
    for service in list(_LIVE):
        service.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
