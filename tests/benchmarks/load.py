"""A certified cascade under bursts: ``python -m tests.benchmarks.load DATA [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

import cascade
from cascade.fitting.displays import new_figure
from cascade.fitting.recording import Recording
from cascade.policy.settings import LoadSettings
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


def moving(policy: cascade.Policy) -> cascade.Policy:
    """Let the policy's operating point follow the load, brownout and spare budget included.

    One worker per tier: its loads are those of one.
    """
    rules = attrs.evolve(policy.escalation, spare_budget=True)
    tiers = tuple(attrs.evolve(spec, workers=1) for spec in policy.tiers)
    return attrs.evolve(policy, load=LoadSettings(brownout=True), escalation=rules, tiers=tiers)


def best_static(policy: cascade.Policy, good: np.ndarray, **given: Any) -> tuple[float, int]:
    """Return the accuracy and index of the one point that is most accurate in hindsight."""
    assert policy.certificate is not None
    found = []
    for index, point in enumerate(policy.certificate.path):
        only = attrs.evolve(policy.certificate, path=(point,), certified=1)
        run = simulate(policy.certified(only), **given, baselines=False)
        found.append((run.accuracy if run.slo_attainment >= 0.99 else 0.0, index))
    return max(found)


def main(data: Path, folder: Path | None = None) -> None:
    """Print a row per load, and the baselines."""
    recording = Recording.read(data / "frugalml_command.csv.gz").select([*SECONDS])
    trace = Arrivals.read(data / "azure_llm_2023_code.csv.gz")
    fit = cascade.fit(recording, tiers=[*SECONDS], max_loss=0.01, alpha=0.1)
    policy = moving(fit.policy)
    good = np.asarray(recording.right(lambda a, b: a == b))
    point = fit.policy.point
    print("| load | | in time | accuracy | loss | δ + ρ | ρ | ρ offline | p99, ms | top busy |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    shown: dict[str, list[Simulation]] = {}
    for load in LOADS:
        speed = load / SECONDS["microsoft"] / trace.rate
        given = {"recording": recording, "arrivals": trace, "speed": speed, "deadline": DEADLINE,
                 "seconds": SECONDS}  # fmt: skip
        found = simulate(policy, **given)
        rows = np.arange(found.n) % len(good)
        top = float(good[rows, -1].mean())
        sure = np.asarray(_confidences(fit.policy, recording))[rows] >= point.thresholds[0]
        best = offline(found, ~sure)
        for name, one in {"follows the load": found, **found.baselines}.items():
            shown.setdefault(name, []).append(one)
            loss, rho, p99 = top - one.accuracy, one.forced_accepts, one.p99 or 0.0
            own = name in {"follows the load", "static"}
            cells = [
                f"{load:g}" if one is found else "", name.replace("_", " "),
                f"{one.slo_attainment:.1%}", f"{one.accuracy:.2%}", f"{loss:.2%}",
                f"{0.01 + rho:.2%}" if own else "", f"{rho:.2%}", f"{best:.2%}" if own else "",
                f"{p99 * 1e3:.0f}", f"{one.utilization['microsoft']:.0%}",
            ]  # fmt: skip
            print("|", " | ".join(cells), "|")
        accuracy, index = best_static(fit.policy, good, **given)
        print(f"| | best static in hindsight (point {index}) | | {accuracy:.2%} | | | | | | |")
        if folder is not None and load == LOADS[2]:
            LoadDisplay.from_simulation(found).save(folder / "load.png")
    if folder is not None:
        picture(shown).savefig(folder / "load-rising.png", dpi=120)


def picture(shown: dict[str, list[Simulation]]) -> Any:
    """Draw accuracy of all arrivals, and latency, as the load rises."""
    figure = new_figure((8.0, 3.6))
    right, slow = figure.subplots(1, 2)
    for name, runs in shown.items():
        label = name.replace("_", " ")
        right.plot(LOADS, [one.accuracy * one.slo_attainment for one in runs], "o-", label=label)
        slow.plot(LOADS, [(one.p99 or 0.0) * 1e3 for one in runs], "o-", label=label)
    right.set(xlabel="load of the top tier, asked alone", ylabel="right and in time, of all")
    slow.set(xlabel="load of the top tier, asked alone", ylabel="p99, ms", ylim=(0, None))
    slow.axhline(DEADLINE * 1e3, color="#999", linestyle=":")
    right.legend(fontsize="small")
    return figure


def _confidences(policy: cascade.Policy, recording: Recording) -> list[float | None]:
    from cascade.simulation.replaying import confidences_of

    return confidences_of(policy, recording)[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
