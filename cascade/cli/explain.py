"""``cascade explain``: every effective value of a policy, and where it came from."""

from __future__ import annotations

import enum
import json
import os
from typing import TYPE_CHECKING, Any

import attrs

from cascade.bundle import load_profile, resolve_model
from cascade.cli.reply import Reply, table
from cascade.cores import find_cores
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.lanes.choose import foresee, workers_of
from cascade.policy.places import Places
from cascade.policy.settings import OnnxSpec
from cascade.policy.walk import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cascade.bundle import Profile
    from cascade.policy import Policy

__all__ = ["explain"]

Steps = tuple[str | int, ...]

_INTERPRETER = 60_000_000  # bytes: Python with NumPy and onnxruntime, measured
_SESSION = 2  # a session's bytes per byte of its model: 1 to 3, measured

_ENVIRONMENT: dict[Steps, str] = {
    ("mode",): "CASCADE_MODE",
    ("deadline",): "CASCADE_DEADLINE",
    ("cache", "bytes"): "CASCADE_CACHE_BYTES",
}


def explain(path: Path, env: Mapping[str, str] | None = None, workers: int | None = None) -> Reply:
    """Load the policy at ``path``; list values with ``FILE:LINE:COL``, a variable, or 'default'.

    With ``workers`` it also estimates the memory of so many processes.

    Raises:
        PolicyError: the policy is not valid.
        ValueError: ``workers`` is not above 0.
    """
    from cascade.policy import Policy

    if workers is not None and workers < 1:
        raise ValueError(f"--workers: expected a whole number above 0, got {workers}")

    env = os.environ if env is None else env
    policy = Policy.from_yaml(path, env=env)
    places = Places(path.read_text(encoding="utf-8-sig"), str(path))
    crews = dict(_crews(policy, find_cores(env).usable))
    rows = [
        (steps, *(crews.get(steps) or (value, _source(steps, places, env))))
        for steps, value in _leaves(policy)
    ]
    try:
        profiles = load_profile(policy)
    except PolicyError as error:
        raise refusal(places.beside("profile", error.issues)) from None
    rows += [*_derived(policy, env), *_lanes(policy, profiles, env)]
    if workers is not None:
        rows += [*_memory(policy, env, workers)]
    data = {
        ".".join(map(str, steps)): {"value": value, "source": source}
        for steps, value, source in rows
    }
    text = table(
        [(key, _short(row["value"]), row["source"]) for key, row in data.items()], indent=""
    )
    return Reply(text, data)


def _leaves(node: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Walk the settings classes down to plain values, in the order of their declaration."""
    if attrs.has(type(node)):
        if isinstance(kind := getattr(type(node), "kind", None), str):
            yield (*steps, "kind"), kind
        for field in attrs.fields(type(node)):
            if field.eq and field.init and not field.name.startswith("_"):
                yield from _leaves(getattr(node, field.name), (*steps, field.name))
    elif isinstance(node, tuple) and any(attrs.has(type(item)) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, (*steps, index))
    else:
        yield steps, _plain(node)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if hasattr(value, "items") else value


def _source(steps: Steps, places: Places, env: Mapping[str, str]) -> str:
    if (name := _ENVIRONMENT.get(steps)) and name in env:
        return name
    return places.where(steps) or "default"


def _crews(policy: Policy, cores: int) -> Iterator[tuple[Steps, tuple[int, str]]]:
    """How many runs of a tier go on at a time where the policy leaves that open."""
    for index, spec in enumerate(policy.tiers):
        steps = ("tiers", index, "workers")
        if spec.workers is None:
            shared = spec.kind == "onnx" or spec.execution == "process"
            source = "default" if shared else "default where it is not asynchronous"
            yield steps, (workers_of(spec, cores)[1], source)
        elif spec.workers.min is None:
            yield (*steps, "min"), (spec.workers.low, "default: max")


def _derived(policy: Policy, env: Mapping[str, str]) -> Iterator[tuple[Steps, Any, str]]:
    """What follows from the policy and its surroundings, and stands in no key."""
    points = [point for point in policy.points if point.certified] or [*policy.points][:1]
    if points:
        point = points[-1]
        certified = f"{policy.escalation.certificate}, cheapest certified point"
        source = certified if point.certified else "thresholds: nothing is promised"
        yield ("point",), list(point.thresholds), source
    root = env.get("CASCADE_MODELS")
    yield ("models",), root or str(policy.root), "CASCADE_MODELS" if root else "default"
    shared = env.get("CASCADE_METRICS_DIR")
    yield ("metrics",), shared, "CASCADE_METRICS_DIR" if shared else "default: of this process"
    cores = find_cores(env)
    yield ("cores",), cores.usable, "CASCADE_CORES" if cores.cap else "default"
    yield ("digest",), policy.digest, "computed"


def _lanes(
    policy: Policy, profiles: Mapping[str, Profile], env: Mapping[str, str]
) -> Iterator[tuple[Steps, Any, str]]:
    """Where each tier will run, and why."""
    cores = find_cores(env).usable
    for index, spec in enumerate(policy.tiers):
        lane, why = foresee(spec, profiles.get(spec.name), cores)
        yield ("tiers", index, "lane"), lane, why


def _memory(
    policy: Policy, env: Mapping[str, str], workers: int
) -> Iterator[tuple[Steps, Any, str]]:
    """Estimate resident bytes: nothing but code is shared between processes."""
    models = 0
    for spec in policy.tiers:
        if isinstance(spec, OnnxSpec):
            path = resolve_model(policy, spec, env=env)
            if not path.is_file():
                said = f"tier {spec.name!r}: model {spec.model} cannot be read: it is no file"
                raise ModelIntegrityError(said, tier=spec.name)
            models += path.stat().st_size
    cache = 0 if policy.cache is None else policy.cache.bytes
    one = _INTERPRETER + _SESSION * models + cache
    what = "interpreter 60 MB, models 2 × their files, the cache when it is full"
    yield ("memory", "process"), one, what
    yield ("memory", "workers"), workers * one, f"{workers} processes"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
