"""What profile, tune, quantize and prune reach: ``python -m tests.benchmarks.optimize [REPORT]``.

The demo's three tiers on MNIST-5k, and above them a convolutional model of our own making. With a
folder REPORT, the report on all candidates is written there. Takes about eight minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import numpy as np
import onnx
from onnx import numpy_helper

from cascade import Certificate, Policy, Router
from cascade.cores import find_cores
from cascade.demo.data import load
from cascade.demo.train import ALPHA, MAX_LOSS, train
from cascade.optimize.changing import change_tier
from cascade.optimize.data import Data, split
from cascade.optimize.exploring import Exploration, explore
from cascade.optimize.halving import FULL, choose
from cascade.optimize.objectives import Meter
from cascade.optimize.running import load_models, open_tier, tier_named
from cascade.optimize.slimming import refit_temperature, select
from cascade.optimize.timing import ROUNDS, compare, interleave
from cascade.optimize.tuning import setting_of, space
from cascade.policy import Escalation
from cascade.policy.certificate import PathPoint
from cascade.types import NEVER
from tests.benchmarks.convnet import convnet

RUNS, BLOCK = 10, 50
TOP = "conv"


def prepare(folder: Path) -> tuple[Policy, Data]:
    """Train the tiers, write the ladder, and return it with the rows that nothing was fitted on."""
    held = load(0, 1_000)
    half = len(held.fit_rows) // 2
    train(held.fit_rows, held.fit_labels, 0, lambda _: None).export(folder)
    (folder / f"{TOP}.onnx").write_bytes(convnet(held.fit_rows[:half], held.fit_labels[:half]))
    names = ("logistic", "forest", "svc", TOP)
    tiers = [{"name": name, "kind": "onnx", "model": f"{name}.onnx"} for name in names]
    tree = {"version": 1, "name": "digits", "deadline": "1s", "tiers": tiers}
    policy = Policy.from_dict({**tree, "mode": "top_only"}, root=folder)
    data = Data(
        {"": np.concatenate([held.fit_rows[half:], held.held_rows])},
        np.concatenate([held.fit_labels[half:], held.held_labels]),
    )
    learn, warm = split(data).learn, []
    for spec, model in load_models(policy).values():
        warmth = refit_temperature(open_tier(spec, model, policy), learn)
        confidence = attrs.evolve(spec.confidence, temperature=warmth, score="max_probability")
        warm.append(attrs.evolve(spec, confidence=confidence))
    return attrs.evolve(policy, tiers=tuple(warm)), data


# -- the ladder ------------------------------------------------------------------------------------


def served(policy: Policy, found: Exploration, data: Data, folder: Path) -> dict[str, float]:
    """Serve rows by both ladders in turn; mean seconds of a request, the router included."""
    rows = split(data).certify
    taken: dict[str, list[float]] = {"as it is": [], "chosen": []}
    points = {"as it is": found.before, "chosen": found.chosen}
    routers = {
        name: Router(_policy(policy, found, point, folder / name.replace(" ", "-")), env={})
        for name, point in points.items()
    }
    for router in routers.values():
        router.warmup()
    for start in range(0, rows.n, BLOCK):
        for name, router in routers.items():
            for i in range(start, min(start + BLOCK, rows.n)):
                row = rows.row(i)
                began = time.perf_counter()
                router.route(row)
                taken[name].append(time.perf_counter() - began)
    for router in routers.values():
        router.close()
    return {name: float(np.mean(times)) for name, times in taken.items()}


def _policy(policy: Any, found: Exploration, point: Any, folder: Path) -> Policy:
    folder.mkdir()
    tiers = []
    for name, variant in point.steps:
        spec = tier_named(policy, name)
        (folder / spec.model).write_bytes(found.models[name, variant])
        confidence = attrs.evolve(spec.confidence, temperature=found.temperatures[name, variant])
        tiers.append(attrs.evolve(spec, confidence=confidence))
    strict = PathPoint(thresholds=(NEVER,) * (len(tiers) - 1), losses=0, p_value=0.0)
    held = PathPoint(thresholds=point.thresholds, losses=point.losses, p_value=point.p_value)
    proof = Certificate(
        max_loss=MAX_LOSS, alpha=ALPHA, loss="gross", covers="fixed_point", n=point.n,
        tiers=tuple(spec.name for spec in tiers), path=(strict, held), certified=2,
    )  # fmt: skip
    return attrs.evolve(
        policy, tiers=tuple(tiers), mode="enforce", certificate=proof, path=folder / "policy.yaml",
        escalation=Escalation(certificate="certificate.json"),
    )  # fmt: skip


# -- what must not be chosen -----------------------------------------------------------------------


def planted(policy: Policy, data: Data) -> tuple[Counter[str], dict[str, list[Any]]]:
    """Choose ten times among real variants, one of them slow, and a fast one that is inaccurate."""
    found = change_tier(policy, TOP, data, "quantize", max_loss=MAX_LOSS, alpha=ALPHA)
    models = dict(found.variants)
    spec = tier_named(policy, TOP)
    models["planted: fast, inaccurate"] = _damaged(found.model)
    rows = split(data).choose
    opened = {name: open_tier(spec, model, policy, sha256=None) for name, model in models.items()}
    answers = {name: one.answers(rows)[0] for name, one in opened.items()}
    runs = {name: one.single(rows) for name, one in opened.items()}

    def measure(names: Any, rounds: int) -> Any:
        return interleave({name: runs[name] for name in names}, rounds)

    kept: Counter[str] = Counter()
    seen: dict[str, list[Any]] = {"dynamic int8": [], "planted: fast, inaccurate": []}
    for _ in range(RUNS):
        name, candidates = select(answers, rows.truth, measure, max_loss=MAX_LOSS, alpha=ALPHA)
        kept[str(name)] += 1
        for one in candidates:
            if one.name in seen:
                seen[one.name].append(one)
    return kept, seen


def _damaged(model: bytes) -> bytes:
    """Turn the sign of a part of the head's weights: as fast as before, and wrong more often."""
    loaded = onnx.load_from_string(model)
    for one in loaded.graph.initializer:
        array = numpy_helper.to_array(one).copy()
        if array.ndim == 2 and array.dtype == np.float32:
            array[::3] *= -1
        elif array.dtype == np.int8 and array.ndim == 2:
            array[::3] = np.negative(np.maximum(array[::3], -127))
        else:
            continue
        one.CopyFrom(numpy_helper.from_array(array, one.name))
    return bytes(loaded.SerializeToString())


# -- tune ------------------------------------------------------------------------------------------


def tuned(policy: Policy, data: Data, tier: str, objective: str, runs: int) -> list[str]:
    """Compare tune's choices with the exhaustive optimum.

    The best of many medians is the luckiest too, so it and the choices are measured anew, in turns.
    """
    spec, model = load_models(policy)[tier]
    kept: dict[Any, Any] = {}

    def open_one(setting: Any) -> Any:
        settings = {key: getattr(setting, key) for key in
                    ("provider", "threads", "spinning", "optimization")}  # fmt: skip
        key = tuple(settings.values())
        if key not in kept:
            kept[key] = open_tier(spec, model, policy, **settings)
        return kept[key]

    now = setting_of(spec)
    settings = space(now, objective, find_cores().usable, ["CPUExecutionProvider"])
    meter = Meter(open_one, data, objective, None)
    choices = [choose(now, settings, meter) for _ in range(runs)]
    whole = dict(zip(settings, map(median, meter(settings, FULL)), strict=True))
    best = min(whole, key=whole.__getitem__)
    common, times = Counter(choice.after for choice in choices).most_common(1)[0]
    share = median(choice.measurements for choice in choices) / (len(settings) * FULL)
    some = list({best, *(choice.after for choice in choices)})
    fresh = dict(zip(some, meter(some, ROUNDS), strict=True))
    gap = median(compare(fresh[choice.after], fresh[best]).ratio for choice in choices)
    words = f"{common.workers} × {common.threads} threads, batch {common.cap}"
    words += ", spinning" if common.spinning else ""
    return [
        tier, objective, str(len(settings)), f"{words}, {common.optimization}",
        f"{gap:.2f} ×", f"{share:.0%}", f"{times} of {runs}",
    ]  # fmt: skip


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        policy, data = prepare(folder / "bundle")
        print(f"{find_cores().usable} cores\n")
        found = explore(policy, data, max_loss=MAX_LOSS, alpha=ALPHA)
        if len(sys.argv) > 1:
            _report(found, Path(sys.argv[1]))
        _ladders(found, served(policy, found, data, folder))
        kept, seen = planted(policy, data)
        print(f"\nquantize, {RUNS} runs: kept {dict(kept)}\n")
        for name, runs in seen.items():
            ratio = median(one.speed.ratio for one in runs)
            verdicts = Counter(one.verdict for one in runs)
            print(f"- {name}: {ratio:.2f} × the time; {dict(verdicts)}")
        print("\n| tier | objective | settings | tune's choice | by the best | measured | same |")
        print("|---|---|---:|---|---:|---:|---:|")
        for tier, objective in ((TOP, "p50"), ("forest", "p50"), ("forest", "throughput")):
            print(f"| {' | '.join(tuned(policy, data, tier, objective, RUNS))} |", flush=True)


def _ladders(found: Exploration, times: dict[str, float]) -> None:
    print("| ladder | in the models, µs | served, µs | accuracy | lost | p |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, point in (("as it is", found.before), ("chosen", found.chosen)):
        if point is not None:
            print(
                f"| {name}: {point.name} | {point.seconds * 1e6:.0f} | {times[name] * 1e6:.0f} "
                f"| {point.accuracy:.1%} | {point.losses} of {point.n} | {point.p_value:.2g} |"
            )
    if found.before is not None and found.chosen is not None:
        ratio = found.chosen.seconds / found.before.seconds
        print(
            f"\nratio: {ratio:.2f} in the models, {times['chosen'] / times['as it is']:.2f} served"
        )


def _report(found: Exploration, folder: Path) -> None:
    from cascade.cli.report import markdown
    from cascade.optimize.displays import LadderDisplay

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(found), encoding="utf-8")
    LadderDisplay.from_exploration(found).save(folder / "report.png")


if __name__ == "__main__":
    main()
