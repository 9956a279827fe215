"""Load in virtual time: the same controller as live, over a simulated machine."""

import itertools

import attrs
import numpy as np
import pytest

from cascade.policy.settings import WorkerSettings
from cascade.simulation import poisson, simulate
from tests.certified import fitted, moving

TIMES = {"small": "100us", "large": "10ms"}


def arrivals(*phases, seed=0):
    """Return Poisson arrivals: (rate, seconds) in turn."""
    begun, times = 0.0, []
    for rate, span in phases:
        chance = np.random.default_rng(seed + len(times))
        times.append(begun + np.sort(chance.random(chance.poisson(rate * span))) * span)
        begun += span
    return np.concatenate(times)


def full(policy):
    """Requests per second that fill the large tier at the cheapest certified point."""
    return 1 / (0.01 * policy.certificate.path[policy.point.index].escalation[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_step_of_load_and_back_is_one_move_each_way(seed):
    policy, recording = moving()
    rate = full(policy)
    found = simulate(
        policy, recording,
        arrivals((0.3 * rate, 20), (1.5 * rate, 30), (0.3 * rate, 30), seed=seed),
        seconds=TIMES, baselines=False,
    )  # fmt: skip
    moves = found.log.moves
    at = [move.at / 1e9 for move in moves]
    assert len(moves) <= 6
    assert all(b - a >= 1.0 for a, b in itertools.pairwise(at))  # one per interval
    # each step is answered within five intervals, then nothing moves
    assert all(min(t - step for step in (0, 20, 50) if t >= step) < 6 for t in at), moves
    assert found.slo_attainment > 0.999


def test_overload_is_answered_by_brownout_and_says_so():
    policy, recording = moving()
    rate = full(policy)
    found = simulate(
        policy, recording, poisson(3 * rate, 20_000, seed=1), seconds=TIMES, baselines=True
    )
    ends = {(str(end.disposition), str(end.reason)) for end in found.log.ends}
    assert ("degraded", "load") in ends
    assert found.slo_attainment == 1.0
    static = found.baselines["static"]
    assert found.accuracy > static.accuracy + 0.005  # who needs it most is asked about
    top = fitted()[0].certificate.max_loss
    always = simulate(
        policy, recording, poisson(1.0, 6_000), seconds=TIMES, baselines=True
    ).baselines["always_large"]
    assert always.accuracy - found.accuracy <= top + found.forced_accepts


def test_without_brownout_everything_accepted_early_is_promised():
    policy, recording = moving(brownout=False, spare=True)
    rate = full(policy)
    found = simulate(
        policy, recording, arrivals((0.2 * rate, 10), (3 * rate, 10)), seconds=TIMES,
        baselines=False,
    )  # fmt: skip
    assert set(found.log.points.tolist()) > {policy.point.index}
    assert found.log.points.max() == policy.point.index
    assert all(end.covered for end in found.log.ends if str(end.disposition) == "accepted")


def test_spare_budget_escalates_more_while_the_queue_is_empty_and_less_under_load():
    policy, recording = moving(load=False, spare=True)
    rate = full(policy)
    idle = simulate(policy, recording, poisson(0.1 * rate, 5_000), seconds=TIMES)
    busy = simulate(policy, recording, poisson(2.0 * rate, 5_000), seconds=TIMES, baselines=False)
    assert idle.calls["large"] > 1.04 * idle.baselines["static"].calls["large"]
    assert idle.accuracy > idle.baselines["static"].accuracy
    assert set(busy.log.points[2_500:].tolist()) == {policy.point.index}


def test_the_same_input_gives_the_same_moves():
    policy, recording = moving(spare=True)
    runs = [
        simulate(policy, recording, poisson(300.0, 5_000, seed=3), seconds=TIMES, baselines=False)
        for _ in range(2)
    ]
    assert runs[0].log.moves == runs[1].log.moves
    assert (runs[0].log.points == runs[1].log.points).all()
    assert runs[0].to_dict() == runs[1].to_dict()


def test_workers_come_with_the_load_and_go_with_it():
    policy, recording = moving(load=False)
    tiers = (policy.tiers[0], attrs.evolve(policy.tiers[1], workers=WorkerSettings(min=1, max=4)))
    scaled = attrs.evolve(policy, tiers=tiers)
    rate = full(policy)
    phases = arrivals((0.3 * rate, 10), (2.5 * rate, 30), (0.3 * rate, 30))
    found = simulate(scaled, recording, phases, seconds=TIMES)
    moves = [(move.what, move.after) for move in found.log.moves]
    assert moves[:2] == [("workers of large", 2), ("workers of large", 3)]
    assert moves[-1] == ("workers of large", 1)
    assert found.accuracy > found.baselines["static"].accuracy
    assert found.utilization["large"] < 1.0
