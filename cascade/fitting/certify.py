"""Test a path in its order and say how far its promise holds: the making of a certificate.

Fixed-sequence testing (Angelopoulos et al., 'Learn then Test', arXiv 2110.01052): points are tested
from the strictest on, and the first that fails ends it. No correction for their number is needed,
and all points before it hold at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.errors import CannotCertify
from cascade.fitting.paths import call_shares, deciding_tiers
from cascade.fitting.pvalues import binomial_p_values, rows_needed
from cascade.policy.certificate import Certificate, PathPoint
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

__all__ = [
    "TestedPath", "cannot_certify", "certificate_of", "certified_prefix", "fixed_sequence_test",
    "thinned", "walk",
]  # fmt: skip

_KEPT = 64  # points of a two-tier path that a certificate lists


@attrs.frozen(eq=False)
class TestedPath:
    """A path with what was counted along it, on n rows; P points, K tiers.

    ``thresholds`` (P, K-1), ``losses`` (P,), ``p_values`` (P,), ``calls`` (P, K) the share of rows
    that call each tier, ``certified`` the number of leading points that hold.
    """

    __test__ = False  # not a test case, whatever its name begins with

    n: int
    max_loss: float
    alpha: float
    covers: str
    thresholds: Floats
    losses: npt.NDArray[Any]
    p_values: Floats
    calls: Floats
    certified: int


def fixed_sequence_test(
    path: Floats, confidences: Floats, losses: Bools, *, max_loss: float, alpha: float,
    covers: str = "adaptive",
) -> TestedPath:  # fmt: skip
    """Test the points of ``path`` (P, K-1), strictest first, on n rows that did not shape it.

    Two tiers may shape it (see :func:`~cascade.fitting.paths.two_tier_path`). ``confidences`` and
    ``losses`` are (n, K-1). With ``covers="adaptive"`` what is counted at a point is the rows that
    were lost at any point up to there, so that the promise covers moving between certified points
    per request; ``"fixed_point"`` counts each point for itself. The first point must be 'always
    escalate': it loses nothing by construction, so that its p-value is 0 and it always holds.
    """
    if not (path[0] == NEVER).all():
        raise ValueError("a path must begin with 'always escalate' (2.0 for every tier)")
    nested = path.shape[1] == 1
    if nested and (np.diff(path[:, 0]) > 0.0).any():
        raise ValueError("the thresholds of a two-tier path must fall")
    count = _count_nested if nested else _count
    counted, calls = count(path, confidences, losses, running=covers == "adaptive")
    p_values = binomial_p_values(counted, len(losses), max_loss)
    p_values[0] = 0.0
    certified = certified_prefix(p_values, alpha)
    covered = "adaptive" if nested else covers
    return TestedPath(
        len(losses), max_loss, alpha, covered, path, counted, p_values, calls, certified
    )


def _count_nested(
    path: Floats, confidences: Floats, losses: Bools, *, running: bool
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Count along falling thresholds by one sort; a row once lost stays lost, so running or not."""
    del running
    known = ~np.isnan(confidences[:, 0])
    order = np.argsort(confidences[known, 0])
    rising, lost = confidences[known, 0][order], losses[known, 0][order]
    refused = np.searchsorted(rising, path[:, 0], side="left")
    total = np.r_[0, lost.cumsum()]
    accepted = (len(rising) - refused) / max(len(losses), 1)
    first = np.where(path[:, 0] > 1.0, 0.0, 1.0)
    return (total[-1] - total[refused]).astype(np.int64), np.column_stack([first, 1.0 - accepted])


def _count(
    path: Floats, confidences: Floats, losses: Bools, *, running: bool
) -> tuple[npt.NDArray[np.int64], Floats]:
    ever = np.zeros(len(losses), dtype=np.bool_)
    counted = np.zeros(len(path), dtype=np.int64)
    calls = np.zeros((len(path), path.shape[1] + 1))
    for index, (lost, shares) in enumerate(walk(path, confidences, losses)):
        ever = ever | lost if running else lost
        counted[index], calls[index] = ever.sum(), shares
    return counted, calls


def walk(
    path: Floats, confidences: Floats, losses: npt.NDArray[Any]
) -> Iterator[tuple[npt.NDArray[Any], Floats]]:
    """Yield, point by point, what each row loses (n,), and the shares of rows that call each tier.

    ``losses`` (n, K-1) are those of the tiers below the top, which loses nothing.
    """
    padded = np.column_stack([losses, np.zeros(len(losses), losses.dtype)])
    for thresholds in path:
        deciding = deciding_tiers(confidences, thresholds)
        lost = np.take_along_axis(padded, deciding[:, None], axis=1)[:, 0]
        yield lost, call_shares(deciding, thresholds, padded.shape[1])


def certified_prefix(p_values: npt.NDArray[np.float64], alpha: float) -> int:
    """Return how many leading points hold: those before the first p-value above alpha.

    >>> certified_prefix(np.array([0.0, 0.05, 0.3, 0.01]), 0.1)
    2
    """
    failed = np.flatnonzero(p_values > alpha)
    return int(failed[0]) if len(failed) else len(p_values)


def thinned(tested: TestedPath, keep: int = _KEPT) -> TestedPath:
    """Return the path with about ``keep`` points: the ends, both sides of the last one that holds.

    For two tiers alone: there the counts rise along the path, so that leaving points out changes
    nothing for the others.
    """
    size = len(tested.thresholds)
    if tested.thresholds.shape[1] > 1 or size <= keep:
        return tested
    last = tested.certified - 1
    inside = np.linspace(0, last, keep - keep // 4)
    beyond = np.linspace(min(last + 1, size - 1), size - 1, keep // 4)
    chosen = np.unique(np.rint(np.concatenate([inside, beyond])).astype(np.intp))
    return attrs.evolve(
        tested,
        thresholds=tested.thresholds[chosen],
        losses=tested.losses[chosen],
        p_values=tested.p_values[chosen],
        calls=tested.calls[chosen],
        certified=int((chosen <= last).sum()),
    )


def cannot_certify(tested: TestedPath) -> CannotCertify | None:
    """Say that no point beyond 'always escalate' holds, and how many rows could change that.

    None when some point holds. The rows are those of the test, if the share that is lost stays as
    it was counted at the points tried; of so few that nothing could hold, the least that could.
    """
    if tested.certified > 1:
        return None
    beyond = tested.losses[1:]
    rates = np.unique(beyond / max(tested.n, 1))
    sizes = [rows_needed(tested.max_loss, tested.alpha, float(rate)) for rate in rates]
    needed = min((size for size in sizes if size is not None and size > tested.n), default=None)
    promise = f"a loss of at most {tested.max_loss:g} with confidence {1.0 - tested.alpha:g}"
    least = rows_needed(tested.max_loss, tested.alpha)
    if needed is None and least is not None and tested.n < least:
        needed = least
        why = f"{tested.n} rows were tested, and at least {least} are needed even if none is lost"
    elif needed is None:
        why = "the lower tiers lose more than that even where they are surest"
    else:
        why = f"{tested.n} rows were tested, about {needed} could suffice"
    return CannotCertify(f"no threshold can be certified for {promise}: {why}", needed=needed)


def certificate_of(
    tested: TestedPath, tiers: Sequence[str], *, loss: str,
    costs: Sequence[float] | None = None, skip_above: Sequence[float] = (), **facts: Any,
) -> Certificate:  # fmt: skip
    """Write down a tested path as a certificate; ``facts`` are its digests, seed, dates and notes.

    ``costs`` (K,) is the cost of a call per tier, in any unit; each point then gets its mean cost.
    ``skip_above`` is the entry rule that all of the path was tested with.
    """
    kept = thinned(tested)
    prices = None if costs is None else kept.calls @ np.asarray(costs, dtype=np.float64)
    points = tuple(
        PathPoint(
            thresholds=tuple(kept.thresholds[index].tolist()),
            skip_above=tuple(skip_above),
            losses=kept.losses[index].item(),
            p_value=float(kept.p_values[index]),
            escalation=tuple(kept.calls[index].tolist()),
            cost=None if prices is None else float(prices[index]),
        )
        for index in range(len(kept.thresholds))
    )
    return Certificate(
        max_loss=kept.max_loss,
        alpha=kept.alpha,
        loss=loss,
        covers=kept.covers,
        n=kept.n,
        tiers=tuple(tiers),
        path=points,
        certified=kept.certified,
        **facts,
    )
