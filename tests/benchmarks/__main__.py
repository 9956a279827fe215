"""Print the table of DESIGN's budgets as Markdown: ``python -m tests.benchmarks``."""

from __future__ import annotations

import platform
import tempfile
from operator import itemgetter
from pathlib import Path

from tests.benchmarks.sync import measure, measure_imports, measure_many

RUNS = 5


def main() -> None:
    """Measure and print, of several runs the quietest: what else runs here only adds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = min((measure(folder) for _ in range(RUNS)), key=itemgetter("Y"))
        many = min((measure_many(folder) for _ in range(RUNS)), key=itemgetter("bare"))
    imports = measure_imports()
    y = one["Y"]
    beyond = one["escalated"] - y - one["large model"]
    rows = [
        ("cache hit, sync, array", one["hit"], one["hit"] / y, 0.35, "Y"),
        ("cache hit, sync, text", one["hit, text"], one["hit, text"] / y, 0.35, "Y"),
        ("answered by tier 1, everything on", one["tier 1"], one["tier 1"] / y, 1.8, "Y"),
        ("escalated once, beyond both models", beyond, beyond / y, 1.0, "Y"),
        ("`route_many`, 10,000 rows, 20 % escalated", many["route_many"],
         many["route_many"] / many["bare"], 1.15, "× bare runs"),
        ("`import cascade`", imports["import cascade"] * 1e3,
         imports["import cascade"] / imports["import numpy"], 2.0, "× `import numpy`"),
    ]  # fmt: skip
    print(
        f"CPython {platform.python_version()}, Y = {y:.2f} µs, "
        f"large model {one['large model']:.2f} µs\n"
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
