"""Print the table of budgets as Markdown: ``python -m tests.benchmarks``."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.deadlines import measure_exit, measure_hung, measure_late
from tests.benchmarks.loops import measure_clients, measure_low_load, measure_paths
from tests.benchmarks.sync import measure, measure_imports, measure_many

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.benchmarks.sync import Blocks

RUNS = 5


def main(what: Sequence[str]) -> None:
    """Measure several times, and print the median of each ratio."""
    parts = {"paths": paths, "clients": clients, "deadlines": deadlines}
    if unknown := set(what) - parts.keys():
        sys.exit(f"no such part: {', '.join(unknown)}; expected {', '.join(parts)}")
    print(f"CPython {platform.python_version()}, {RUNS} runs\n")
    with tempfile.TemporaryDirectory() as name:
        for part in what or parts:
            parts[part](Path(name))
            print()


def paths(folder: Path) -> None:
    """Print what one request costs, in Y."""
    ones = [measure(folder) for _ in range(RUNS)]
    bare = [measure_many(folder, everything=False) for _ in range(RUNS)]
    full = [measure_many(folder, everything=True) for _ in range(RUNS)]
    loops = [asyncio.run(measure_paths(folder)) for _ in range(RUNS)]
    imports = measure_imports()
    for one in ones:
        one["beyond"] = one["escalated"] - one["Y"] - one["large model"]
    print(f"Y = {_time(ones, 'Y'):.2f} µs, large model {_time(ones, 'large model'):.2f} µs\n")
    _table(
        [
            _in("cache hit, sync, array", ones, "hit", 0.35),
            _in("cache hit, sync, text", ones, "hit, text", 0.35),
            _in("cache hit, async, array", loops, "hit", 0.45),
            _in("answered by tier 1, sync, everything on", ones, "tier 1", 1.8),
            _in("answered by tier 1, async, everything on", loops, "tier 1", 2.0),
            _in("escalated once, beyond both models", ones, "beyond", 1.0),
            _in("`route_many`, 10,000 rows, 20 % escalated", bare, "route_many", 1.15, "bare"),
            _in("the same, temperature and complexity on", full, "route_many", 1.15, "bare"),
            ("`import cascade`", imports["import cascade"] * 1e3,
             imports["import cascade"] / imports["import numpy"], 2.0, "× `import numpy`"),
        ]
    )  # fmt: skip


def _time(runs: Sequence[Blocks], key: str) -> float:
    return float(np.median(np.concatenate([one[key] for one in runs])))


def _in(
    path: str, runs: Sequence[Blocks], key: str, bound: float, base: str = "Y"
) -> tuple[str, float, float, float, str]:
    """Return a row: the median of the blocks, and of their ratios to their neighbours."""
    ratio = float(np.median(np.concatenate([one[key] / one[base] for one in runs])))
    return path, _time(runs, key), ratio, bound, "Y" if base == "Y" else f"× {base} runs"


def _table(rows: Iterable[tuple[str, float, float, float, str]]) -> None:
    print("| path | median, µs | ratio | bound | holds |")
    print("|---|---:|---:|---:|---|")
    for path, time, ratio, bound, unit in rows:
        holds = "yes" if ratio <= bound else "no"
        print(f"| {path} | {time:,.2f} | {ratio:.2f} {unit} | {bound} | {holds} |")


def clients(folder: Path) -> None:
    """Print what 64 clients of one loop get, and what a lone request pays."""
    found = asyncio.run(measure_clients(folder))
    best = found["batched per loop turn"]["rate"]
    print("| 64 clients, a ~10 µs model | requests/s | p50, µs | loop lag p99, ms | batched is |")
    print("|---|---:|---:|---:|---:|")
    for name, one in found.items():
        times = f"{best / one['rate']:.2f} ×"
        print(f"| {name} | {one['rate']:,.0f} | {one['p50']:,.0f} | {one['lag']:.2f} | {times} |")
    print("\n| one request each 2 ms | p50, µs |")
    print("|---|---:|")
    for name, time in asyncio.run(measure_low_load(folder)).items():
        print(f"| {name} | {time:,.0f} |")


def deadlines(folder: Path) -> None:
    """Print how late answers are when a model runs too long, and what others notice."""
    hung = [measure_hung(folder) for _ in range(RUNS)]  # a p99 of one run is good to a fifth of it
    found: dict[str, Any] = measure_late(folder)
    found |= {name: float(np.median([one[name] for one in hung])) for name in hung[0]}
    found["exit with six hung calls"] = measure_exit() * 1e3
    print("| deadline of 5 ms | ms |")
    print("|---|---:|")
    for name, time in found.items():
        print(f"| {name} | {time:,.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
