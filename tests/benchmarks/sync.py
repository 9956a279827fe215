"""The synchronous rows of the budget table, against Y: one public run of a 64→10 linear model."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade import Policy, Router
from cascade.tiers.sessions import make_session
from tests.benchmarks.models import perceptron

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    Blocks: TypeAlias = dict[str, npt.NDArray[np.float64]]

ROUNDS = 6_000
BLOCK = 50  # calls of one contender in a row: long enough to be warm, short enough to interleave
EMPTY = "empty"
BATCHES = 5  # the same of a call that takes milliseconds
IMPORTS = 11


def policy(folder: Path, threshold: float, *, cache: bool = True) -> Policy:
    """Everything on: key, lookup, store, flight, complexity, temperature, ledger."""
    tree: dict[str, Any] = {
        "version": 1,
        "name": "benchmark",
        "deadline": "1s",
        "tiers": [
            {"name": "small", "kind": "onnx", "model": "small.onnx",
             "confidence": {"score": "max_probability", "temperature": 0.61}},
            {"name": "large", "kind": "onnx", "model": "large.onnx",
             "confidence": {"score": "max_probability", "temperature": 0.9}},
        ],
        "escalation": {"thresholds": [threshold]},
        "complexity": {"intercept": -9.0, "weights": [0.01] * 64, "skip_above": [0.999]},
    }  # fmt: skip
    if cache:
        tree["cache"] = {"entries": 10_000, "bytes": "64MB", "ttl": "5m"}
    return Policy.from_dict(tree)


def measure(folder: Path) -> Blocks:
    """Time each path; a contender never sees a row twice, but for the hits."""
    perceptron(folder / "small.onnx", [64, 10], 0)
    perceptron(folder / "large.onnx", [64, 256, 256, 10], 1)
    rows = np.random.default_rng(2).normal(size=(ROUNDS, 64)).astype(np.float32)
    small = make_session((folder / "small.onnx").read_bytes())
    large = make_session((folder / "large.onnx").read_bytes())
    with (
        Router(policy(folder, 0.0), models=folder) as first,
        Router(policy(folder, 1.0), models=folder) as second,
        Router(policy(folder, 0.0), models=folder) as warm,
    ):
        contenders: dict[str, Callable[[Any], Any]] = {
            "Y": lambda x: small.run(None, {"x": x[None]}),
            "large model": lambda x: large.run(None, {"x": x[None]}),
            "tier 1": first.route,
            "escalated": second.route,
        }
        texts = _hits_of_text()
        contenders["hit, text"] = texts
        hot = list(rows[:BLOCK])
        for row in hot:
            warm.route(row)
        contenders["hit"] = _cycle(warm.route, hot)
        return _interleave(contenders, list(rows))


def _cycle(route: Callable[[Any], Any], rows: list[Any]) -> Callable[[Any], Any]:
    turn = itertools.cycle(rows)
    return lambda _: route(next(turn))


def _hits_of_text() -> Callable[[Any], Any]:
    import cascade

    tree = {
        "version": 1, "name": "text", "deadline": "1s", "cache": {},
        "tiers": [{"name": "only", "kind": "external"}],
    }  # fmt: skip
    router = Router(Policy.from_dict(tree), tiers={"only": cascade.tier(len, rows="one")})
    text = "a sentence of a length as people write them, and a few words"
    router.route(text)
    return lambda _: router.route(text)


def _interleave(
    contenders: dict[str, Callable[[Any], Any]], rows: list[Any], block: int = BLOCK
) -> Blocks:
    clock = time.perf_counter_ns
    times: dict[str, list[int]] = {name: [] for name in [*contenders, EMPTY]}
    gc.collect()
    gc.disable()
    try:
        for at in range(0, len(rows), block):
            for name, ask in contenders.items():
                for row in rows[at : at + block]:
                    start = clock()
                    ask(row)
                    times[name].append(clock() - start)
            for _ in rows[at : at + block]:
                start = clock()
                times[EMPTY].append(clock() - start)
    finally:
        gc.enable()
    return per_block(times, block)


def per_block(times: dict[str, list[int]], block: int) -> Blocks:
    """Return the median of each block of calls in µs, less what looking at the clock takes.

    The machine changes its speed from second to second: blocks are held against their neighbours.
    """
    medians = {
        name: np.median(np.reshape(taken, (-1, block)), axis=1) / 1e3
        for name, taken in times.items()
    }
    empty = medians.pop(EMPTY)
    return {name: taken - empty for name, taken in medians.items()}


def bare_policy(threshold: float) -> Policy:
    """The same tiers with nothing set: confidence as the model gives it, no complexity."""
    tiers = [{"name": n, "kind": "onnx", "model": f"{n}.onnx"} for n in ("small", "large")]
    return Policy.from_dict(
        {
            "version": 1, "name": "benchmark", "deadline": "1s", "tiers": tiers,
            "escalation": {"thresholds": [threshold]},
        }
    )  # fmt: skip


def measure_many(folder: Path, *, everything: bool) -> Blocks:
    """``route_many`` of 10,000 rows, a fifth escalated, and the bare model runs."""
    if everything:
        return _measure_many(folder, lambda threshold: policy(folder, threshold, cache=False))
    return _measure_many(folder, bare_policy)


def _measure_many(folder: Path, policy_at: Callable[[float], Policy]) -> Blocks:
    rows = np.random.default_rng(3).normal(size=(10_000, 64)).astype(np.float32)
    small = make_session((folder / "small.onnx").read_bytes())
    large = make_session((folder / "large.onnx").read_bytes())
    with Router(policy_at(0.0), models=folder) as probe:
        threshold = float(np.quantile(probe.route_many(rows).confidences, 0.2))
    with Router(policy_at(threshold), models=folder) as router:
        escalated = rows[np.asarray([tier == "large" for tier in router.route_many(rows).tiers])]

        def bare(_: Any) -> None:
            small.run(None, {"x": rows})
            large.run(None, {"x": escalated})

        contenders = {"bare": bare, "route_many": lambda _: router.route_many(rows)}
        return _interleave(contenders, [None] * 200, BATCHES)


def measure_imports() -> dict[str, float]:
    """Return the medians in ms of a fresh interpreter that imports a package, less an empty one."""
    times: dict[str, list[float]] = {"pass": [], "import numpy": [], "import cascade": []}
    for _ in range(IMPORTS):
        for code, taken in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.perf_counter() - start)
    medians = {code: float(np.median(taken)) * 1e3 for code, taken in times.items()}
    return {code: medians[code] - medians["pass"] for code in ("import numpy", "import cascade")}
