"""The whole of it on real tiers: slow, and on a clock; the decisions are tested by script."""

import pytest

from tests.benchmarks.optimize import planted, prepare


@pytest.mark.slow
def test_the_chosen_ladder_is_much_faster_at_the_same_promise(tmp_path):
    from cascade.optimize.exploring import explore

    policy, data = prepare(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "conv.onnx").stat().st_size < 1_000_000
    found = explore(policy, data)
    assert found.chosen.p_value <= 0.1
    assert found.before.p_value <= 0.1
    assert found.chosen.seconds <= 0.6 * found.before.seconds
    kept, seen = planted(policy, data)
    assert not any("dynamic" in name or "planted" in name for name in kept)
    for one in seen["planted: fast, inaccurate"]:
        assert one.verdict.startswith("refused by the gate, p = ")
    for one in seen["dynamic int8"]:
        assert one.verdict == "slower"
