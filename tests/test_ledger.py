"""The ledger: what it counts is what the traces say, however they come in and whenever it looks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.ledger import PARTS, Histograms, Ledger
from cascade.types import Disposition, Finish, Reason

TIERS = 3
ENDS = [
    Finish(Disposition.ACCEPTED, Reason.CONFIDENT, "a", rank=0),
    Finish(Disposition.CACHED, Reason.CACHE, "a", rank=0),
    Finish(Disposition.SHED, Reason.OVERLOAD, None, rank=-1),
]
spans = st.integers(0, 10**10)


@st.composite
def traces(draw):
    """A request that asks some tiers one after the other, as the drivers note it."""
    arrived = now = draw(st.integers(10**12, 10**15))
    now += draw(spans)
    routed, steps = now, []
    for _ in range(draw(st.integers(0, 3))):
        submitted, before, waited, took = now, draw(spans), draw(spans), draw(spans)
        started = submitted + before + waited
        back = started + took + draw(spans)
        now = back + draw(spans)
        tier, result = (
            draw(st.integers(0, TIERS - 1)),
            draw(st.sampled_from(["unsure", "accepted"])),
        )
        steps.append((tier, result, None, None, None, -1, -1,
                      submitted, started, started + took, back, before, None))  # fmt: skip
    return draw(st.sampled_from(ENDS)), arrived, routed, now + draw(spans), tuple(steps)


def spent(trace):
    """The parts of one request in ns, one step after the other."""
    _, arrived, routed, ended, steps = trace
    times = dict.fromkeys(PARTS, 0) | {"input": routed - arrived, "total": ended - arrived}
    for *_, submitted, started, finished, back, before, _ in steps:
        times["input"] += before
        times["transfer"] += started - submitted - before + back - finished
        times["compute"] += finished - started
    times["output"] = times["total"] - sum(times[part] for part in ("input", "transfer", "compute"))
    return times


@given(st.lists(traces(), max_size=30), st.integers(1, 30))
def test_it_counts_what_the_traces_say(found, at_once):
    ledger, halves = Ledger(TIERS), Ledger(TIERS)
    for i, trace in enumerate(found):
        half = ledger if i % 2 else halves
        half.append(trace)
        if i % at_once == 0:
            half.settle()
    ledger.absorb(halves)
    totals = ledger.totals()
    assert ledger.requests() == len(found)
    assert totals.ends == Counter(end for end, *_ in found)
    steps = [step for *_, steps in found for step in steps]
    assert totals.calls == Counter(step[:2] for step in steps)
    for part in PARTS:
        times = [spent(trace)[part] for trace in found]
        assert totals.parts[part].count == len(found)
        assert totals.parts[part].sum == pytest.approx(sum(times) * 1e-9, abs=1e-12)
        for bound, count in totals.cumulative[part]:
            sure = sum(time < bound * 1e9 * 0.999 for time in times)
            assert sure <= count <= sum(time < bound * 1e9 * 1.001 for time in times)
    for tier in range(TIERS):
        runs = [step[9] - step[8] for step in steps if step[0] == tier and step[9] > step[8]]
        held = totals.tier_compute.get(tier)
        assert (0 if held is None else held.count) == len(runs)
        assert held is None or held.sum == pytest.approx(sum(runs) * 1e-9)


@given(st.lists(st.integers(1, 2**39), min_size=1, max_size=200))
def test_quantiles_are_good_to_a_bucket(times):
    histograms = Histograms(2)
    histograms.add(np.ones(len(times), dtype=np.intp), np.array(times))
    found, bucket = histograms.quantiles(1), 2 ** (1 / 8)
    for level, quantile in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        exact = np.quantile(times, level, method="inverted_cdf")
        assert exact / bucket <= quantile * 1e9 <= exact * bucket
    assert histograms.quantiles(0).count == 0


def test_times_beyond_all_bounds_are_counted():
    histograms = Histograms(1)
    histograms.add(np.zeros(3, dtype=np.intp), np.array([-5, 0, 2**62]))
    assert histograms.quantiles(0).count == 3
