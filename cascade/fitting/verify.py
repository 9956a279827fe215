"""Redo the arithmetic of a certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.fitting.certify import certified_prefix
from cascade.fitting.entry import Entry, EntryRule
from cascade.fitting.pvalues import binomial_p_values
from cascade.fitting.recording import Recording
from cascade.fitting.same import same_as
from cascade.fitting.search import Candidate, Rows, run_test
from cascade.fitting.split import learn_and_test
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cascade.fitting.certify import TestedPath
    from cascade.policy import Policy
    from cascade.policy.certificate import Certificate

__all__ = ["redo_test", "verify_certificate"]

_TOLD = 3  # points that are wrong alike
_CLOSE = 1e-6  # relative: p-values may come from another build of the same special function


def verify_certificate(cert: Certificate) -> list[str]:
    """List what does not add up in a certificate; an empty list means that all of it does.

    Every p-value is computed again from the losses, n and max_loss, and the certified prefix from
    the p-values: it ends before the first that exceeds alpha. Where the certificate covers adaptive
    use, losses are counted over the whole path, so they must not fall. The p-values of the net loss
    follow from the rows in their order, so that here only the prefix is checked.
    """
    if not cert.path:
        return ["the path has no points"]
    if cert.loss == "net":
        return [*_check_start(cert), *_check_prefix(cert, [p.p_value for p in cert.path])]
    counted = binomial_p_values([p.losses for p in cert.path], cert.n, cert.max_loss)
    return [
        *_check_start(cert), *_check_points(cert, counted.tolist()),
        *_check_prefix(cert, counted.tolist()),
    ]  # fmt: skip


def _check_start(cert: Certificate) -> list[str]:
    start = cert.path[0]
    strict = all(threshold >= NEVER for threshold in start.thresholds)
    if strict and start.losses == 0:
        return []
    return ["point 0 must be 'always escalate': every threshold 2.0, no losses"]


def _check_points(cert: Certificate, again: list[float]) -> list[str]:
    found = []
    for index, (point, p_value) in enumerate(zip(cert.path, again, strict=True)):
        if len(point.thresholds) != len(cert.tiers) - 1:
            found.append(
                f"point {index}: {len(point.thresholds)} thresholds, {len(cert.tiers)} tiers"
            )
        if not 0 <= point.losses <= cert.n:
            found.append(f"point {index}: {point.losses} losses in {cert.n} rows")
        elif index > 0 and not math.isclose(point.p_value, p_value, rel_tol=_CLOSE, abs_tol=1e-12):
            found.append(f"point {index}: p-value {point.p_value:.6g}, computed {p_value:.6g}")
    found = _few(found, "counts and p-values do not belong together")
    losses = np.array([point.losses for point in cert.path])
    if cert.covers == "adaptive" and (np.diff(losses) < 0).any():
        found.append("losses fall along a path that is said to cover adaptive use")
    return found


def _few(found: list[str], said: str) -> list[str]:
    """Tell of the first problems only: what is wrong with them is with those after them."""
    if len(found) <= _TOLD + 1:
        return found
    return [*found[:_TOLD], f"… and {len(found) - _TOLD} more points: {said}"]


def _check_prefix(cert: Certificate, again: list[float]) -> list[str]:
    holds = certified_prefix(np.array([0.0, *again[1:]]), cert.alpha)  # 0 holds by construction
    if cert.certified == holds:
        return []
    return [f"{cert.certified} points are said to be certified, the p-values certify {holds}"]


def redo_test(
    policy: Policy, recording: Any, *, same: str | Callable[[Any, Any], bool] | None = None,
    complete_only: bool = False,
) -> list[str]:  # fmt: skip
    """Test a policy's certificate again, on the recording it was fitted from.

    The rows of the test follow from the seed; scores are those of the policy's own tables. Returns
    what differs: losses, p-values, rows, and the points that hold; an empty list means that
    everything is as it is written. ``same`` and ``complete_only`` are those of the fit.
    """
    cert = policy.certificate
    if cert is None:
        return ["the policy has no certificate"]
    held = Recording.of(recording, complete_only=complete_only)
    if cert.digests.get("data") != held.digest:
        return ["this is another recording than the one that was tested"]
    held = held.select(cert.tiers)
    compare, rng = same_as(same), np.random.RandomState(cert.seed or 0)
    right = None if cert.loss == "disagreement" else held.right(compare)
    rows = Rows(held, right, held.agrees(compare) if right is None else None)
    if cert.fractions is not None:
        rows = rows.take(rng.permutation(learn_and_test(held.n, rng)[1]))
    places = tuple(range(len(cert.tiers)))
    margin = any(spec.confidence.score == "margin" for spec in policy.tiers[:-1])
    # all that matters of a calibrated score is that its tables are applied
    score = "by_label" if policy.calibrations else "margin" if margin else "plain"
    kind = Candidate(places, score, cert.loss, cert.covers)
    tables = {i: policy.calibrations[name] for i, name in enumerate(cert.tiers[:-1])
              if name in policy.calibrations}  # fmt: skip
    path = np.array([point.thresholds for point in cert.path])
    losses = rows.losses(places, cert.loss)
    scores = rows.scores(kind, tables)
    cuts = {point.skip_above for point in cert.path}
    if len(cuts) > 1:
        return ["the points enter by different rules (skip_above)"]
    if cert.path[-1].skip_above and policy.complexity is not None:
        rule = EntryRule(policy.complexity.intercept, policy.complexity.weights)
        scores = Entry(rule, cert.path[-1].skip_above[0]).applied(rows.recording, scores)
    tested = run_test(kind, path, scores, losses, cert.max_loss, cert.alpha)
    wrong = list(_wrong_points(cert, tested))
    return [*_wrong_whole(cert, tested), *_few(wrong, "these are not those of this recording")]


def _wrong_whole(cert: Certificate, tested: TestedPath) -> Iterator[str]:
    if cert.n != tested.n:
        yield f"{cert.n} rows are said to be tested, it was {tested.n}"
    if cert.certified != tested.certified:
        yield f"{cert.certified} points are said to be certified, it is {tested.certified}"


def _wrong_points(cert: Certificate, tested: TestedPath) -> Iterator[str]:
    counted = zip(cert.path, tested.losses.tolist(), tested.p_values.tolist(), strict=True)
    for i, (point, losses, p_value) in enumerate(counted):
        if not math.isclose(point.losses, losses, abs_tol=1e-6):
            yield f"point {i}: {point.losses:g} losses, counted {losses:g}"
        elif not math.isclose(point.p_value, p_value, rel_tol=_CLOSE, abs_tol=1e-12):
            yield f"point {i}: p-value {point.p_value:.6g}, computed {p_value:.6g}"
