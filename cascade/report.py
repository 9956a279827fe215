"""Words for people: why an outcome came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.types import Disposition, Reason, seconds

if TYPE_CHECKING:
    from cascade.outcome import Outcome
    from cascade.types import Step

__all__ = ["explain_outcome"]


def explain_outcome(outcome: Outcome[Any]) -> str:
    """Render an outcome step by step.

    >>> from cascade.testing import outcome
    >>> print(explain_outcome(outcome("cat", confidence=0.9)).splitlines()[0])
    accepted (confident) by tier 'small', confidence 0.9000, covered by the promise
    """
    by = f" by tier {outcome.tier!r}" if outcome.tier else ""
    sure = "" if outcome.confidence is None else f", confidence {outcome.confidence:.4f}"
    cover = "covered by the promise" if outcome.covered else "not covered by a promise"
    if outcome.covered and outcome.reason is Reason.TOP:  # also where nothing is promised
        cover = "without loss: it is the top tier"
    budget = "" if outcome.deadline is None else f" of a budget of {seconds(outcome.deadline)}"
    lines = [f"{outcome.disposition} ({outcome.reason}){by}{sure}, {cover}"]
    # what the top tier says is taken, and then kept back
    passed = "withheld" if outcome.disposition is Disposition.ABSTAINED else "accepted"
    lines += [f"  {i}. {_step(step, passed)}" for i, step in enumerate(outcome.steps, 1)]
    parts = outcome.latency
    lines.append(
        f"  took {seconds(parts.total)}{budget}: input {seconds(parts.input)}, "
        f"transfer {seconds(parts.transfer)}, compute {seconds(parts.compute)}, "
        f"output {seconds(parts.output)}"
    )
    return "\n".join(
        [*lines, f"  point {outcome.point}, mode {outcome.mode}, policy {outcome.policy[:12]}"]
    )


def _step(step: Step, passed: str) -> str:
    if step.result == "refused":
        need = "" if step.eta is None else f": needs {seconds(step.eta)}"
        left = "" if step.remaining is None else f", {seconds(step.remaining)} left"
        return f"{step.tier}: refused ({step.reason}){need}{left}"
    sure = "" if step.confidence is None else f", confidence {step.confidence:.4f}"
    bar = "" if step.threshold is None else f" against threshold {step.threshold:.4f}"
    why = "" if step.reason is None else f" ({step.reason})"
    waited = step.latency.transfer
    queued = f", waited {seconds(waited)}, went ({step.went})" if step.went else ""
    rows = step.rows or 1
    batch = "" if rows == 1 else f" of a batch of {rows}"
    wrong = "" if step.error is None else f": {step.error}"
    result = passed if step.result == "accepted" else step.result
    return (
        f"{step.tier}: {result}{why}{sure}{bar}{queued}, "
        f"{seconds(step.latency.compute)} compute{batch}{wrong}"
    )
