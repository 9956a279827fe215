"""From a policy to tiers that can be opened: files found and verified, callables bound by name."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from cascade.cores import find_cores
from cascade.errors import PolicyError
from cascade.policy.settings import ExternalSpec, OnnxSpec
from cascade.policy.walk import close
from cascade.registry import TIERS, plugin
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cascade.policy.model import Policy
    from cascade.policy.settings import TierSpec
    from cascade.protocols import BoundTier

__all__ = [
    "Functions", "PerTier", "StandIn", "bind", "bind_python", "check_version", "expect_policy",
    "functions", "scored",
]  # fmt: skip

_log = logging.getLogger("cascade")
_READERS = "Router.from_yaml(path) or AsyncRouter.from_yaml(path)"  # of a file

PerTier: TypeAlias = "Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None"
"""A function for every request, or one per tier by name."""


class StandIn:
    """What stands in for a tier, in a test: it says itself how it is bound."""

    def bound(self, spec: TierSpec, classes: Any, *, asynchronous: bool) -> BoundTier:
        """Return the tier as the lanes run it."""
        raise NotImplementedError


class PolicyTypeError(PolicyError, TypeError):
    """An argument of a router is not of its type."""


def expect_policy(policy: Any, readers: str = _READERS) -> None:
    """See that one is given a policy, and not what is read by ``readers``.

    Raises:
        PolicyError: it is something else; a TypeError too.
    """
    from cascade.policy import Policy

    if isinstance(policy, Policy):
        return
    said = f"expected a Policy, got {_a(policy)}"
    if isinstance(policy, (str, os.PathLike)):
        said += f"; a file is read by {readers}"
    elif isinstance(policy, Mapping):
        said += "; make one of it with Policy.from_dict(tree), or read a file: Router.from_yaml"
    raise PolicyTypeError(said)


def _a(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else a_kind(value)


class Functions:
    """A common function, and those of single tiers."""

    def __init__(self, common: Callable[[Any], Any] | None, own: Mapping[str, Any]) -> None:
        self.common = common
        self.own = dict(own)


def functions(what: str, given: PerTier, policy: Policy) -> Functions:
    """Sort out ``prepare=`` or ``postprocess=``, and hold it against what the policy says of it.

    Raises:
        PolicyError: a tier that the policy does not have, something that cannot be called, or a
            function where the policy needs a version of it, or the other way round.
    """
    version = getattr(policy, what)
    if given is None and version is not None:
        raise PolicyError(f"{what}: the policy names version {version.version!r}; give {what}=f")
    if given is not None and version is None and policy.certificate is not None:
        raise PolicyError(
            f"{what}=: beside a certificate the policy must name it: {what}: {{version: …}}"
        )
    names = tuple(spec.name for spec in policy.tiers)
    if given is None or callable(given):
        return Functions(given, {})
    if not isinstance(given, Mapping):
        raise PolicyTypeError(
            f"{what}=: expected a callable, or callables by tier, got {_a(given)}"
        )
    for name, function in given.items():
        if name not in names:
            raise PolicyError(f"{what}=: no tier {name!r} in the policy{_nearest(name, names)}")
        if not callable(function):
            raise PolicyError(f"{what}=: {name!r}: expected a callable")
    return Functions(None, given)


def _nearest(name: str, names: tuple[str, ...]) -> str:
    meant = close(name, names)
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"; {hint}it has {', '.join(names)}"


def bind(
    policy: Policy,
    tiers: Mapping[str, Any] | None,
    models: str | Path | None,
    env: Mapping[str, str] | None,
    *,
    asynchronous: bool = False,
) -> tuple[BoundTier, ...]:
    """Bind every tier of the policy; model files are found and their digests checked here.

    Raises:
        PolicyError: an external tier without a callable, a callable without a tier, or an
            asynchronous one where they are not ``asynchronous``.
        ModelIntegrityError: a model file is missing, or is not the one that the policy names.
    """
    if not isinstance(tiers, (Mapping, type(None))):
        raise PolicyTypeError(f"tiers=: expected tiers by name, as {{name: f}}, got {_a(tiers)}")
    given = dict(tiers or {})
    names = tuple(spec.name for spec in policy.tiers)
    for name in given:
        if name not in names:
            raise PolicyError(f"tiers=: no tier {name!r} in the policy{_nearest(name, names)}")
    bound = [_bind_one(policy, s, given, models, env, asynchronous) for s in policy.tiers]
    return tuple(
        tier if isinstance(given.get(spec.name), StandIn) else _in_its_process(spec, tier, env)
        for spec, tier in zip(policy.tiers, bound, strict=True)
    )


def _in_its_process(spec: TierSpec, tier: BoundTier, env: Mapping[str, str] | None) -> BoundTier:
    if spec.execution == "auto":
        return tier
    if hasattr(tier, "predict_async"):
        what = f"tier {spec.name!r} is asynchronous and runs in the event loop"
        raise PolicyError(f"{what}; execution: {spec.execution} is not for it")
    if spec.execution != "process":
        return tier
    from cascade.lanes.choose import workers_of
    from cascade.lanes.process import ProcessTier

    return ProcessTier(tier, workers_of(spec, find_cores(env).usable)[1])


def _bind_one(
    policy: Policy,
    spec: Any,
    given: dict[str, Any],
    models: str | Path | None,
    env: Mapping[str, str] | None,
    asynchronous: bool,  # noqa: FBT001
) -> BoundTier:
    classes, target = spec.classes or policy.classes, given.get(spec.name)
    if isinstance(target, StandIn):
        stand_in: BoundTier = target.bound(spec, classes, asynchronous=asynchronous)
        return stand_in
    if spec.name in given:  # also in place of a model
        bound = bind_python(spec, target, classes, asynchronous=asynchronous)
        if scored(policy, spec):
            _warn_of_values_alone(spec, target)
        return bound
    return _bind_named(policy, spec, classes, models, env)


def _bind_named(
    policy: Policy, spec: Any, classes: Any, models: str | Path | None,
    env: Mapping[str, str] | None,
) -> BoundTier:  # fmt: skip
    """Bind the model that the policy names."""
    if isinstance(spec, OnnxSpec):
        from cascade.bundle import resolve_model, verify_model
        from cascade.tiers.onnx import OnnxTier

        path = resolve_model(policy, spec, models=models, env=env)
        verify_model(path, spec)
        load = functools.partial(verify_model, path, spec)
        return OnnxTier(spec, load, classes, path, scored(policy, spec), find_cores(env).usable)
    if not isinstance(spec, ExternalSpec):
        brought = plugin(TIERS, spec.kind)
        assert brought is not None  # noqa: S101  its settings came from there
        bound: BoundTier = brought.bind(policy, spec, models, env)
        return bound
    msg = f"tier {spec.name!r} is external: bind it with Router(policy, tiers={{{spec.name!r}: f}})"
    raise PolicyError(msg)


def scored(policy: Policy, spec: TierSpec) -> bool:
    """Whether a tier has to say how sure it is: below the top, unless a learned score says it."""
    calibration = policy.calibrations.get(spec.name)
    return spec.name != policy.tiers[-1].name and not (calibration and calibration.blind)


def bind_python(spec: Any, target: Any, classes: Any, *, asynchronous: bool) -> BoundTier:
    """Bind a callable, or an object with ``predict(batch, context)``.

    Raises:
        PolicyError: it is neither, of another version, or asynchronous where that cannot be.
    """
    from cascade.tiers.python import FunctionTier, PythonTier, is_async

    awaited = is_async(target)
    if awaited and not asynchronous:
        msg = f"tier {spec.name!r} is asynchronous; Router runs synchronous tiers only"
        raise PolicyError(f"{msg}: use AsyncRouter")
    if not callable(getattr(target, "predict", None)):
        if not callable(target):
            msg = (
                f"tier {spec.name!r}: expected a callable or an object with "
                f"predict(batch, context), got {a_kind(target)}"
            )
            raise PolicyError(msg)
        target = FunctionTier(target)
    elif _is_estimator(target):
        msg = (
            f"tier {spec.name!r}: predict() of {a_kind(target)} takes no context; "
            f"wrap it: cascade.tier(model.predict_proba, returns='probabilities', classes=…)"
        )
        raise PolicyError(msg)
    check_version(spec, target)
    if awaited:
        from cascade.tiers.awaited import AsyncTier

        return AsyncTier(spec, target, classes)
    return PythonTier(spec, target, classes)


def _warn_of_values_alone(spec: Any, target: Any) -> None:
    """Tell of a function of values alone where a confidence is needed: each of its answers fails.

    It may stand for a tier that is down, as in a test: so it is no error.
    """
    from cascade.tiers.python import FunctionTier

    bare = not callable(getattr(target, "predict", None))
    if bare or (isinstance(target, FunctionTier) and target.returns == "values"):
        _log.warning(
            "tier %r returns values alone, which count as faults: below the top it must say how "
            "sure it is; use cascade.tier(f, returns='pairs')",
            spec.name,
        )


def check_version(spec: Any, target: Any) -> None:
    """Refuse a tier of another version than the policy names."""
    version = getattr(target, "version", None)
    named = spec.version if isinstance(spec, ExternalSpec) else None
    if version is not None and named is not None and version != named:
        msg = f"tier {spec.name!r}: the policy names version {named!r}, the tier is {version!r}"
        raise PolicyError(msg)


def _is_estimator(target: Any) -> bool:
    return hasattr(target, "fit") and hasattr(target, "get_params")
