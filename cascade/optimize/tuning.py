"""Tune how a model is run: provider, threads, spinning, graph optimisation, workers, batch cap.

Nothing here changes answers: settings whose answers differ from those in force are left out.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.errors import PolicyError
from cascade.optimize.halving import Choice, changed, choose
from cascade.optimize.objectives import OBJECTIVES, Meter
from cascade.optimize.profiling import CAP, batch_sizes
from cascade.optimize.running import load_models, open_tier, tier_named
from cascade.policy.walk import nearest
from cascade.tiers.sessions import available_providers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.optimize.data import Data
    from cascade.optimize.running import Running
    from cascade.policy import OnnxSpec, Policy

__all__ = ["Setting", "TierTuning", "setting_of", "space", "tune_policy"]

LEVELS = ("all", "extended", "basic", "off")
"""Of graph optimisation, as a policy spells them."""

_CPU = "CPUExecutionProvider"
_REMOTE = {"AzureExecutionProvider"}  # forwards to a service; it runs nothing here
_COMPARED, _CLOSE = 32, 1e-3


@attrs.frozen
class Setting:
    """How a model is run; ``provider`` None is the CPU's.

    >>> Setting(threads=2, workers=1) == Setting(threads=2)
    True
    """

    provider: str | None = None
    threads: int = 1
    spinning: bool = False
    optimization: str = "all"
    workers: int = 1
    cap: int = 1

    def to_spec(self) -> dict[str, Any]:
        """Return the settings as a policy's tier has them."""
        found = attrs.asdict(self)
        return {**found, "batch": {"max_size": found.pop("cap")}}


@attrs.frozen
class TierTuning:
    """The outcome for one tier; ``left_out`` says why settings were not tried."""

    name: str
    objective: str
    choice: Choice[Setting]
    left_out: tuple[str, ...] = ()

    @property
    def changes(self) -> dict[str, Any]:
        """What to write into the policy: the settings that changed."""
        differing = changed(self.choice.before, self.choice.after)
        written = self.choice.after.to_spec()
        return {key: written[key] for key in (_KEYS.get(name, name) for name in differing)}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        found = attrs.asdict(self)
        return {**found, **found.pop("choice"), "changes": self.changes}


_KEYS = {"cap": "batch"}


def setting_of(spec: OnnxSpec) -> Setting:
    """Return the settings that a tier has now."""
    return Setting(
        None if spec.provider == _CPU else spec.provider,
        spec.threads,
        spec.spinning,
        spec.optimization,
        1 if spec.workers is None else spec.workers.max,
        1 if spec.batch is None else spec.batch.max_size,
    )


def space(
    now: Setting, objective: str, cores: int, providers: Sequence[str], *, batches: bool = True
) -> list[Setting]:
    """List the settings to try: threads × workers ≤ cores, and fewer where the threads spin.

    A thread that spins keeps its core from everything else, which nothing that is measured by
    itself can show; so one core is left to the rest of the process. Workers and batches do nothing
    for a request that comes alone, so that p50 and CPU leave them.

    >>> [s.threads for s in space(Setting(), "p50", 2, ["CPUExecutionProvider"])][::4]
    [1, 2]
    >>> [s.threads for s in space(Setting(), "p50", 4, ["CPUExecutionProvider"]) if s.spinning]
    [2, 2, 2, 2]
    """
    names = [None if name == _CPU else name for name in providers]
    counts = batch_sizes(cores)
    crowd = objective in {"p99", "throughput"}
    caps = batch_sizes(max(CAP, now.cap)) if crowd and batches else (now.cap,)
    found = [
        Setting(name, threads, spinning, level, workers, cap)
        for name, threads, spinning, level, workers, cap in product(
            names, counts, (False, True), LEVELS, counts if crowd else (now.workers,), caps
        )
        if (not spinning or 1 < threads <= threads * workers < cores)
        and (threads * workers <= cores or not crowd)
    ]
    return [one for one in found if one.threads * one.workers <= max(cores, now.workers)]


def tune_policy(
    policy: Policy, data: Data, objective: str, *, cores: int, rate: float | None = None,
    providers: Sequence[str] | None = None, tiers: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[TierTuning]:  # fmt: skip
    """Tune the ONNX tiers of a policy, one by one, on the rows of ``data``.

    ``providers`` names the execution providers to try, by default all that run here. ``rate`` is in
    requests per second; p99 needs one.

    Raises:
        PolicyError: the objective, a provider or a tier is not known, or the rate is missing.
        InputValueError: a model does not take these rows, or a tier named is none.
    """
    names = _checked(policy, objective, rate, providers, tiers)
    found = []
    for name, (spec, model) in load_models(policy).items():
        if tiers is not None and name not in tiers:
            continue
        say(f"tuning {name} for {objective}")
        found.append(_tune(policy, spec, model, data, (objective, rate, cores, names)))
    return found


def _checked(
    policy: Policy, objective: str, rate: float | None, providers: Sequence[str] | None,
    tiers: Sequence[str] | None,
) -> list[str]:  # fmt: skip
    if objective not in OBJECTIVES:
        raise PolicyError(f"--objective: unknown {objective!r}; {nearest(objective, OBJECTIVES)}")
    if rate is not None and not 0.0 < rate < float("inf"):
        raise PolicyError(f"--rate: expected requests per second, above 0, got {rate!r}")
    if objective == "p99" and rate is None:
        raise PolicyError("--objective p99 needs --rate, requests per second")
    known = available_providers()
    for name in providers or ():
        if name not in known:
            raise PolicyError(f"--providers: {name!r} is not available; {nearest(name, known)}")
    held = [spec.name for spec in policy.tiers]
    for name in tiers or ():
        if name not in held:
            raise PolicyError(f"--tiers: no tier {name!r}; {nearest(name, held)}")
        tier_named(policy, name)
    return [*providers] if providers else [name for name in known if name not in _REMOTE]


def _tune(
    policy: Policy, spec: OnnxSpec, model: bytes, data: Data,
    aim: tuple[str, float | None, int, list[str]],
) -> TierTuning:  # fmt: skip
    objective, rate, cores, providers = aim
    opened: dict[tuple[Any, ...], Running] = {}

    def open_one(setting: Setting) -> Running:
        given = attrs.asdict(setting)
        kept = {key: given[key] for key in ("provider", "threads", "spinning", "optimization")}
        key = tuple(kept.values())
        if key not in opened:
            opened[key] = open_tier(spec, model, policy, **kept)
        return opened[key]

    now = setting_of(spec)
    running = open_one(now)
    tried = space(now, objective, cores, providers, batches=running.tier.batches)
    sound, left_out = _sound(tried, open_one, data.take(np.arange(min(data.n, _COMPARED))), now)
    choice = choose(now, sound, Meter(open_one, data, objective, rate))
    return TierTuning(spec.name, objective, choice, left_out)


def _sound(
    tried: list[Setting], open_one: Callable[[Setting], Running], some: Data, now: Setting
) -> tuple[list[Setting], tuple[str, ...]]:
    """Leave out what does not start, and what answers otherwise than the setting in force."""
    expected = open_one(now).outputs(some)
    verdicts: dict[int, str | None] = {}
    kept, reasons = [], []
    for setting in tried:
        try:
            running = open_one(setting)
        except PolicyError as error:
            reasons.append(str(error))
            continue
        if id(running) not in verdicts:
            verdicts[id(running)] = _differs(running, some, expected)
        reason = verdicts[id(running)]
        if reason is None:
            kept.append(setting)
        else:
            reasons.append(f"{setting}: {reason}")
    return kept, tuple(dict.fromkeys(reasons))


def _differs(running: Running, some: Data, expected: Any) -> str | None:
    got = running.outputs(some)
    if got.dtype.kind != "f":
        return None if np.array_equal(got, expected) else "it answers otherwise"
    alike = np.isnan(got) & np.isnan(expected)  # no answer, under either setting
    apart = float(np.abs(np.where(alike, 0.0, got - expected)).max())
    return None if apart <= _CLOSE else f"its outputs differ by {apart:.2g}"
