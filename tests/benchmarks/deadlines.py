"""Deadlines as a caller meets them: how late an answer is, and what the others notice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import cascade
from cascade import DeadlineExceeded, Policy, Router
from cascade.batching import Curve
from tests.benchmarks.models import chain, perceptron

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 200
ROUNDS = 10_000  # of the two contenders, in turns of one call each
DEADLINE = 0.005  # s


def measure_late(folder: Path) -> dict[str, float]:
    """Return in ms: the model's own time, p50 and p99 of lateness, and of the worker's return."""
    chain(folder / "chain.onnx")
    tree = {
        "version": 1, "name": "late", "deadline": "5s",
        "tiers": [{"name": "chain", "kind": "onnx", "model": "chain.onnx"}],
    }  # fmt: skip
    row = np.ones(256, dtype=np.float32)
    late, back = [], []
    with Router(Policy.from_dict(tree), models=folder) as router:
        whole = router.route(row).latency.compute
        lane: Any = router._service.plan.lanes[0]._far
        _forget(lane.service)
        for _ in range(RUNS):
            start = time.perf_counter()
            try:
                router.route(row, deadline=DEADLINE)
                msg = "the model was fast enough: nothing was measured"
                raise RuntimeError(msg)
            except DeadlineExceeded:
                late.append(time.perf_counter() - start - DEADLINE)
            while lane._running:
                time.sleep(0.0001)
            back.append(time.perf_counter() - start - DEADLINE)
            _forget(lane.service)
    quantiles = {
        f"{name}, p{q}": float(np.percentile(values, q)) * 1e3
        for name, values in {"answered late": late, "worker back": back}.items()
        for q in (50, 99)
    }
    return {"the model by itself": whole * 1e3} | quantiles


def _forget(service: Any) -> None:
    """Have a tier be believed to be fast, so that it is begun at all."""
    service._eta, service.curve = 0, Curve()
    service._batches.clear()


def measure_hung(folder: Path) -> dict[str, float]:
    """Return the p99 in ms of a healthy tier, alone and beside one that hangs, and the lateness."""
    perceptron(folder / "large.onnx", [64, 256, 256, 10], 1)
    hang = threading.Event()
    tree = {
        "version": 1, "name": "hung", "deadline": "1s",
        "tiers": [{"name": "hangs", "kind": "external", "workers": 2},
                  {"name": "healthy", "kind": "onnx", "model": "large.onnx",
                   "execution": "worker"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    stuck = cascade.tier(lambda _: hang.wait() and ("never", 1.0), returns="pairs", rows="one")
    row, late = np.ones(64, dtype=np.float32), []
    policy, tiers = Policy.from_dict(tree), {"hangs": stuck}
    with (
        Router(policy, tiers=tiers, models=folder) as alone,
        Router(policy, tiers=tiers, models=folder) as beside,
    ):
        for _ in range(2):
            start = time.perf_counter()
            try:
                beside.route(row, deadline=DEADLINE)
            except DeadlineExceeded:
                late.append(time.perf_counter() - start - DEADLINE)
        times: dict[Router, list[float]] = {alone: [], beside: []}
        for _ in range(ROUNDS):
            for router, taken in times.items():
                start = time.perf_counter()
                router.route(row, at_least="healthy")
                taken.append(time.perf_counter() - start)
        hang.set()
    return {
        "healthy tier alone, p99": float(np.percentile(times[alone], 99)) * 1e3,
        "beside two hung calls, p99": float(np.percentile(times[beside], 99)) * 1e3,
        "hung tier answered late, max": max(late) * 1e3,
    }


EXIT = """
import threading, time
import cascade
from cascade import Policy, Router
tree = {"version": 1, "name": "exit", "deadline": "50ms",
        "tiers": [{"name": "hangs", "kind": "external", "workers": 6}]}
router = Router(Policy.from_dict(tree), tiers={"hangs": lambda xs: time.sleep(3600)})
router.warmup()
for i in range(6):
    try:
        router.route(i)
    except cascade.DeadlineExceeded:
        pass
print(time.time(), flush=True)
"""


def measure_exit() -> float:
    """Return the seconds that an interpreter with six hung calls takes to leave."""
    taken = []
    for _ in range(5):
        child = subprocess.run(
            [sys.executable, "-c", EXIT], check=True, capture_output=True, text=True
        )
        taken.append(time.time() - float(child.stdout))
    return float(np.median(taken))
