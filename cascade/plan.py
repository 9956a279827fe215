"""The plan: a policy compiled to closures, once; one immutable value, read atomically."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.admission import Priority
from cascade.allowance import allowance_of
from cascade.complexity import estimator, misfit, rows_estimator
from cascade.cores import find_cores
from cascade.decide import Etas, Ladder
from cascade.direct import compile_direct, compile_hit
from cascade.errors import CascadeError, InputTypeError, InputValueError, PolicyError
from cascade.inputs import row_caster, rows_caster, rows_of
from cascade.keys import key_maker
from cascade.lanes import AutoLane, Watchdog, make_lane
from cascade.lanes.choose import workers_of
from cascade.policy.constraints import told_apart
from cascade.policy.walk import shown
from cascade.steering import LoadMonitor, steering_of
from cascade.tiers.columns import plain
from cascade.tiers.python import each
from cascade.types import Mode, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cascade.allowance import Allowance
    from cascade.binding import Functions
    from cascade.direct import Boarding, Direct, Hit
    from cascade.engine import Engine
    from cascade.load import ServiceTime
    from cascade.policy.model import Policy
    from cascade.protocols import BoundTier, Clock, InputSpec, Lane
    from cascade.steering import Steering
    from cascade.types import OperatingPoint

__all__ = ["Plan", "common_inputs", "compile_plan", "in_mode", "same_classes"]

_NANO = 1_000_000_000


@attrs.frozen(eq=False)
class Plan:
    """Everything that serving a request needs, and nothing that changes."""

    policy: Policy
    engine: Engine
    watchdog: Watchdog
    site: Site
    sites: tuple[Site, ...]  # of each point, where load moves it
    steering: Steering | None
    allowance: Allowance | None
    ranked: Mapping[Priority, Etas]  # as ``etas``, for requests of another class
    monitor: LoadMonitor
    clock: Clock
    ladder: Ladder
    point: OperatingPoint
    lanes: tuple[Lane, ...]
    etas: Etas
    specs: tuple[InputSpec, ...]
    floor: int
    budget: int | None
    max_budget: int | None
    row: Callable[[Any], Any]
    rows: Callable[[Any], tuple[Any, int]]
    key: Callable[[Any], Any]
    by_name: bool  # complexity reads features by name, off the input as it came
    complexity: Callable[[Any], float] | None
    rows_complexity: Callable[[Any, int], Any] | None
    prepare: Functions
    postprocess: Functions
    post: Callable[[int, Any], Any] | None
    hit: Hit = attrs.field(init=False)  # the answer with a cached answer
    direct: Direct | None = attrs.field(init=False)  # the way of most requests
    boarding: Boarding | None = attrs.field(init=False)  # and in company

    def __attrs_post_init__(self) -> None:
        """Compile the direct ways."""
        object.__setattr__(self, "hit", compile_hit(self))
        direct, boarding = compile_direct(self)
        object.__setattr__(self, "direct", direct)
        object.__setattr__(self, "boarding", boarding)

    def retire(self) -> None:
        """Let threads go once they have nothing to do; what is on its way still ends."""
        for lane in self.lanes:
            lane.retire()
        self.watchdog.retire()

    @property
    def point_index(self) -> int:
        """The operating point that load has moved to."""
        return self.point.index if self.steering is None else self.steering.controller.index


def compile_plan(
    policy: Policy,
    bound: tuple[BoundTier, ...],
    clock: Clock,
    prepare: Functions,
    postprocess: Functions,
    services: Mapping[str, tuple[ServiceTime, bool]],
    engine: Engine,
    env: Mapping[str, str] | None = None,
) -> Plan:
    """Compile a policy over opened tiers."""
    watchdog, cores = Watchdog(clock), find_cores(env).usable
    specs = common_inputs(bound, prepare, strict=policy.inputs.cast == "none")
    lanes = tuple(
        make_lane(
            spec, i, tier, clock, *services[tier.name], _own(prepare, tier, policy, specs),
            policy.calibrations.get(tier.name), watchdog, cores,
        )
        for i, (spec, tier) in enumerate(zip(policy.tiers, bound, strict=True))
    )  # fmt: skip
    names, point = tuple(tier.name for tier in bound), policy.point
    same_classes(bound, postprocess)
    row, rows = _casters(policy, specs, prepare)
    rule = policy.complexity
    steering = steering_of(policy, lanes, [workers_of(s, cores) for s in policy.tiers], clock())
    plan = Plan(
        policy=policy,
        engine=engine,
        watchdog=watchdog,
        site=Site(policy.digest, policy.mode, names, point.index),
        sites=(),  # in_mode fills them in
        steering=steering,
        allowance=allowance_of(policy, threading.Lock()),
        ranked={one: [lane.eta_for(one.rank) for lane in lanes] for one in Priority},
        # its own, not the controller's: who looks at the load must not end its interval
        monitor=LoadMonitor(names, lanes, engine.ledger.requests, clock()),
        clock=clock,
        ladder=Ladder(names, policy.escalation.abstain_below),
        point=point,
        lanes=lanes,
        etas=_etas(lanes),
        specs=specs,
        floor=0,
        budget=_ns(policy.deadline),
        max_budget=_ns(policy.max_deadline),
        row=row,
        rows=rows,
        key=key_maker(specs, "auto" if policy.cache is None else policy.cache.digest),
        by_name=_reads_raw(policy, specs, prepare),
        complexity=None if rule is None else estimator(rule.intercept, rule.weights),
        rows_complexity=None
        if rule is None
        else rows_estimator(rule.intercept, rule.weights, min(point.skip_above, default=0.0)),
        prepare=prepare,
        postprocess=postprocess,
        post=_post(postprocess, names),
    )
    return in_mode(plan, policy.mode)


def _reads_raw(policy: Policy, specs: tuple[InputSpec, ...], prepare: Functions) -> bool:
    """Hold the complexity rule against the inputs; return whether it reads them as they came."""
    rule = policy.complexity
    if rule is None:
        return False
    named = hasattr(rule.weights, "items")
    prepared = prepare.common is not None
    if not (named and prepared):  # else only a request can show what came
        why = misfit(rule.weights, specs)
        if why is not None:
            raise PolicyError(f"complexity.weights: {why}")
    text = len(specs) == 1 and specs[0].dtype == "text"
    return named and (prepared or not text)


def _etas(lanes: tuple[Lane, ...]) -> Etas:
    """Return each lane's ``eta``; one that changes its way of running changes its own."""
    etas: list[Callable[[], int]] = [lane.eta for lane in lanes]
    for lane in lanes:
        if isinstance(lane, AutoLane):
            lane.announce(etas)
    return etas


def in_mode(plan: Plan, mode: Mode) -> Plan:
    """Return the plan that serves in this mode, over the same lanes."""
    site = attrs.evolve(plan.site, mode=mode)
    points = range(0 if plan.steering is None else len(plan.policy.points))
    return attrs.evolve(
        plan,
        site=site,
        sites=tuple(attrs.evolve(site, point=index) for index in points),
        floor=len(plan.lanes) - 1 if mode in {Mode.TOP_ONLY, Mode.OBSERVE} else 0,
        ladder=attrs.evolve(plan.ladder, first_only=mode is Mode.FIRST_ONLY),
    )


def common_inputs(
    bound: Iterable[BoundTier], prepare: Functions, *, strict: bool = False
) -> tuple[InputSpec, ...]:
    """Return the inputs that a row is checked against: of those tiers that take it as it is.

    Where they take numbers of several dtypes, it is the one that loses the least: each of the
    others is made of it.

    Raises:
        PolicyError: two tiers take different rows, and neither has a function that makes its own;
            with ``strict`` rows of another dtype are different.
    """
    takers = [tier for tier in bound if tier.inputs and tier.name not in prepare.own]
    for tier in takers[1:]:
        if _shapes(tier, strict) != _shapes(takers[0], strict):
            raise PolicyError(_different(takers[0], tier))
    if not takers:
        return ()
    return tuple(_widest(spec, takers) for spec in takers[0].inputs)


def _widest(spec: InputSpec, takers: list[BoundTier]) -> InputSpec:
    """Return an input with the dtype that all tiers can be served from."""
    same = [_same_input(tier, spec) for tier in takers]
    dtypes = {own.dtype for own in same}
    if len(dtypes) == 1:
        return spec
    able = [d for d in dtypes if all(np.can_cast(d, other, "same_kind") for other in dtypes)]
    if not able:
        odd = next(i for i, own in enumerate(same) if own.dtype != spec.dtype)
        raise PolicyError(_different(takers[0], takers[odd]))
    return attrs.evolve(spec, dtype=max(sorted(able), key=lambda d: np.dtype(d).itemsize))


def _same_input(tier: BoundTier, spec: InputSpec) -> InputSpec:
    """Return the input of a tier that another's stands for: of a single one the name is free."""
    own = tier.inputs
    return own[0] if len(own) == 1 else next(one for one in own if one.name == spec.name)


def _different(first: BoundTier, other: BoundTier) -> str:
    shown = [f"{tier.name!r} ({'; '.join(map(str, tier.inputs))})" for tier in (first, other)]
    return f"tiers {' and '.join(shown)} take different rows; give prepare={{{other.name!r}: f}}"


def same_classes(bound: Iterable[BoundTier], postprocess: Functions) -> None:
    """See that tiers answer with the same labels, where they are known and stay what they are.

    Raises:
        PolicyError: two tiers do not; in what order they stand is each tier's own.
    """
    if postprocess.common is not None:
        return
    first: tuple[str, set[Any]] | None = None
    for tier in bound:
        labels = None if tier.name in postprocess.own else _labels(tier.classes)
        if labels is None:
            continue
        if first is None:
            first = tier.name, labels
        elif labels != first[1]:
            odd = sorted(shown(label) for _, label in labels ^ first[1])
            raise PolicyError(
                f"tiers {first[0]!r} and {tier.name!r}: classes: expected one set; not in both: "
                f"{', '.join(odd[:3])}{', …' if len(odd) > 3 else ''}"
            )


def _labels(classes: Any) -> set[Any] | None:
    listed = classes.tolist() if hasattr(classes, "tolist") else classes
    try:
        return None if listed is None else set(map(told_apart, listed))
    except TypeError:  # labels of one's own that have no hash
        return None


def _shapes(tier: BoundTier, strict: bool) -> Any:  # noqa: FBT001
    """What a row must look like; the name matters only where there are several."""
    named = len(tier.inputs) > 1
    return {
        (spec.name if named else "", spec.dtype if strict else spec.dtype == "text", spec.shape)
        for spec in tier.inputs
    }


def _casters(
    policy: Policy, specs: tuple[InputSpec, ...], prepare: Functions
) -> tuple[Callable[[Any], Any], Callable[[Any], tuple[Any, int]]]:
    """Return what makes rows, and batches of them, of what comes in."""
    _refuse_hidden(policy, prepare)
    strict, finite = policy.inputs.cast == "none", policy.inputs.validate == "finite"
    row = row_caster(specs, strict=strict, finite=finite)
    rows = rows_caster(specs, strict=strict, finite=finite)
    if prepare.common is None:
        return row, rows
    common = _guarded(prepare.common)
    return _after(common, row), _rows_after(common, rows)


def _refuse_hidden(policy: Policy, prepare: Functions) -> None:
    """Refuse scores that go by what a request shows where a common ``prepare`` hides that."""
    for tier, table in policy.calibrations.items():
        shown = getattr(table, "features", None)
        if shown and prepare.common is not None:
            raise PolicyError(
                f"tier {tier!r}: its learned score goes by what the request shows "
                f"({', '.join(shown)}), and a common prepare leaves only what it makes of that; "
                f"give each tier its own: prepare={{{tier!r}: f, …}}"
            )


def _own(
    prepare: Functions, tier: BoundTier, policy: Policy, specs: tuple[InputSpec, ...]
) -> Callable[[Any], Any] | None:
    """Return what makes a tier's own row: its function, or a cast to the dtypes that it takes."""
    function = prepare.own.get(tier.name)
    if function is None:
        if all(_same_input(tier, spec).dtype == spec.dtype for spec in specs if tier.inputs):
            return None
        own: Any = functools.partial(row_caster(tier.inputs))
        recast = rows_caster(tier.inputs)
        own.batch = lambda rows: recast(rows)[0]
        return own  # type: ignore[no-any-return]
    checks = {"strict": policy.inputs.cast == "none", "finite": policy.inputs.validate == "finite"}
    cast, cast_rows = row_caster(tier.inputs, **checks), rows_caster(tier.inputs, **checks)
    own = _after(function, cast)
    batch = getattr(function, "batch", None)
    if batch is not None:

        def cast_all(rows: Any) -> Any:
            made = batch(each(rows))
            return cast_rows(made)[0] if isinstance(made, Mapping) else [cast(x) for x in made]

        own.batch = cast_all
    return own  # type: ignore[no-any-return]


def _guarded(function: Any) -> Any:
    """Have what a preparation raises say that the input is not what it takes."""

    def guard(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def guarded(x: Any) -> Any:
            try:
                return function(x)
            except CascadeError:
                raise
            except Exception as error:
                kind = InputTypeError if isinstance(error, TypeError) else InputValueError
                raise kind(f"prepare: raised {type(error).__name__}") from error

        return guarded

    guarded: Any = guard(function)
    batch = getattr(function, "batch", None)
    if batch is not None:
        guarded.batch = guard(batch)
    return guarded


def _after(function: Callable[[Any], Any], cast: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: cast(function(x))


def _rows_after(
    function: Any, cast: Callable[[Any], tuple[Any, int]]
) -> Callable[[Any], tuple[Any, int]]:
    batch = getattr(function, "batch", None)

    def cast_all(xs: Any) -> tuple[Any, int]:
        given, wanted = rows_of(xs)
        columns = isinstance(given, dict)
        if batch is None:
            rows, n = cast([function(x) for x in (each(given) if columns else given)])
        else:  # it may know more of a table than that it has rows
            rows, n = cast(batch(each(given) if columns else xs))
        if n != wanted:
            raise InputValueError(f"prepare.batch: expected {wanted} rows back, got {n}")
        return rows, n

    return cast_all


def _post(functions: Functions, names: tuple[str, ...]) -> Callable[[int, Any], Any] | None:
    """Return what makes the answer of what a tier said; it is held to what an answer may be."""
    common, own = functions.common, functions.own
    if common is not None:
        return lambda tier, value: plain(common(value))  # noqa: ARG005
    if not own:
        return None
    return lambda tier, value: plain(own[names[tier]](value)) if names[tier] in own else value


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NANO)
