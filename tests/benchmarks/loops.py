"""The asyncio rows of the budget table: paths against Y, and 64 clients in one event loop."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade import AsyncRouter, Policy
from cascade.tiers.sessions import make_session
from tests.benchmarks.models import perceptron
from tests.benchmarks.sync import BLOCK, EMPTY, ROUNDS, per_block, policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.benchmarks.sync import Blocks

    Ask = Callable[[Any], Awaitable[Any]]

CLIENTS, EACH, TURNS = 64, 200, 5


def one_tier(folder: Path, **tier: Any) -> AsyncRouter:
    """A router over one ~10 µs model, without a cache."""
    perceptron(folder / "middle.onnx", [64, 256, 256, 10], 1)
    spec = {"name": "only", "kind": "onnx", "model": "middle.onnx", **tier}
    tree = {"version": 1, "name": "clients", "deadline": "5s", "tiers": [spec]}
    return AsyncRouter(Policy.from_dict(tree), models=folder)


async def measure_paths(folder: Path) -> Blocks:
    """Time single requests, each path in blocks of its own."""
    perceptron(folder / "small.onnx", [64, 10], 0)
    perceptron(folder / "large.onnx", [64, 256, 256, 10], 1)
    rows = list(np.random.default_rng(2).normal(size=(ROUNDS, 64)).astype(np.float32))
    small = make_session((folder / "small.onnx").read_bytes())
    async with (
        AsyncRouter(policy(folder, 0.0), models=folder) as first,
        AsyncRouter(policy(folder, 0.0), models=folder) as warm,
    ):
        await warm.route(rows[0])

        async def yardstick(x: Any) -> Any:
            return small.run(None, {"x": x[None]})

        contenders: dict[str, Ask] = {
            "Y": yardstick,
            "tier 1": first.route,
            "hit": lambda _: warm.route(rows[0]),
        }
        return await _interleave(contenders, rows)


async def _interleave(contenders: dict[str, Ask], rows: list[Any]) -> Blocks:
    clock = time.perf_counter_ns
    times: dict[str, list[int]] = {name: [] for name in [*contenders, EMPTY]}
    gc.collect()
    gc.disable()
    try:
        for at in range(0, len(rows), BLOCK):
            for name, ask in contenders.items():
                for row in rows[at : at + BLOCK]:
                    start = clock()
                    await ask(row)
                    times[name].append(clock() - start)
                await asyncio.sleep(0)
            for _ in range(BLOCK):
                start = clock()
                times[EMPTY].append(clock() - start)
    finally:
        gc.enable()
    return per_block(times, BLOCK)


async def measure_clients(folder: Path) -> dict[str, dict[str, float]]:
    """Return per contender requests/s, p50 in µs, and the loop's lag at p99 in ms."""
    rows = list(np.random.default_rng(4).normal(size=(4096, 64)).astype(np.float32))
    loop = asyncio.get_running_loop()
    async with (
        one_tier(folder, execution="inline", batch={"max_size": 64}) as batched,
        one_tier(folder, execution="inline") as alone,
        one_tier(folder, execution="worker", batch={"max_size": 64}) as worker,
    ):
        session = make_session((folder / "middle.onnx").read_bytes())
        with ThreadPoolExecutor(1) as pool:

            async def executor(x: Any) -> Any:
                return await loop.run_in_executor(pool, session.run, None, {"x": x[None]})

            contenders: dict[str, Ask] = {
                "batched per loop turn": batched.route,
                "batching off": alone.route,
                "batched on a worker": worker.route,
                "bare model in an executor": executor,
            }
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
            for _ in range(TURNS):
                for name, ask in contenders.items():
                    gc.collect()
                    found[name].append(await _crowd(ask, rows))
    keys = ("rate", "p50", "lag")
    return {
        name: dict(zip(keys, np.median(np.array(runs), axis=0).tolist(), strict=True))
        for name, runs in found.items()
    }


async def _crowd(ask: Ask, rows: list[Any]) -> tuple[float, float, float]:
    """Have 64 clients ask one after the other, while a probe feels the loop's pulse."""
    lags, times = [], []
    over = False

    async def probe() -> None:
        while not over:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append((time.perf_counter() - start) * 1e3 - 1.0)

    async def client(i: int) -> None:
        for j in range(EACH):
            start = time.perf_counter_ns()
            await ask(rows[(i * EACH + j) % len(rows)])
            times.append(time.perf_counter_ns() - start)

    watching = asyncio.create_task(probe())
    start = time.perf_counter()
    await asyncio.gather(*(client(i) for i in range(CLIENTS)))
    taken = time.perf_counter() - start
    over = True
    await watching
    return CLIENTS * EACH / taken, float(np.median(times)) / 1e3, float(np.percentile(lags, 99))


async def measure_low_load(folder: Path) -> dict[str, float]:
    """Return the p50 in µs of single requests 2 ms apart, inline and on a worker."""
    rows = list(np.random.default_rng(5).normal(size=(600, 64)).astype(np.float32))
    async with (
        one_tier(folder, execution="inline") as near,
        one_tier(folder, execution="inline", batch={"max_size": 64}) as near_batched,
        one_tier(folder, execution="worker") as far,
        one_tier(folder, execution="worker", batch={"max_size": 64}) as far_batched,
    ):
        session = make_session((folder / "middle.onnx").read_bytes())
        pool, loop = ThreadPoolExecutor(1), asyncio.get_running_loop()

        async def executor(x: Any) -> Any:
            return await loop.run_in_executor(pool, session.run, None, {"x": x[None]})

        contenders: dict[str, Ask] = {
            "inline": near.route,
            "inline, batching on": near_batched.route,
            "worker": far.route,
            "worker, batching on": far_batched.route,
            "bare model in an executor": executor,
        }
        times: dict[str, list[int]] = {name: [] for name in contenders}
        shuffle = random.Random(0)  # who comes after a thread finds the cores awake: it goes round
        for row in rows:
            for name, ask in shuffle.sample(list(contenders.items()), len(contenders)):
                await asyncio.sleep(0.002)
                start = time.perf_counter_ns()
                await ask(row)
                times[name].append(time.perf_counter_ns() - start)
    return {name: float(np.median(taken)) / 1e3 for name, taken in times.items()}
