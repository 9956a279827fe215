"""Opening: sessions made, golden inputs replayed, tiers warmed up; before the first request."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.bundle import load_golden, load_profile
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.load import ServiceTime
from cascade.plan import compile_plan
from cascade.policy.walk import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from cascade.binding import Functions
    from cascade.bundle import Golden, Profile
    from cascade.engine import Engine
    from cascade.plan import Plan
    from cascade.policy import Policy
    from cascade.protocols import BoundTier, Clock

__all__ = ["open_plan", "replay"]

_WARM_RUNS = 6
_NANO = 1_000_000_000

Service: TypeAlias = "tuple[ServiceTime, bool]"
"""A tier's times, and whether anything is known of them."""


def open_plan(
    policy: Policy,
    bound: tuple[BoundTier, ...],
    clock: Clock,
    prepare: Functions,
    postprocess: Functions,
    engine_of: Callable[[], Engine],
    env: Mapping[str, str] | None = None,
) -> Plan:
    """Open every tier and compile the plan; ``engine_of`` is called once they are open.

    Raises:
        ModelIntegrityError: a model cannot be loaded, or answers its golden input differently.
        PolicyError: what the policy says does not fit the models or the files beside it.
    """
    for tier in bound:
        tier.open()
    golden = load_golden(policy) if any(tier.inputs for tier in bound) else {}
    for tier in bound:
        sample = golden.get(tier.name)
        if sample is not None:
            replay(tier, sample)
    profiles = load_profile(policy)
    services = {tier.name: _warm(tier, profiles.get(tier.name)) for tier in bound}
    return compile_plan(policy, bound, clock, prepare, postprocess, services, engine_of(), env)


def replay(tier: BoundTier, golden: Golden) -> None:
    """Ask a model its golden question; a wrong answer means that it is not the model it was.

    Raises:
        ModelIntegrityError: it does not take the question, or answers it differently.
        PolicyError: its inputs have other names.
    """
    if not tier.inputs:  # a Python tier stands in for the model
        return
    names = [spec.name for spec in tier.inputs]
    for name in (*golden.inputs, *names):
        if name not in names or name not in golden.inputs:
            known = names if name in golden.inputs else golden.inputs
            whose = "the model has" if name in golden.inputs else "its golden input has"
            said = f"tier {tier.name!r}: {whose} no input {shown(name)}; {nearest(name, known)}"
            raise PolicyError(said)
    inputs = {name: np.asarray(array) for name, array in golden.inputs.items()}
    rows: Any = inputs if len(tier.inputs) > 1 else next(iter(inputs.values()))
    n = len(next(iter(inputs.values())))
    try:
        ask = getattr(tier, "probe", tier.run_rows)  # of one in another process
        raw = ask(rows, n, _nobody())
    except Exception as error:
        msg = f"tier {tier.name!r}: the model does not take its golden input"
        raise ModelIntegrityError(msg, tier=tier.name) from error
    for expected, got in zip(golden.outputs.values(), raw, strict=False):
        if not _same(np.asarray(expected), np.asarray(got), golden):
            msg = (
                f"tier {tier.name!r}: the model answers its golden input differently than at export"
            )
            raise ModelIntegrityError(msg, tier=tier.name)


def _same(expected: npt.NDArray[Any], got: npt.NDArray[Any], golden: Golden) -> bool:
    if expected.shape != got.shape:
        return False
    if expected.dtype.kind not in "biuf" or got.dtype.kind not in "biuf":
        same = zip(expected.ravel().tolist(), got.ravel().tolist(), strict=True)
        return all(str(one) == str(other) for one, other in same)
    return bool(np.allclose(expected, got, rtol=golden.rtol, atol=golden.atol))


def _warm(tier: BoundTier, profile: Profile | None) -> Service:
    """Run a tier a few times on zeros, so that no request pays for the first run.

    How long that takes is what is known of a tier without a measured profile.
    """
    known = profile is not None
    service = ServiceTime()
    if profile is not None:
        start = profile.overhead + profile.per_row + profile.residual
        service = ServiceTime(round(start * _NANO), round(profile.per_row * _NANO))
    if not tier.inputs:
        return service, known
    row = {
        spec.name: ""
        if spec.dtype == "text"
        else np.zeros([size or 1 for size in spec.shape], dtype=spec.dtype)
        for spec in tier.inputs
    }
    job = _nobody()
    job.row = row if len(row) > 1 else next(iter(row.values()))
    try:
        getattr(tier, "attempt", tier.run)(job)
    except Exception:  # noqa: BLE001  zeros need not be a sensible input, to whatever runs
        return service, known
    for turn in range(_WARM_RUNS):
        begun = time.perf_counter_ns()
        try:
            raw = tier.run(job)
            taken = time.perf_counter_ns() - begun
            tier.read(raw)
        except Exception:  # noqa: BLE001  as above, of what is read
            return service, known
        if profile is None and turn:  # the first one also sets up
            service.observe_rows(taken, 1)
            known = True
    return service, known


def _nobody() -> Any:
    """A context of no request."""
    return SimpleNamespace(
        tenant=None, metadata={}, remaining=lambda: 60.0, cancelled=lambda: False, row=None
    )
