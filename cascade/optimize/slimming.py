"""Choose among smaller models of one tier: the fastest that passes the gate and really is faster.

Three judgements, each on numbers of its own. Speed: candidates and the original take turns, and a
candidate goes on only if it is measurably faster (:mod:`cascade.optimize.timing`). Accuracy: those
that went on share alpha among them (Bonferroni), since one of them will be chosen. Speed again: the
fastest that passed is measured anew, so that having been chosen by its luck does not help it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.fitting.temperature import fit_temperature
from cascade.optimize.gate import Gate, accuracy_gate, gate_rows_needed
from cascade.optimize.lazily import first_line
from cascade.optimize.running import open_tier
from cascade.optimize.timing import GAIN, Comparison, compare, interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from cascade.optimize.data import Data, Parts
    from cascade.optimize.running import Running
    from cascade.policy import OnnxSpec, Policy

    Measure = Callable[[Sequence[str], int], Mapping[str, Sequence[float]]]

__all__ = ["ORIGINAL", "Candidate", "Slimming", "Variant", "refit_temperature", "select", "slim"]

ORIGINAL = "original"

_ROUNDS = 31  # a model's calls are short: more rounds than tune can afford, for the same choice


@attrs.frozen(eq=False)
class Variant:
    """A smaller model, or the ``problem`` that kept it from being made."""

    name: str
    model: bytes | None
    problem: str | None = None


@attrs.frozen
class Candidate:
    """What was found of one variant: median seconds of a single request, bytes, share right.

    ``speed`` compares it with the original; ``verdict`` says in words what became of it.
    """

    name: str
    verdict: str
    seconds: float | None = None
    bytes: int | None = None
    accuracy: float | None = None
    speed: Comparison | None = None
    gate: Gate | None = None


@attrs.frozen(eq=False)
class Slimming:
    """The outcome for one tier; ``kept`` names the variant to use, None when nothing wins.

    The first candidate is the original. ``model`` and ``temperature`` are those to use.
    """

    tier: str
    candidates: tuple[Candidate, ...]
    kept: str | None
    model: bytes
    temperature: float
    variants: dict[str, bytes] = attrs.field(factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, without the models."""
        found = [attrs.asdict(one) for one in self.candidates]
        return {
            "tier": self.tier, "kept": self.kept, "temperature": self.temperature,
            "candidates": found,
        }  # fmt: skip


def slim(
    policy: Policy, spec: OnnxSpec, model: bytes, variants: Sequence[Variant], parts: Parts,
    *, max_loss: float, alpha: float,
) -> Slimming:  # fmt: skip
    """Measure the variants of one tier, put them to the gate, and choose.

    ``parts.choose`` is for the gate and the clock, ``parts.learn`` for the temperature.
    """
    opened = {ORIGINAL: open_tier(spec, model, policy)}
    answers = {ORIGINAL: opened[ORIGINAL].answers(parts.choose)}
    opened[ORIGINAL].accuracy(answers[ORIGINAL][0], parts.choose.truth)  # or there is no gate
    problems = {one.name: one.problem for one in variants if one.problem is not None}
    for one in variants:
        if one.model is None:
            continue
        try:
            running = open_tier(spec, one.model, policy, sha256=None)
            answers[one.name] = _sound(running.answers(parts.choose), answers)
            opened[one.name] = running
        except Exception as error:  # noqa: BLE001  whatever a made model does, the others go on
            problems[one.name] = f"does not run: {first_line(error)}"
    runs = {name: running.single(parts.choose) for name, running in opened.items()}

    def measure(names: Sequence[str], rounds: int) -> Mapping[str, Sequence[float]]:
        return {
            name: times.tolist()
            for name, times in interleave({name: runs[name] for name in names}, rounds).items()
        }

    values = {name: answers[name][0] for name in opened}
    kept, found = select(values, parts.choose.truth, measure, max_loss=max_loss, alpha=alpha)
    sizes = {name: len(running.model) for name, running in opened.items()}
    candidates = [attrs.evolve(one, bytes=sizes[one.name]) for one in found]
    candidates += [Candidate(name, problem or "") for name, problem in problems.items()]
    chosen = opened[kept or ORIGINAL]
    temperature = spec.confidence.temperature
    if kept is not None:
        temperature = refit_temperature(chosen, parts.learn)
    models = {name: running.model for name, running in opened.items()}
    return Slimming(spec.name, tuple(candidates), kept, chosen.model, temperature, models)


def select(
    answers: Mapping[str, npt.NDArray[Any]], truth: npt.NDArray[Any] | None, measure: Measure,
    *, max_loss: float, alpha: float,
) -> tuple[str | None, list[Candidate]]:  # fmt: skip
    """Choose by measured numbers: the name of what to keep, and what was found of each.

    ``answers`` holds (n,) values per contender, the original's among them; ``measure(names,
    rounds)`` returns seconds per contender and round, taken in the same rounds.
    """
    times = measure([*answers], _ROUNDS)
    speeds = {name: compare(own, times[ORIGINAL]) for name, own in times.items()}
    faster = [name for name in answers if name != ORIGINAL and speeds[name].faster]
    level = alpha / max(1, len(faster))
    gates = {
        name: accuracy_gate(answers[ORIGINAL], values, truth, max_loss, level)
        for name, values in answers.items()
        if name != ORIGINAL
    }
    passed = {name: speeds[name].ratio for name in faster if gates[name].passes}
    kept, slower = _confirmed(_ranked(passed, gates), measure)
    found = []
    for name, values in answers.items():
        gate = gates.get(name)
        found.append(
            Candidate(
                name,
                "the original" if gate is None
                else _verdict(name, kept, speeds[name], gate, slower),
                float(np.median(times[name])),
                accuracy=None if truth is None else float((values == truth).mean()),
                speed=None if gate is None else speeds[name],
                gate=gate,
            )
        )  # fmt: skip
    return kept, found


def _ranked(passed: Mapping[str, float], gates: Mapping[str, Gate]) -> list[str]:
    """Rank by speed; among those as fast as the fastest, within the least gain, by fewest losses.

    Otherwise chance would choose among equals, and another one on each run.
    """
    left, order = dict(passed), []
    while left:
        near = min(left.values()) * (1.0 + GAIN)
        best = min((n for n in left if left[n] <= near), key=lambda n: gates[n].losses)
        order.append(best)
        del left[best]
    return order


def _confirmed(ranked: Sequence[str], measure: Measure) -> tuple[str | None, set[str]]:
    """Return the first that is measurably faster on fresh rounds too, and those that were not."""
    slower: set[str] = set()
    for name in ranked:
        again = measure([ORIGINAL, name], _ROUNDS)
        if compare(again[name], again[ORIGINAL]).faster:
            return name, slower
        slower.add(name)
    return None, slower


def _verdict(name: str, kept: str | None, speed: Comparison, gate: Gate, slower: set[str]) -> str:
    if name == kept:
        return "kept"
    if not speed.faster:
        return "slower" if speed.ratio > 1.0 else "not measurably faster"
    if not gate.passes:
        needed = gate_rows_needed(gate.max_loss, gate.level)
        more = f"; {needed} rows are the least that could" if needed > gate.n else ""
        return f"refused by the gate, p = {gate.p_value:.2g} > {gate.level:.2g}{more}"
    return (
        "not measurably faster when measured again"
        if name in slower
        else "passes; another is as fast or faster"
    )


def refit_temperature(running: Running, learn: Data) -> float:
    """Fit the temperature of a changed model on rows with truth; without, it stays as it was."""
    before = running.spec.confidence.temperature
    kind = running.tier.kind
    if learn.truth is None or kind not in {"probabilities", "logits"}:
        return before
    outputs = running.outputs(learn)
    labels = running.labels or range(outputs.shape[1])
    places = {label: at for at, label in enumerate(labels)}
    codes = np.array([places.get(label, -1) for label in learn.truth.tolist()])
    known = codes >= 0
    return fit_temperature(outputs[known], codes[known], logits=kind == "logits")


def _sound(
    answers: tuple[npt.NDArray[Any], npt.NDArray[Any]], others: Mapping[str, Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Refuse a model whose outputs serving refuses: NaN, or probabilities that do not sum to 1."""
    faulty = np.isnan(answers[1]) & ~np.isnan(others[ORIGINAL][1])
    if faulty.any():
        raise ValueError(f"serving refuses its outputs on {faulty.sum()} of {len(faulty)} rows")
    return answers
