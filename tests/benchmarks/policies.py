"""What it costs to refuse a policy file that is made to cost.

``python -m tests.benchmarks.policies`` prints the table of docs/faults.md.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

from cascade import Policy, PolicyError

COSTLY = {
    "unknown keys": "version: 1\n" + "".join(f"k{i}: 1\n" for i in range(4_990)),
    "one key, again and again": "a: 1\n" * 4_990,
    "a list of 9,990 numbers": "a: [" + "1," * 9_990 + "1]",
    "9,900 bad numbers": "escalation: {thresholds: [" + "a," * 9_900 + "b]}",
    "3,300 bad tiers": "tiers:\n" + "- {x: 1}\n" * 3_300,
    "one long word": "a: '" + "x" * 65_000 + "'",
    "one long kind": "tiers: [{kind: " + "x" * 65_000 + "}]",
    "32,000 words": "a: " + "x " * 32_000,
    "65,000 brackets": "[" * 65_000,
    "32,000 dashes": "- " * 32_000,
    "200 aliases of aliases": "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 200)
    ),
    "4,990 items below one long key": '? "' + "k" * 34_000 + '"\n: {' + "a," * 4_990 + "}\n",
    "800 keys without values": "".join(f"? {'k' * 60}{i}\n" for i in range(800)),
    "3,300 tiers of a misspelt kind": "tiers: [" + "{kind: onx}," * 3_300 + "]",
    "3,300 tiers of nothing but a kind": "tiers: [" + "{kind: onnx}," * 3_300 + "]",
    "1,900 tiers of one name": (
        "version: 1\nname: p\ntiers: [" + "{kind: external, name: a}," * 1_900 + "]"
    ),
    "500 misspelt words": "tiers: [" + f"{{kind: onnx, execution: {'y' * 90}}}," * 500 + "]",
    "a list of 9,900 labels": (
        "version: 1\nname: p\ntiers: [{kind: external, name: a}]\nclasses: [" + "a," * 9_900 + "]"
    ),
    "1 MB": "a: " + "x" * 1_000_000,
}


def refuse(path: Path) -> None:
    """Read a file that no policy can be made of."""
    try:
        Policy.from_yaml(path, env={})
    except PolicyError:
        return
    msg = f"{path} was accepted"
    raise AssertionError(msg)


def main() -> None:
    """Print milliseconds of CPU time (best of five) and megabytes (peak) per file."""
    print("| a file of | ms | MB |")
    print("|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        for name, text in COSTLY.items():
            path.write_text(text, encoding="utf-8")
            refuse(path)
            taken = []
            for _ in range(5):
                begun = time.process_time()
                refuse(path)
                taken.append(time.process_time() - begun)
            tracemalloc.start()
            refuse(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            print(f"| {name} | {min(taken) * 1e3:,.1f} | {peak / 1e6:.1f} |")


if __name__ == "__main__":
    main()
