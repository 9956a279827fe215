"""Print the table of DESIGN's budgets as Markdown: ``python -m tests.benchmarks``."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.sync import measure, measure_imports, measure_many

RUNS = 5


def main() -> None:
    """Measure several times, and print the median of each ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ones = [measure(folder) for _ in range(RUNS)]
        manies = [measure_many(folder) for _ in range(RUNS)]
    imports = measure_imports()
    for one in ones:
        one["beyond"] = one["escalated"] - one["Y"] - one["large model"]

    def row(path: str, key: str, bound: float) -> tuple[str, float, float, float, str]:
        ratio = median(one[key] / one["Y"] for one in ones)
        return path, median(one[key] for one in ones), ratio, bound, "Y"

    rows = [
        row("cache hit, sync, array", "hit", 0.35),
        row("cache hit, sync, text", "hit, text", 0.35),
        row("answered by tier 1, everything on", "tier 1", 1.8),
        row("escalated once, beyond both models", "beyond", 1.0),
        ("`route_many`, 10,000 rows, 20 % escalated", median(m["route_many"] for m in manies),
         median(m["route_many"] / m["bare"] for m in manies), 1.15, "× bare runs"),
        ("`import cascade`", imports["import cascade"] * 1e3,
         imports["import cascade"] / imports["import numpy"], 2.0, "× `import numpy`"),
    ]  # fmt: skip
    y, large = (median(one[key] for one in ones) for key in ("Y", "large model"))
    print(
        f"CPython {platform.python_version()}, {RUNS} runs, Y = {y:.2f} µs, "
        f"large model {large:.2f} µs\n"
    )
    print("| path | median, µs | ratio | bound | holds |")
    print("|---|---:|---:|---:|---|")
    for path, time, ratio, bound, unit in rows:
        print(
            f"| {path} | {time:,.2f} | {ratio:.2f} {unit} | {bound} "
            f"| {'yes' if ratio <= bound else 'no'} |"
        )


if __name__ == "__main__":
    main()
