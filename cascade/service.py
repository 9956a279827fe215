"""What the live drivers have in common: one policy in force, opened, replaced and closed."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import attrs

from cascade.binding import bind, expect_policy, functions
from cascade.cache import FairCache, ResultCache
from cascade.engine import Engine
from cascade.errors import PolicyError
from cascade.ledger import Ledger
from cascade.opening import open_plan
from cascade.plan import in_mode
from cascade.policy import Policy
from cascade.telemetry import prometheus
from cascade.telemetry.shared import SharedMetrics
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping
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
        self.closed = False
        self.opening = threading.RLock()  # guards everything here but the reading of ``plan``
        self.clock = clock
        self.ledger = Ledger()
        self.reload_failures = 0
        self.watchers: weakref.WeakSet[Watched] = weakref.WeakSet()  # of mode and policy
        self._mode_was_set = False
        self._given = given
        self._observers = observers
        self._asynchronous = asynchronous
        self._reloads: tuple[Path, float] | None = None
        self._seen: Any = None  # what the policy and its files were when last looked at
        self._reloader: threading.Event | None = None  # stops it
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
        return bind(policy, tiers, models, env, asynchronous=self._asynchronous), named

    # -- opening ---------------------------------------------------------------------------------

    def open(self) -> Plan:
        """Open the tiers and warm up, once.

        Raises:
            PolicyError: the router is closed.
            ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        """
        with self.opening:
            if self.closed:
                msg = "the router is closed"
                raise PolicyError(msg)
            if self.plan is None:
                self.plan = self._opened(self.policy, self.bound, self._functions, None)
                self._share()
                self._watch_file()
            return self.plan

    def _share(self) -> None:
        """Write metrics for the other processes, where ``CASCADE_METRICS_DIR`` says so."""
        env = os.environ if self._given.env is None else self._given.env
        folder = env.get("CASCADE_METRICS_DIR")
        if folder and self._shared is None:
            self._shared = SharedMetrics(folder)
            self._shared.keep_writing(self, Service._own_metrics)

    def _own_metrics(self) -> str:
        plan = self.plan
        return "" if plan is None else prometheus(plan, self.mode, self.reload_failures)

    def metrics(self) -> str:
        """Return the counters as Prometheus text, of all processes that share a folder."""
        self.open()
        own = self._own_metrics()
        return own if self._shared is None else self._shared.all(own)

    def _opened(
        self, policy: Policy, bound: tuple[BoundTier, ...], named: tuple[Functions, Functions],
        before: Plan | None,
    ) -> Plan:  # fmt: skip
        engine = self._engine(policy, before)
        plan = open_plan(policy, bound, self.clock, *named, engine, self._given.env)
        return in_mode(plan, self.mode)

    def _engine(self, policy: Policy, before: Plan | None) -> Engine:
        """Return the cache and flights of a policy: those there are, if it answers the same."""
        if before is not None:
            if before.policy.answer_digest == policy.answer_digest and (
                before.policy.cache == policy.cache
            ):
                return before.engine
            if before.site.tiers != tuple(spec.name for spec in policy.tiers):
                self.ledger = Ledger()  # tiers are counted by their place
        engine = Engine(self.clock, self._observers, self.ledger)
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
        with self.opening:
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
            if self.closed:
                raise PolicyError("the router is closed")
            mode = self.mode if self._mode_was_set else policy.mode
            _check_mode(policy, mode)
            given = self._given
            if tiers is not None:
                given = attrs.evolve(given, tiers=tiers)
            bound, named = self._bind(policy, given if tiers is not None else given.of(policy))
            before, bound_before = self.plan, self.bound
            mode_before, ledger = self.mode, self.ledger
            try:
                self.mode = mode
                plan = None if before is None else self._opened(policy, bound, named, before)
            except BaseException:
                self.mode, self.ledger = mode_before, ledger
                raise
            self._given = given
            self.policy, self.bound, self._functions, self.plan = policy, bound, named, plan
        if before is not None:
            for lane in before.lanes:
                lane.retire()
            for tier in bound_before:
                tier.retire()
        self._changed()

    def reload(self, path: Path, seconds: float) -> None:
        """Look every few seconds whether the policy file or a model has changed; swap it in."""
        self._reloads, self._seen = (path, seconds), _signature(path, self)

    def _watch_file(self) -> None:
        """Start looking, in this process."""
        if self._reloads is None or self._reloader is not None:
            return
        stop = self._reloader = threading.Event()
        watched, (path, seconds) = weakref.ref(self), self._reloads

        def watch() -> None:
            while not stop.wait(seconds):
                service = watched()
                if service is None or service.closed:
                    return
                service.look(path)
                del service

        threading.Thread(target=watch, name="cascade-reload", daemon=True).start()

    def look(self, path: Path) -> None:
        """Swap in the policy at ``path`` if what it consists of has changed since last seen."""
        now = _signature(path, self)
        if now == self._seen:
            return
        self._seen = now
        try:
            self.swap(path, None)
        except Exception:  # noqa: BLE001  a bad file leaves the old policy serving
            self.reload_failures += 1

    # -- ending ----------------------------------------------------------------------------------

    def close(self, grace: float) -> None:
        """Refuse what comes; let what is under way end within ``grace`` seconds; let go."""
        with self.opening:
            if self._reloader is not None:
                self._reloader.set()
            if self._shared is not None:
                self._shared.close(self._own_metrics() or None)
            self.closed = True
            plan, self.plan = self.plan, None
        until = self.clock() + round(grace * 1e9)
        if plan is not None:
            for lane in plan.lanes:  # upwards: what one lets go may go on to the next
                lane.close(max(0.0, (until - self.clock()) / 1e9))
        for tier in self.bound:
            tier.close()

    def in_child(self) -> None:
        """Begin anew after a fork: no thread, lock or session of the parent's is of use."""
        _INHERITED.append((self.plan, self.bound, self.ledger))
        self.opening = threading.RLock()
        self.ledger = Ledger()
        self.plan = None
        self._shared = self._reloader = None  # a file and a thread of the parent's
        for tier in self.bound:
            tier.reset()


def _check_mode(policy: Policy, mode: Mode) -> None:
    escalation = policy.escalation
    bare = escalation.certificate is None and escalation.thresholds is None
    if mode is Mode.ENFORCE and bare and len(policy.tiers) > 1:
        msg = "mode: enforce needs escalation.certificate or escalation.thresholds in the policy"
        raise PolicyError(msg)


def _signature(path: Path, service: Service) -> Any:
    """What tells one state of a policy and its files from another; links are followed."""
    root = path.parent
    names = [path.name, service.policy.escalation.certificate, service.policy.profile]
    names += [getattr(spec, "model", None) for spec in service.policy.tiers]
    found = []
    for name in filter(None, names):
        try:
            stat = (root / name).stat()
            found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            found.append((name, 0, 0, 0))
    return found


def _after_fork() -> None:
    for service in list(_LIVE):
        service.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
