"""The demo from end to end; every number is measured in the run that prints it."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from cascade.demo.data import load, stream_order
from cascade.demo.plots import save
from cascade.demo.result import DemoResult, Held, Run, Timely
from cascade.demo.serve import CACHED, CASCADE, serve
from cascade.demo.train import ALPHA, MAX_LOSS, require, train
from cascade.optimize.write import check_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from cascade.demo.data import Split
    from cascade.demo.serve import Served
    from cascade.policy import Certificate

    Array = npt.NDArray[Any]

__all__ = ["run"]

HELD_OUT, REPEATS = 1_000, 500
DEADLINE = "50ms"


def run(
    out: Path, seed: int, progress: Callable[[str], None], *, rows: int | None = None,
    held_out: int = HELD_OUT, repeats: int = REPEATS,
) -> DemoResult:  # fmt: skip
    """Run the demo into the folder ``out``; ``rows`` takes only so many of the data's.

    Raises:
        MissingExtra: the extra ``demo`` is not installed.
        ValueError: ``out`` cannot be written.
        ExportError: something else than a bundle of the demo stands where its own would be.
    """
    start = time.perf_counter()

    def say(what: str) -> None:
        progress(f"[{time.perf_counter() - start:5.1f} s] {what}")

    require()
    bundle = out / "bundle"
    _claim(out, bundle)
    say("loading MNIST-5k")
    split = load(seed, held_out, rows)
    say(f"training three tiers; {len(split.held_rows):,} rows are held out for the stream")
    classifier = train(split.fit_rows, split.fit_labels, seed, say)
    say(f"exporting the bundle to {bundle}")
    classifier.export(
        bundle, deadline=DEADLINE, cache={"entries": 10_000, "bytes": "64MB", "ttl": "5m"}
    )
    _save_rows(out, split)
    order = stream_order(held_out, repeats, seed)
    say(f"serving {len(order):,} single requests, five ways in turn")
    served = serve(bundle, split.held_rows, order)
    say("drawing")
    result = _judge(split, order, served, classifier.certificate_, bundle, out)
    return _timed(result, time.perf_counter() - start)


def _claim(out: Path, bundle: Path) -> None:
    """Refuse at once what would fail after the training."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=out).cleanup()
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from error
    check_target(bundle)


def _save_rows(out: Path, split: Split) -> None:
    """Save the rows that no tier was trained on, for ``cascade profile`` and its like."""
    half = len(split.fit_rows) // 2
    np.savez_compressed(
        out / "rows.npz",
        X=np.concatenate([split.fit_rows[half:], split.held_rows]),
        y=np.concatenate([split.fit_labels[half:], split.held_labels]),
    )


def _judge(
    split: Split, order: Array, served: dict[str, Served], certificate: Certificate, bundle: Path,
    out: Path,
) -> DemoResult:  # fmt: skip
    names = certificate.tiers
    truth = split.held_labels[order]
    runs = {
        "always_small": _run(served[names[0]], truth),
        "always_large": _run(served[names[-1]], truth),
        CASCADE: _run(served[CASCADE], truth),
        CACHED: _run(served[CACHED], truth),
        "oracle": _oracle([served[name] for name in names], truth),
    }
    first = np.unique(order, return_index=True)[1]  # a row's first asking: the promise is per row
    top, answer = served[names[-1]].values[first], served[CASCADE].values[first]
    lost = int(((top == truth[first]) & (answer != truth[first])).sum())
    p_value = float(binom.sf(lost - 1, len(first), MAX_LOSS))
    point = certificate.path[certificate.certified - 1]
    curve = [
        _replayed(p.thresholds, [served[name] for name in names], truth) for p in certificate.path
    ]
    plots = save(out, curve, certificate.certified - 1, runs, served)
    tiers = [
        {"name": name, **_row(_run(served[name], truth)), "bytes": _bytes(bundle, name)}
        for name in names
    ]
    facts = {"max_loss": MAX_LOSS, "alpha": ALPHA, "n": certificate.n, "losses": point.losses}
    return DemoResult(
        tiers, runs, facts, Held(lost, len(first), p_value), _timely(served[CASCADE]),
        served[CASCADE].ledger,
        _verdict(runs, served[names[0]].values[first], top, truth[first]),
        [str(path) for path in plots], str(bundle), 0.0,
    )  # fmt: skip


def _run(served: Served, truth: Array) -> Run:
    p50, p99 = np.quantile(served.seconds, [0.5, 0.99]).tolist()
    accuracy = float((served.values == truth).mean())
    return Run(accuracy, float(served.seconds.mean()), p50, p99, served.calls)


def _timely(served: Served) -> Timely:
    return Timely(served.deadline, len(served.values), served.late, served.degraded)


def _row(found: Run) -> dict[str, float]:
    return {"accuracy": found.accuracy, "p50": found.p50, "p99": found.p99}


def _oracle(tiers: list[Served], truth: Array) -> Run:
    """The tier that is right and cheapest by its measured mean; where none is, the cheapest."""
    tiers = sorted(tiers, key=lambda tier: float(tier.seconds.mean()))
    right = np.array([tier.values == truth for tier in tiers])
    chosen = right.argmax(axis=0)  # 0 where no tier is right
    seconds = np.array([tier.seconds for tier in tiers])[chosen, np.arange(len(truth))]
    p50, p99 = np.quantile(seconds, [0.5, 0.99]).tolist()
    calls = {tier.name: float((chosen == i).mean()) for i, tier in enumerate(tiers)}
    return Run(float(right.any(axis=0).mean()), float(seconds.mean()), p50, p99, calls)


def _replayed(
    thresholds: tuple[float, ...], tiers: list[Served], truth: Array
) -> tuple[float, float]:
    """Mean seconds and accuracy at one point, from what each tier alone did with each request."""
    waiting = np.ones(len(truth), dtype=bool)
    seconds, right = np.zeros(len(truth)), np.zeros(len(truth), dtype=bool)
    for i, tier in enumerate(tiers):
        top = i == len(tiers) - 1
        if not top and thresholds[i] > 1.0:
            continue
        seconds[waiting] += tier.seconds[waiting]
        done = waiting & (tier.confidences >= thresholds[i]) if not top else waiting
        right[done] = tier.values[done] == truth[done]
        waiting = waiting & ~done
    return float(seconds.mean()), float(right.mean())


def _bytes(bundle: Path, name: str) -> int:
    return (bundle / f"{name}.onnx").stat().st_size


def _verdict(runs: dict[str, Run], small: Array, top: Array, truth: Array) -> str:
    lost = float(((top == truth) & (small != truth)).mean())
    if lost <= MAX_LOSS:
        return f"No: the small tier alone loses only {lost:.2%}; serve it without a cascade."
    faster = runs["always_large"].mean / runs[CASCADE].mean
    points = (runs[CASCADE].accuracy - runs["always_large"].accuracy) * 100
    if faster <= 1.0:
        return f"No: the cascade takes {1 / faster:.2f} times as long as the top tier alone."
    return (
        f"Yes: {faster:.1f} times as fast as always asking the top tier on average, "
        f"at {points:+.2f} points of accuracy; the small tier alone would lose {lost:.1%}."
    )


def _timed(result: DemoResult, seconds: float) -> DemoResult:
    import attrs

    return attrs.evolve(result, seconds=seconds)
