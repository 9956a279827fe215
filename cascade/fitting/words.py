"""The report of a fit, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from cascade.fitting.result import Fit

__all__ = ["LOST", "fit_report", "warnings_of"]

LOST = {
    "gross": "the top tier is right and the cascade is wrong",
    "net": "the top tier's accuracy minus the cascade's",
    "disagreement": "the cascade's answer differs from the top tier's",
}
_SCORES = {
    "plain": "confidence as it was recorded",
    "margin": "margin between the best two answers",
    "by_label": "confidence together with the label",
    "learned": "learned from confidence, label and what the input shows",
}
_SHOWN = 5
_HARDLY = 0.05  # saved: with less, a second model is more trouble than it is worth


def fit_report(fit: Fit) -> str:
    """Say what is promised, what it costs and saves, and what else was tried."""
    return "\n".join(_lines(fit))


def _lines(fit: Fit) -> Iterator[str]:
    cert, names = fit.certificate, fit.certificate.tiers
    point = cert.path[cert.certified - 1]
    yield f"Ladder   {' → '.join(names)}"
    left_out = [name for name in fit.recording.names if name not in names]
    if left_out:
        yield f"         left out: {', '.join(left_out)} (a request would cost more with them)"
    yield (
        f"Promise  with confidence {1 - cert.alpha:.4g}, a loss of at most {cert.max_loss:.4g}: "
        f"{LOST[cert.loss]}"
    )
    yield (
        f"         tested on {cert.n:,} rows: {point.losses:g} lost"
        f"{' on balance' if cert.loss == 'net' else ''}, p = {point.p_value:.3g}"
    )
    yield f"         {cert.certified - 1} operating points hold: {_covers(cert.covers)}"
    limits = ", ".join(f"{name} {t:.4g}" for name, t in zip(names, point.thresholds, strict=False))
    yield f"Accept   from {limits} on; score: {_SCORES[fit.candidate.score]}"
    if fit.entry is not None:
        yield (
            f"Entry    inputs of complexity {fit.entry.cut:.3g} and more skip {names[0]}: expected "
            f"to save {fit.entry.saves:.4g} per request"
        )
    calls = ", ".join(f"{n} {share:.1%}" for n, share in zip(names, point.escalation, strict=True))
    yield f"Calls    {calls}"
    yield (
        f"Cost     {fit.cost:.4g} per request; always {names[-1]} {fit.cost_top:.4g}: "
        f"saves {fit.saves:.1%}"
    )
    if fit.cost_oracle is not None and fit.cost_oracle < fit.cost_top:
        best = 1 - fit.cost_oracle / fit.cost_top
        yield f"         an oracle would save {best:.1%}: this is {fit.saves / best:.0%} of it"
    if fit.accuracy is not None:
        told = ", ".join(f"{name} {share:.2%}" for name, share in fit.accuracy.items())
        yield f"Accuracy {told}"
    yield f"Verdict  {_verdict(fit)}"
    for warning in warnings_of(fit):
        yield f"warning: {warning}"
    if len(fit.judged) > 1:
        yield "Tried    on the learning part, by the cost expected there:"
        for one in fit.judged[:_SHOWN]:
            kind = one.candidate
            ladder = " → ".join(fit.recording.names[tier] for tier in kind.tiers)
            mark = "  (chosen)" if kind == fit.candidate else ""
            yield f"           {one.cost:.4g}  {ladder}, {kind.score}, {kind.loss}{mark}"


def _covers(covers: str) -> str:
    if covers == "adaptive":
        return "requests may move among them"
    return "each for itself, load may not move among them"


def _verdict(fit: Fit) -> str:
    cert = fit.certificate
    point = cert.path[cert.certified - 1]
    if all(threshold == 0.0 for threshold in point.thresholds[:1]):
        return f"serve {cert.tiers[0]!r} alone: even never escalating keeps the promise"
    if fit.saves < _HARDLY:
        return (
            f"do not cascade: {fit.saves:.1%} of the cost hardly pays for a second model; ask "
            f"{cert.tiers[-1]!r} alone"
        )
    return f"cascade: {fit.cost_top / fit.cost:.2f} × cheaper than {cert.tiers[-1]!r} alone"


def warnings_of(fit: Fit) -> list[str]:
    """Name what the promise rests on and the recording puts in doubt."""
    held, found = fit.recording, []
    if held.text is not None:
        repeated = held.n - len(set(held.text.tolist()))
        if repeated > held.n // 100:
            found.append(
                f"{repeated:,} of {held.n:,} rows repeat an earlier input: the promise is per row, "
                "and rows that repeat are not independent"
            )
    if held.at is not None and _rising(held.at):
        found.append(
            "rows are in order of time: the promise is for requests like all of them together; if "
            "requests drift, fit on recent ones"
        )
    costs = dict(zip(held.names, fit.costs, strict=True))
    if fit.accuracy is not None:
        for a in held.names:
            better = [
                b for b in held.names
                if b != a and costs[b] <= costs[a] and fit.accuracy[b] >= fit.accuracy[a]
                and (costs[b], fit.accuracy[b]) != (costs[a], fit.accuracy[a])
            ]  # fmt: skip
            if better:
                why = f"{better[0]} is no dearer and, on these rows, no less accurate"
                found.append(f"{a} is dominated: {why}")
    return found


def _rising(times: npt.NDArray[Any]) -> bool:
    """Whether times are in order: numbers, or what they are spelled in numbers, texts, dates."""
    for kind in (np.float64, times.dtype):
        try:
            read = times.astype(kind)
            return bool((read[1:] >= read[:-1]).all())
        except (TypeError, ValueError):  # no numbers; or of several kinds, then nothing is known
            continue
    return False
