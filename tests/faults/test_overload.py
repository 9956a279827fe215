"""Overload in virtual time: the same admission, queues and controller as live."""

import numpy as np
import pytest

from cascade import Policy
from cascade.simulation import poisson, simulate

TOP = 0.020
DEADLINE = 0.100


def policy(**load):
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": DEADLINE, "mode": "top_only",
            "tiers": [{"name": "small", "kind": "external", "workers": 1},
                      {"name": "large", "kind": "external", "workers": 1}],
            "escalation": {"thresholds": [0.5]}, **load,
        }
    )  # fmt: skip


RECORDING = {"truth": ["x"], "small.value": ["y"], "small.confidence": [0.0], "large.value": ["x"]}
TIMES = {"small": "10us", "large": TOP}


def serve(arrivals, recording=RECORDING, seconds=TIMES):
    return simulate(policy(), recording, arrivals, seconds=seconds, baselines=False)


def goodput(found):
    return found.slo_attainment * found.n / found.arrivals.times[-1]


def test_ten_times_overload_leaves_the_goodput_and_starts_nothing_expired():
    peak = max(goodput(serve(poisson(load / TOP, 3_000))) for load in (0.8, 1.0, 1.2))
    found = serve(poisson(10 / TOP, 30_000))  # a minute of it
    assert goodput(found) >= 0.9 * peak
    assert found.log.late_starts == 0
    assert found.p99 <= DEADLINE
    answered = found.log.latency >= 0
    assert answered.mean() + found.shed == pytest.approx(1.0, abs=0.001)  # nobody is kept waiting


@pytest.mark.parametrize("seed", range(10))
def test_a_burst_leaves_no_tail(seed):
    """10,000 at once: two seconds later a light load is served as if nothing had been."""
    after = 0.001 + poisson(0.3 / TOP, 300, seed).times
    found = serve(np.concatenate([np.zeros(10_000), after]))
    later = found.log.latency[10_000:][after > 2.0]
    assert (later >= 0).all()
    assert np.quantile(later, 0.99) <= DEADLINE * 1e9
    assert found.log.late_starts == 0
    assert len(found.log.runs[1]) // 2 < 400  # nothing but what was answered was run


def test_a_tier_that_becomes_ten_times_slower_is_learned():
    n = 4_000
    slow = np.where(np.arange(n) < n // 2, 0.005, 0.050)
    recording = {name: column * n for name, column in RECORDING.items()}
    recording |= {"small.seconds": [1e-5] * n, "large.seconds": slow.tolist()}
    found = serve(np.arange(n) * 0.06, recording, {})
    after = np.arange(n) >= n // 2 + 50
    assert (found.log.latency[after] >= 0).mean() >= 0.99
