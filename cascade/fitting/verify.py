"""Redo the arithmetic of a certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cascade.fitting.pvalues import binomial_p_values
from cascade.types import NEVER

if TYPE_CHECKING:
    from cascade.policy.certificate import Certificate

__all__ = ["verify_certificate"]

_CLOSE = 1e-6  # relative: p-values may come from another build of the same special function


def verify_certificate(cert: Certificate) -> list[str]:
    """List what does not add up in a certificate; an empty list means that all of it does.

    Every p-value is computed again from the losses, n and max_loss, and the certified prefix from
    the p-values: it ends before the first that exceeds alpha. Where the certificate covers adaptive
    use, losses are counted over the whole path, so they must not fall.
    """
    if not cert.path:
        return ["the path has no points"]
    if cert.loss == "net":
        return ["the loss 'net' is tested by betting, which this version cannot redo"]
    return [*_check_start(cert), *_check_points(cert), *_check_prefix(cert)]


def _check_start(cert: Certificate) -> list[str]:
    start = cert.path[0]
    strict = all(threshold >= NEVER for threshold in start.thresholds)
    if strict and start.losses == 0:
        return []
    return ["point 0 must be 'always escalate': every threshold 2.0, no losses"]


def _check_points(cert: Certificate) -> list[str]:
    found = []
    again = binomial_p_values([point.losses for point in cert.path], cert.n, cert.max_loss)
    for index, (point, p_value) in enumerate(zip(cert.path, again.tolist(), strict=True)):
        if len(point.thresholds) != len(cert.tiers) - 1:
            found.append(
                f"point {index}: {len(point.thresholds)} thresholds, {len(cert.tiers)} tiers"
            )
        if not 0 <= point.losses <= cert.n:
            found.append(f"point {index}: {point.losses} losses in {cert.n} rows")
        elif index > 0 and not math.isclose(point.p_value, p_value, rel_tol=_CLOSE, abs_tol=1e-12):
            found.append(f"point {index}: p-value {point.p_value:.6g}, computed {p_value:.6g}")
    losses = np.array([point.losses for point in cert.path])
    if cert.covers == "adaptive" and (np.diff(losses) < 0).any():
        found.append("losses fall along a path that is said to cover adaptive use")
    return found


def _check_prefix(cert: Certificate) -> list[str]:
    again = binomial_p_values([point.losses for point in cert.path], cert.n, cert.max_loss)
    again[0] = 0.0  # 'always escalate' loses nothing by construction
    failed = np.flatnonzero(again > cert.alpha)
    holds = int(failed[0]) if len(failed) else len(cert.path)
    if cert.certified == holds:
        return []
    return [f"{cert.certified} points are said to be certified, the p-values certify {holds}"]
