import pytest

from cascade.optimize.profiling import (
    LedgerSplit,
    batch_sizes,
    bottleneck,
    dominated,
)


def test_batch_sizes_end_at_the_cap():
    assert [batch_sizes(cap) for cap in (1, 8, 12)] == [(1,), (1, 2, 4, 8), (1, 2, 4, 8, 12)]


@pytest.mark.parametrize(
    ("parts", "tiers", "named"),
    [
        ({"input": 5.0, "transfer": 1.0, "compute": 4.0}, {"a": 4.0}, "input: 50% of the time"),
        ({"input": 1.0, "compute": 6.0}, {"a": 1.0, "b": 5.0}, "tier 'b': 71% of the time"),
        ({"input": 3.0, "compute": 4.0}, {"a": 2.0, "b": 2.0}, "input: 43%"),
    ],
)
def test_the_bottleneck_is_a_tier_or_a_part(parts, tiers, named):
    assert bottleneck(LedgerSplit(parts, tiers, {})).startswith(named)


def test_a_tier_is_dominated_only_when_slower_and_not_more_accurate():
    assert dominated({"a": (1.0, 0.9), "b": (1.02, 0.8)}) == {}  # not told apart
    assert dominated({"a": (1.0, 0.9), "b": (2.0, 0.9)}) == {"b": "a"}
    assert dominated({"a": (1.0, 0.9), "b": (2.0, 0.91)}) == {}
    assert dominated({"a": (1.0, None), "b": (2.0, 0.9)}) == {}
    speeds = {"a": (1.0, 0.9), "b": (2.0, 0.95), "c": (3.0, 0.9)}
    assert dominated(speeds) == {"c": "a"}  # the fastest of those that beat it
