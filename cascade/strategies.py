"""Hypothesis strategies for one's own property tests: policies, recordings, facts.

Needs Hypothesis (``pip install "cascade-router[test]"``, or by itself).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.budget import nanoseconds
from cascade.errors import MissingExtra, TierError
from cascade.facts import Failed, Refused, Replied, TimedOut
from cascade.policy import Policy
from cascade.types import Reason

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingExtra.for_extra("test", "hypothesis") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

__all__ = ["facts", "policies", "recordings"]

_NAMES = ("small", "middle", "large", "largest")
_LONGEST = 100_000
_SURE = st.floats(0.0, 1.0)


def policies(
    tiers: Sequence[str] | None = None, *, max_tiers: int = 3, min_deadline: float = 0.001
) -> SearchStrategy[Policy]:
    """Draw valid policies over external tiers, with thresholds, entry rule, abstention and cache.

    The tiers are those named, or two to ``max_tiers``. Deadlines are ``min_deadline`` seconds to
    ten, or that one: where tiers run in real time, leave them enough. The entry rule weighs
    ``length``, which :func:`recordings` have.

    Raises:
        ValueError: ``max_tiers`` is not in 2 to 4, a tier is named twice or not at all, or
            ``min_deadline`` is no time.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(policies(["a", "b"]))
    ... def test(policy):
    ...     assert len(policy.escalation.thresholds) == 1
    >>> test()
    """
    if not 2 <= max_tiers <= len(_NAMES):
        raise ValueError(f"max_tiers: expected 2 to {len(_NAMES)}, got {max_tiers!r}")
    if tiers is not None and (isinstance(tiers, str) or not tiers or len({*tiers}) < len(tiers)):
        raise ValueError(f"tiers: expected a list of different names, got {tiers!r}")
    least = nanoseconds(min_deadline, "min_deadline") / 1e9
    names = st.integers(2, max_tiers).map(lambda n: _NAMES[:n]) if tiers is None else st.just(tiers)
    return names.flatmap(lambda chosen: _policies(chosen, least))


def _policies(names: Sequence[str], least: float) -> SearchStrategy[Policy]:
    below = len(names) - 1
    rule = st.fixed_dictionaries(
        {
            "intercept": st.floats(-5.0, 5.0),
            "weights": st.just({"length": 0.01}),
            "skip_above": st.lists(_SURE, max_size=below).map(sorted),
        }
    )
    escalation = st.fixed_dictionaries(
        {"thresholds": st.lists(_SURE, min_size=below, max_size=below)},
        optional={"abstain_below": _SURE},
    )
    tree = st.fixed_dictionaries(
        {
            "version": st.just(1),
            "name": st.just("drawn"),
            "deadline": st.floats(least, max(least, 10.0)),
            "tiers": st.just([{"name": name, "kind": "external"} for name in names]),
            "escalation": escalation,
        },
        optional={"complexity": rule, "cache": st.just({}), "mode": st.sampled_from(_MODES)},
    )
    return tree.map(Policy.from_dict)


_MODES = ("enforce", "top_only", "first_only")


def recordings(
    tiers: Sequence[str] = ("small", "large"), *, labels: Sequence[Any] = ("yes", "no"),
    min_rows: int = 1, max_rows: int = 20,
) -> SearchStrategy[dict[str, list[Any]]]:  # fmt: skip
    """Draw recordings as columns: truth, the feature x.length, per tier value, confidence, seconds.

    Each row has its own length, so that routers over :func:`cascade.testing.recorded` may be asked
    by it, whatever policy is drawn: ``{"length": table["x.length"][i]}``. They go by virtual time.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(recordings(max_rows=3))
    ... def test(table):
    ...     assert len(table["truth"]) == len(table["large.value"])
    >>> test()
    """
    label = st.sampled_from(list(labels))
    answer = st.tuples(label, _SURE, st.floats(0.0001, 1.0))
    row = st.tuples(label, *(answer for _ in tiers), st.integers(0, _LONGEST))

    def columns(rows: list[Any]) -> dict[str, list[Any]]:
        table: dict[str, list[Any]] = {
            "truth": [row[0] for row in rows], "x.length": [row[-1] for row in rows]
        }  # fmt: skip
        for i, name in enumerate(tiers, 1):
            for j, what in enumerate(("value", "confidence", "seconds")):
                table[f"{name}.{what}"] = [row[i][j] for row in rows]
        return table

    rows = st.lists(row, min_size=min_rows, max_size=max_rows, unique_by=lambda row: row[-1])
    return rows.map(columns)


def facts(tier: int, *, now: int = 0) -> SearchStrategy[Any]:
    """Draw what a lane may say of a call to a tier: replied, failed, timed out or refused.

    A reply's confidence may be NaN or out of range, as a tier's may be.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(facts(1))
    ... def test(fact):
    ...     assert fact.tier == 1
    >>> test()
    """
    sure = st.one_of(_SURE, st.sampled_from([float("nan"), float("inf"), -1.0, 2.0]))
    times = st.integers(0, 10**9).map(lambda taken: (now, now, now + taken))
    return st.one_of(
        st.builds(lambda c, t: Replied(tier, "answer", c, *t), sure, times),
        st.builds(lambda t: Failed(tier, TierError("failed", tier="drawn"), *t), times),
        st.builds(lambda t: TimedOut(tier, *t), times),
        st.builds(
            lambda r: Refused(tier, r, now),
            st.sampled_from([Reason.OVERLOAD, Reason.DEADLINE, Reason.BREAKER]),
        ),
    )
