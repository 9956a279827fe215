from types import SimpleNamespace

import pytest

from cascade.optimize.profiling import (
    LedgerSplit,
    batch_sizes,
    bottleneck,
    dominated,
    ledger_split,
    typical,
)


def outcome(compute, *, stall=0.0):
    parts = {"input": 0.1, "transfer": 0.1 + stall, "compute": compute, "output": 0.1}
    latency = SimpleNamespace(**parts, total=sum(parts.values()))
    steps = [SimpleNamespace(tier="a", result="replied", latency=SimpleNamespace(compute=compute))]
    return SimpleNamespace(latency=latency, steps=steps)


def test_a_stall_of_the_machine_is_no_bottleneck():
    """One pass in three waits for whatever else runs here."""
    passes = [[outcome(1.0, stall=50.0 * (i % 3 == at)) for i in range(9)] for at in range(3)]
    requests = [typical(same) for same in zip(*passes, strict=True)]
    found = ledger_split(requests, ["a", "b"])
    assert bottleneck(found).startswith("tier 'a': 77% of the time")
    assert found.calls == {"a": pytest.approx(1.0), "b": 0.0}
    assert found.tiers["a"] == pytest.approx(found.parts["compute"])


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
