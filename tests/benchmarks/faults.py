"""Figures of docs/faults.md that no test asserts: ``python -m tests.benchmarks.faults``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import cascade
from cascade import CascadeError, DeadlineExceeded, Policy, PolicyError, Router, TierError
from cascade.testing import VirtualClock, async_router_for, router_for, run_virtual, scripted
from tests.benchmarks.deadlines import _forget

FOREVER = 3_600.0


def tree(**tier: Any) -> dict[str, Any]:
    """Return a policy of two tiers; ``tier`` is what it says of the first."""
    return {
        "version": 1, "name": "faults", "deadline": "1s", "cache": {},
        "tiers": [{"name": "small", "kind": "external"} | tier,
                  {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip


def one(function: Any) -> Any:
    """Return a tier of a function that answers a row at a time, surely."""
    return cascade.tier(lambda x: (function(x), 0.9), returns="pairs", rows="one")


def hang(x: Any) -> tuple[Any, float]:
    """Hang where that is asked for; it runs in another process, and so stands here."""
    time.sleep(FOREVER if x == "hang" else 0.0)
    return x, 0.9


def killed(n: int = 30) -> str:
    """Time how late a process that hangs is left, and when the next request has its answer."""
    from tests.benchmarks.faults import hang as found  # the child knows no __main__

    late, served = [], []
    policy = Policy.from_dict(tree(execution="process", workers=1))
    tiers = {"small": cascade.tier(found, returns="pairs", rows="one"), "large": one(str)}
    with Router(policy, tiers=tiers) as router:
        service = router._service.plan.lanes[0].service
        for _ in range(n):
            _forget(service)
            begun = time.perf_counter()
            with contextlib.suppress(DeadlineExceeded):
                router.route("hang", deadline=0.05)
            left = time.perf_counter()
            late.append(left - begun - 0.05)
            while router.route("next", deadline=10.0, use_cache=False).tier != "small":
                _forget(service)
            served.append(time.perf_counter() - left)
    p50, p99 = np.percentile(late, [50, 99]) * 1e3
    again = f"a new one serves after {np.median(served) * 1e3:.0f} ms"
    return f"{p50:.1f} ms late, {p99:.1f} at p99; {again}"


def faulty_rows(n: int = 100_000) -> str:
    """Count the sound rows that are lost among faulty ones, in batches of all sizes."""
    draw, lost, kept = np.random.default_rng(0), 0, 0
    bad = draw.random(n) < 0.1

    def answer(rows: Any) -> list[tuple[Any, float]]:
        return [(row, 7.0 if bad[row] else 0.9) for row in rows]

    small = cascade.tier(answer, returns="pairs")
    with router_for(tree(), small=small, large=None) as router:
        begin = 0
        while begin < n:
            rows = list(range(begin, min(n, begin + int(draw.integers(3, 300)))))
            tiers = router.route_many(rows).tiers
            lost += int((tiers[~bad[rows]] != "small").sum())
            kept += int((tiers[bad[rows]] == "small").sum())
            begin += len(rows)
    return f"of {n:,} rows, a tenth faulty: {lost} sound ones lost, {kept} faulty ones kept"


def by_turns(hours: int = 1) -> str:
    """Count how often the breaker changes while a tier works for 7 s, then fails for 7 s."""
    clock = VirtualClock()

    def answer(_: Any) -> tuple[str, float]:
        if int(clock() / 7e9) % 2:
            raise ConnectionError
        return "answer", 0.9

    policy, pause = tree(breaker={"pause": "5s"}) | {"cache": None}, 5
    del policy["cache"]
    with router_for(policy, clock=clock, small=scripted(answer), large="else") as router:
        breaker: Any = router._service.plan.lanes[0].breaker
        changes, was, begun = 0, False, clock()
        while clock() - begun < hours * 3_600e9:
            router.route("x")
            changes, was = changes + (breaker.is_open != was), breaker.is_open
            clock.advance(0.05)
    pauses = hours * 3_600 // pause
    return f"{changes} changes in {pauses} pauses"


def all_hang(n: int = 2_000) -> str:
    """Time how soon a request is refused while every worker of the only tier hangs."""
    go, taken = threading.Event(), []
    only = tree() | {"tiers": [{"name": "small", "kind": "external", "workers": 2}]}
    only.pop("escalation")
    policy = Policy.from_dict(only)
    with Router(policy, tiers={"small": one(lambda _: go.wait())}) as router:
        for i in range(2):
            with contextlib.suppress(DeadlineExceeded):
                router.route(i, deadline=0.05)
        for i in range(n):
            begun = time.perf_counter()
            with contextlib.suppress(CascadeError):
                router.route(f"x {i}")
            taken.append(time.perf_counter() - begun)
        go.set()
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    return f"refused in {p50:.2f} ms, {p99:.2f} at p99"


def closed() -> str:
    """Count how requests of 8 threads end when the router is closed under them."""
    ends: Counter[str] = Counter()
    slow = one(lambda x: time.sleep(0.002) or x)
    router = Router(
        Policy.from_dict(tree(execution="worker")), tiers={"small": slow, "large": slow}
    )
    router.warmup()

    def ask(thread: int) -> None:
        for i in range(10_000):
            try:
                router.route((thread, i))
                ends["answered"] += 1
            except PolicyError:
                return
            except CascadeError:
                ends["refused"] += 1
            except BaseException:  # noqa: BLE001  whatever it is, it must not be
                ends["other exceptions"] += 1

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, i) for i in range(8)]
        time.sleep(1.0)
        begun = time.perf_counter()
        router.close()
        taken = time.perf_counter() - begun
        for future in asked:
            future.result(30.0)
    other = ends["other exceptions"]
    return (
        f"{ends['answered']:,} answered, {ends['refused']} refused, {other} other exceptions; "
        f"closed in {taken * 1e3:.0f} ms"
    )


def leaders(n: int = 1_000) -> str:
    """Count the computations for a leader that fails, and how late a follower leaves a slow one."""

    async def main(loop: Any) -> tuple[int, int, float]:
        broken = scripted(error=ConnectionError, seconds=0.01, asynchronous=True)
        router = async_router_for(tree(), loop=loop, small=broken, large=broken)
        asked = [router.route("x") for _ in range(n)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        shared = sum(isinstance(end, TierError) for end in found)
        slow = async_router_for(tree(), loop=loop, small=scripted(hangs=True), large="else")
        leader = asyncio.ensure_future(slow.route("x"))
        await asyncio.sleep(0.001)
        begun, late = loop.time(), 0.0
        with contextlib.suppress(CascadeError):
            await slow.route("x", deadline=0.02)
        late = loop.time() - begun - 0.02
        leader.cancel()
        return len(broken.calls), shared, late

    calls, shared, late = run_virtual(main)
    told = f"{calls} calls, one per tier, for {shared:,} who share the fault"
    return f"{told}; {abs(late) * 1e3:.1f} ms late in virtual time"


def loaders() -> str:
    """Count the modules that can load code, besides those between a process and its child."""
    from tests.tiers.test_hostile_models import PACKAGE, test_nothing_in_the_package_can_load_code

    test_nothing_in_the_package_can_load_code()
    return f"0 of {sum(1 for _ in Path(PACKAGE).rglob('*.py'))} modules"


def main() -> None:
    """Print one line per row of the table."""
    for measure in (killed, faulty_rows, by_turns, all_hang, closed, leaders, loaders):
        print(f"{measure.__name__}: {measure()}", flush=True)


if __name__ == "__main__":
    main()
