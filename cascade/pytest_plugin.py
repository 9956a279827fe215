"""The pytest plugin: fixtures for policies under test; nothing is imported until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["cascade_clock", "cascade_router"]


@pytest.fixture
def cascade_clock() -> Any:
    """A :class:`cascade.testing.VirtualClock`; routers of ``cascade_router`` go by it."""
    from cascade.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def cascade_router(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function ``(policy, **tiers)`` that opens a router with scripted tiers.

    As :func:`cascade.testing.router_for`; a relative path is looked for from the test's folder. The
    routers are closed when the test ends.
    """
    from pathlib import Path

    from cascade.testing import router_for

    opened = []

    def make(policy: Any, **tiers: Any) -> Any:
        if isinstance(policy, (str, Path)) and not Path(policy).is_absolute():
            policy = request.path.parent / policy
        if "cascade_clock" in request.fixturenames:
            tiers.setdefault("clock", request.getfixturevalue("cascade_clock"))
        router = router_for(policy, **tiers)
        opened.append(router)
        router.warmup()
        return router

    yield make
    for router in opened:
        router.close()
