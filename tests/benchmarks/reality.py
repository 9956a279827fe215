"""Is the simulator right? Serve a trace live, simulate the same, print both.

``python -m tests.benchmarks.reality``
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

import cascade
from cascade import AsyncRouter, CascadeError, Policy
from cascade.simulation import gamma, simulate

N = 2_000
SECONDS = {"small": 0.004, "large": 0.030}
DEADLINE = 0.120
RATES = (10.0, 40.0, 80.0, 160.0)  # the large tier alone answers 33 a second


def policy() -> Policy:
    """Two tiers of one worker each."""
    return Policy.from_dict(
        {
            "version": 1, "name": "reality", "deadline": DEADLINE,
            "tiers": [{"name": name, "kind": "external", "execution": "worker", "workers": 1}
                      for name in SECONDS],
            "escalation": {"thresholds": [0.5]},
        }
    )  # fmt: skip


def recording() -> dict[str, list[Any]]:
    """A third of the inputs is hard for the small tier."""
    hard = np.random.default_rng(0).random(N) < 1 / 3
    return {
        "truth": ["yes"] * N,
        "small.value": ["no" if h else "yes" for h in hard],
        "small.confidence": [0.1 if h else 0.9 for h in hard],
        "large.value": ["yes"] * N,
    }


async def live(rate: float) -> dict[str, float]:
    """Serve the trace as it comes, with tiers that sleep: they release the GIL."""
    table, when = recording(), gamma(rate, N, 2.0, seed=1)

    def small(i: int) -> tuple[str, float]:
        time.sleep(SECONDS["small"])
        return table["small.value"][i], table["small.confidence"][i]

    def large(i: int) -> tuple[str, float]:
        time.sleep(SECONDS["large"])
        return "yes", 1.0

    tiers = {
        "small": cascade.tier(small, returns="pairs", rows="one"),
        "large": cascade.tier(large, returns="pairs", rows="one"),
    }
    outcomes: list[Any] = []

    async def ask(router: AsyncRouter, i: int) -> None:
        try:
            outcomes.append(await router.route(i))
        except CascadeError as error:
            outcomes.append(error.outcome)  # type: ignore[attr-defined]

    async with AsyncRouter(policy(), tiers=tiers) as router:
        loop = asyncio.get_running_loop()
        start, tasks = loop.time() + 0.1, []
        for i, at in enumerate(when.times):
            await asyncio.sleep(max(0.0, start + at - loop.time()))
            tasks.append(loop.create_task(ask(router, i)))
        await asyncio.gather(*tasks)
    took = [outcome.latency.total for outcome in outcomes if outcome.tier is not None]
    return {
        "p50": float(np.quantile(took, 0.5)) * 1e3,
        "p99": float(np.quantile(took, 0.99)) * 1e3,
        "answered": len(took) / N,
        "large": sum(outcome.tier == "large" for outcome in outcomes) / N,
        "forced": sum(str(outcome.disposition) == "degraded" for outcome in outcomes) / len(took),
    }


def simulated(rate: float) -> dict[str, float]:
    """Return the same of the simulation."""
    found = simulate(
        policy(), recording(), gamma(rate, N, 2.0, seed=1), seconds=SECONDS, baselines=False
    )
    assert found.p50 is not None
    assert found.p99 is not None
    assert found.log is not None
    return {
        "p50": found.p50 * 1e3,
        "p99": found.p99 * 1e3,
        "answered": found.slo_attainment,
        "large": float((found.log.rank == 1).mean()),
        "forced": found.forced_accepts,
    }


def main() -> None:
    """Print both, side by side."""
    print("| arrivals / s | | p50, ms | p99, ms | answered | by the large tier | forced |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for rate in RATES:
        for name, one in (("live", asyncio.run(live(rate))), ("simulated", simulated(rate))):
            times = f"{one['p50']:.1f} | {one['p99']:.1f}"
            shares = " | ".join(f"{one[key]:.1%}" for key in ("answered", "large", "forced"))
            print(f"| {rate:g} | {name} | {times} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
