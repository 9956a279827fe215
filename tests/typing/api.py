"""The public names as type checkers see them: mypy and pyright check this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import cascade
from cascade import (
    AsyncRouter,
    Budget,
    CascadeError,
    DeadlineExceeded,
    Disposition,
    Mode,
    ModelIntegrityError,
    Outcome,
    Outcomes,
    Overloaded,
    Policy,
    PolicyError,
    Prediction,
    Reason,
    Replay,
    Router,
    TierError,
    TierSpec,
)
from cascade.policy.constraints import settings
from cascade.protocols import BoundTier, Context, Tier, TierKind
from cascade.testing import (
    Scripted,
    VirtualClock,
    assert_disposition,
    assert_tier,
    async_router_for,
    recorded,
    router_for,
    scripted,
)


class Arrays:
    """A tier whose model answers with arrays."""

    def predict(self, batch: npt.NDArray[np.float32], context: Context) -> Prediction:
        """Answer a batch."""
        sure = batch.max(axis=1)
        return Prediction(batch.argmax(axis=1), confidences=sure, margins=None, costs=sure)


@settings
class EchoSpec(TierSpec):
    """The settings of a kind of tier that a package brings along."""

    kind = "echo"


class EchoKind:
    """That kind."""

    settings = EchoSpec

    def bind(
        self, policy: Policy, spec: Any, models: str | Path | None, env: Mapping[str, str] | None
    ) -> BoundTier:
        """Make no tier."""
        raise NotImplementedError


def protocols() -> tuple[Tier, TierKind]:
    """What users write is what the protocols ask for."""
    return Arrays(), EchoKind()


class Sentiment:
    """A tier as a user writes one."""

    version = "1"

    def predict(self, batch: list[str], context: Context) -> Prediction:
        """Answer a batch."""
        assert_type(context.remaining(), float)
        assert_type(context.cancelled(), bool)
        assert_type(context.tenant, str | None)
        return Prediction(["good" for _ in batch], confidences=[0.9 for _ in batch])


def policies(path: Path) -> None:
    """Policies are read from files and plain types, and go back to them."""
    policy = Policy.from_yaml(path, env={"CASCADE_MODE": "observe"})
    assert_type(policy, Policy)
    assert_type(Policy.from_dict({"version": 1}), Policy)
    assert_type(policy.mode, Mode)
    assert_type(policy.deadline, float | None)
    assert_type(policy.to_dict(), dict[str, Any])
    assert_type(policy.to_yaml(), str)
    assert_type(policy.digest, str)


def serving(router: Router[str, str]) -> str | None:
    """A router of texts gives labels."""
    outcome = router.route("x", deadline="20ms", tenant="acme", at_least="large", use_cache=False)
    assert_type(outcome, Outcome[str])
    assert_type(outcome.value, str | None)
    assert_type(outcome.tier, str | None)
    assert_type(outcome.confidence, float | None)
    assert_type(outcome.disposition, Disposition)
    assert_type(outcome.reason, Reason)
    assert_type(outcome.covered, bool)
    assert_type(outcome.latency.total, float)
    assert_type(outcome.cost, float | None)
    assert_type(outcome.explain(), str)
    assert_type(outcome.to_dict(), dict[str, Any])
    assert_type([step.tier for step in outcome.steps], list[str])
    router.route(b"x")  # type: ignore[arg-type]  # a router of texts takes texts
    router.route("x", deadlin=1)  # type: ignore[call-arg]
    router.route("x", Budget.after(0.1, now=0))  # type: ignore[call-arg]  # by name alone
    return outcome.unwrap(degraded=True)


def batches(router: Router[Any, int], rows: npt.NDArray[np.float32]) -> None:
    """A batch is columns, and a sequence of outcomes."""
    many = router.route_many(rows, deadline=0.5)
    assert_type(many, Outcomes[int])
    assert_type(len(many), int)
    assert_type(many[0], Outcome[int])
    for outcome in many:
        assert_type(outcome, Outcome[int])


def life(policy: Policy) -> None:
    """What a router is built with, and what it tells of itself."""
    tiers = {"small": Sentiment(), "large": cascade.tier(lambda x: "good", rows="one")}
    with Router(policy, tiers=tiers, env={}) as router:
        router.swap(policy)
        router.set_mode("top_only")
        assert_type(router.metrics(), str)
        assert_type(router.statistics().requests, int)
        assert_type(router.statistics().dispositions, Mapping[str, int])
        assert_type(router.health().ready, bool)
    cascade.tier(len, returns="value")  # type: ignore[arg-type]  # values


async def asynchronously(path: Path) -> Outcome[str]:
    """An AsyncRouter is awaited."""
    router: AsyncRouter[str, str]
    async with AsyncRouter.from_yaml(path) as router:
        outcome = await router.route("x", deadline=0.02)
        assert_type(outcome, Outcome[str])
        assert_type(await router.route_many(["x"]), Outcomes[str])
        return outcome


def errors(router: Router[str, str]) -> float | None:
    """Exceptions carry what a caller needs."""
    try:
        router.route("x")
    except Overloaded as error:
        return error.retry_after
    except DeadlineExceeded as error:
        assert_type(error.outcome, Outcome[Any] | None)
    except ModelIntegrityError as error:
        assert_type(error.expected, str | None)
    except TierError as error:
        assert_type(error.tier, str | None)
    except PolicyError as error:
        assert_type([issue.line for issue in error.issues], list[int | None])
    except CascadeError:
        pass
    return None


def testing(policy: Policy) -> None:
    """The test kit is typed too."""
    clock = VirtualClock()
    small = scripted({"a": ("b", 0.9)}, seconds=0.1, clock=clock)
    assert_type(small, Scripted)
    with router_for(policy, clock=clock, small=small, large="x") as router:
        assert_type(router, Router[Any, Any])
        assert_tier(router.route("a"), "small")
        assert_disposition(router.route("a"), "cached", Reason.CACHE)


def from_a_recording(policy: Policy, table: Mapping[str, Any]) -> None:
    """A recording has tiers of any names; what a call costs may be an array."""
    tiers = recorded(table)
    assert_type(tiers, dict[str, Scripted])
    assert_type(router_for(policy, **tiers), Router[Any, Any])
    assert_type(router_for(policy, clock=VirtualClock(), **tiers), Router[Any, Any])
    assert_type(async_router_for(policy, **tiers), AsyncRouter[Any, Any])
    router_for(policy, clock="small")  # type: ignore[call-overload]
    prices = np.array([1.0, 20.0])
    assert_type(cascade.replay(policy, table, costs=prices), Replay)
    assert_type(cascade.fit(table, costs=prices).policy, Policy)
    cascade.CascadeClassifier([], costs=prices)
