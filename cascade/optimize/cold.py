"""A tier's cold start and memory, in a process of its own: here the model may be warm already."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from cascade.optimize.data import Data
    from cascade.policy import Policy

__all__ = ["Cold", "main", "measure_cold"]

_START = "from cascade.optimize.cold import main; main()"


@attrs.frozen
class Cold:
    """Seconds to load a model and to answer the first row; ``memory`` is the growth in bytes.

    Memory is None where the system does not say (there is no ``/proc``).
    """

    load: float
    first: float
    memory: int | None


def measure_cold(policy: Policy, tier: str, data: Data) -> Cold:
    """Load the model of a tier in a fresh process, and run the first row; once.

    Raises:
        RuntimeError: the process ended without an answer; the message has its last line.
    """
    sent = io.BytesIO()
    row: dict[str, Any] = {f"_{name}": c for name, c in data.take([0]).columns.items()}
    np.savez(sent, **row)
    done = subprocess.run(  # noqa: S603  our own interpreter and module
        [sys.executable, "-c", _START, str(policy.path), tier],
        input=sent.getvalue(), capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"tier {tier!r} could not be started cold: {' '.join(last)}")
    return Cold(**json.loads(done.stdout.decode().splitlines()[-1]))


def main() -> None:
    """Measure in this process: the policy's path and the tier are arguments, the row is stdin."""
    from cascade.optimize.data import Data
    from cascade.optimize.running import load_models, open_tier
    from cascade.policy import Policy

    arrays = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    data = Data({name[1:]: arrays[name] for name in arrays.files})
    policy: Any = Policy.from_yaml(sys.argv[1], env={})
    spec, model = load_models(policy)[sys.argv[2]]
    before, start = _resident(), time.perf_counter()
    running = open_tier(spec, model, policy)
    loaded = time.perf_counter()
    running.outputs(data)
    done, after = time.perf_counter(), _resident()
    grown = None if before is None or after is None else max(0, after - before)
    print(json.dumps({"load": loaded - start, "first": done - loaded, "memory": grown}))  # noqa: T201


def _resident() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    import resource

    return pages * resource.getpagesize()
