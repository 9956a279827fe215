"""What ``cascade.fit`` saves on the recordings: ``python -m tests.benchmarks.savings DATA``.

Twenty fixed reshuffles each: half the rows to fit, half to judge. Beside it the exact gross rule on
the first and last tier, the naive threshold (lowest loss within the bound on the rows it was fitted
on), split-conformal with Hoeffding's bound, and ucci-router where it is installed: it calibrates on
60 % of the rows to fit and picks the cheapest threshold within the bound on the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np

import cascade
from cascade.fitting import deciding_tiers, midpoints
from cascade.fitting.paths import call_shares, oracle_cost
from cascade.fitting.recording import Recording
from cascade.fitting.search import Rows

UCCI = importlib.util.find_spec("ucci") is not None
RESHUFFLES, MAX_LOSS, ALPHA = 20, 0.01, 0.1
NAMES = (
    "frugalml_command", "frugalml_fluent", "frugalml_imdb", "frugalml_waimai", "mnist5k",
)  # fmt: skip


def judged(found: cascade.Fit | None, held: Recording) -> tuple[float, float]:
    """Return the share of cost saved and the loss of accuracy on other rows."""
    if found is None:
        return 0.0, 0.0
    tiers = [held.names.index(spec.name) for spec in found.policy.tiers]
    rows = Rows(held, held.right(), None)
    by_place = {held.names.index(name): t for name, t in found.policy.calibrations.items()}
    scores = rows.scores(found.candidate, by_place)
    deciding = deciding_tiers(scores, found.thresholds)
    shares = call_shares(deciding, found.thresholds, len(tiers))
    right = rows.right[:, tiers]
    loss = right[:, -1].mean() - np.take_along_axis(right, deciding[:, None], axis=1).mean()
    return 1.0 - shares @ np.array(found.costs)[tiers] / found.costs[-1], loss


def attempt(held: Recording, **settings: object) -> cascade.Fit | None:
    """Fit, or return None where nothing can be certified."""
    try:
        return cascade.fit(held, max_loss=MAX_LOSS, alpha=ALPHA, **settings)
    except cascade.CannotCertify:
        return None


def simple(fitted: Recording, judge: Recording, slack: float) -> tuple[float, float]:
    """Fit the lowest threshold whose loss is within the bound less ``slack``: first to last."""
    ends = [fitted.names[0], fitted.names[-1]]
    fitted, judge = fitted.select(ends), judge.select(ends)
    sure = fitted.tiers[0].confidence
    right = fitted.right().astype(int)
    order = np.argsort(-sure)
    running = np.cumsum((right[:, 1] - right[:, 0])[order]) / fitted.n
    grid = midpoints(sure)
    accepted = fitted.n - np.searchsorted(sure[order][::-1], grid)
    loss = np.where(accepted > 0, running[np.maximum(accepted - 1, 0)], 0.0)
    good = np.flatnonzero(loss <= MAX_LOSS - slack)
    threshold = grid[good[-1]] if len(good) else 2.0
    taken = judge.tiers[0].confidence >= threshold
    costs, truth = judge.costs(), judge.right().astype(int)
    spent = (costs[0] if threshold <= 1 else 0.0) + (1.0 - taken.mean()) * costs[1]
    return 1.0 - spent / costs[1], float((truth[:, 1] - truth[:, 0])[taken].sum() / judge.n)


def published(fitted: Recording, judge: Recording) -> tuple[float, float]:
    """Let ucci-router calibrate and choose, first to last tier."""
    ucci = importlib.import_module("ucci")
    ends = [fitted.names[0], fitted.names[-1]]
    fitted, judge = fitted.select(ends), judge.select(ends)
    costs = judge.costs()
    cut = int(0.6 * fitted.n)
    unsure, right = 1.0 - fitted.tiers[0].confidence, fitted.right().astype(float)
    router = ucci.UCCIRouter(*costs.tolist())
    router.calibrate(unsure[:cut], 1.0 - right[:cut, 0])
    target = right[cut:, 1].mean() - MAX_LOSS
    try:
        router.choose_threshold(unsure[cut:], right[cut:, 0], right[cut:, 1], float(target))
    except ucci.InfeasibleTargetError:
        return 0.0, 0.0
    taken = ~router.escalate(1.0 - judge.tiers[0].confidence)
    truth = judge.right().astype(int)
    spent = (costs[0] if taken.any() else 0.0) + (1.0 - taken.mean()) * costs[1]
    return 1.0 - spent / costs[1], float((truth[:, 1] - truth[:, 0])[taken].sum() / judge.n)


def measure(name: str, folder: Path) -> list[str]:
    """Return the cells of one recording's row."""
    held = Recording.read(folder / f"{name}.csv.gz")
    ways: dict[str, list[tuple[float, float]]] = {}
    oracle = []
    for seed in range(RESHUFFLES):
        order = np.random.default_rng(seed).permutation(held.n)
        fitted, judge = held.take(order[: held.n // 2]), held.take(order[held.n // 2 :])
        ends = [held.names[0], held.names[-1]]
        plain = attempt(fitted.select(ends), loss="gross", score="plain")
        ours = attempt(fitted)
        hoeffding = np.sqrt(np.log(1 / ALPHA) / 2 / fitted.n)
        for way, found in (
            ("fit", judged(ours, judge)),
            ("gross", judged(plain, judge.select(ends))),
            ("naive", simple(fitted, judge, 0.0)),
            ("Hoeffding", simple(fitted, judge, hoeffding)),
            ("ucci", published(fitted, judge) if UCCI else (np.nan, np.nan)),
        ):
            ways.setdefault(way, []).append(found)
        costs = judge.costs()
        oracle.append(1.0 - oracle_cost(judge.right(), costs) / costs[-1])
    best = float(np.mean(oracle))
    cells = [name]
    for found in ways.values():
        saved, loss = np.array(found).T
        cells.append(f"{saved.mean():.1%} ({saved.mean() / best:.0%}), {(loss > MAX_LOSS).sum()}")
    return [*cells, f"{best:.1%}"]


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    print("| recording | `cascade.fit` | exact gross | naive | Hoeffding | ucci-router | oracle |")
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        print("| " + " | ".join(measure(name, folder)) + " |", flush=True)


if __name__ == "__main__":
    main()
