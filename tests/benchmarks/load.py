"""A certified cascade under bursts: ``python -m tests.benchmarks.load DATA [PLOT.png]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import cascade
from cascade.fitting.recording import Recording
from cascade.simulation import Arrivals, simulate
from cascade.simulation.display import LoadDisplay

if TYPE_CHECKING:
    from cascade.simulation import Simulation

SECONDS = {"deepspeech": 0.002, "microsoft": 0.1}
DEADLINE = 0.4
LOADS = (0.5, 0.8, 1.2, 2.0)  # of the top tier's capacity, were it asked alone


def offline(found: Simulation, asked: np.ndarray) -> float:
    """Return ρ of one who knows all arrivals: as many of those asked as can be in time.

    All take equally long and have equally long, so that first come, first served is the best.
    """
    assert found.arrivals is not None
    free, lost = 0.0, 0
    for at in found.arrivals.times[asked]:
        begin = max(free, at + SECONDS["deepspeech"])
        if begin + SECONDS["microsoft"] <= at + DEADLINE:
            free = begin + SECONDS["microsoft"]
        else:
            lost += 1
    return lost / found.n


def main(data: Path, plot: Path | None = None) -> None:
    """Print a row per load, and the baselines."""
    recording = Recording.read(data / "frugalml_command.csv.gz").select([*SECONDS])
    trace = Arrivals.read(data / "azure_llm_2023_code.csv.gz")
    fit = cascade.fit(recording, tiers=[*SECONDS], max_loss=0.01, alpha=0.1)
    good = np.asarray(recording.right(lambda a, b: a == b))
    point = fit.policy.point
    print("| load | | in time | accuracy | loss | δ + ρ | ρ | ρ offline | p99, ms | top busy |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for load in LOADS:
        speed = load / SECONDS["microsoft"] / trace.rate
        found = simulate(
            fit.policy, recording, trace, speed=speed, deadline=DEADLINE, seconds=SECONDS
        )
        rows = np.arange(found.n) % len(good)
        top = float(good[rows, -1].mean())
        sure = np.asarray(_confidences(fit.policy, recording))[rows] >= point.thresholds[0]
        best = offline(found, ~sure)
        for name, one in {"cascade": found, **found.baselines}.items():
            loss, rho, p99 = top - one.accuracy, one.forced_accepts, one.p99 or 0.0
            own = name == "cascade"
            cells = [
                f"{load:g}" if own else "", name.replace("_", " "), f"{one.slo_attainment:.1%}",
                f"{one.accuracy:.1%}", f"{loss:.1%}", f"{0.01 + rho:.1%}" if own else "",
                f"{rho:.2%}", f"{best:.2%}" if own else "", f"{p99 * 1e3:.0f}",
                f"{one.utilization['microsoft']:.0%}",
            ]  # fmt: skip
            print("|", " | ".join(cells), "|")
        if plot is not None and load == LOADS[2]:
            LoadDisplay.from_simulation(found).save(plot)


def _confidences(policy: cascade.Policy, recording: Recording) -> list[float | None]:
    from cascade.simulation.replaying import confidences_of

    return confidences_of(policy, recording)[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
