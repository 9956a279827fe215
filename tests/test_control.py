"""The controller: two pure loops along a path of points."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.control import Controller, Gears, Scaler, strictest_useful
from cascade.types import LoadSnapshot, TierLoad

CALLS = [(1, c) for c in (1.0, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0.05, 0.0)]
STRICT, CHEAPEST, LAST = 1, 5, 10


def load(rate, *, delay=0.0, busy=0.5, seconds=1.0, service=0.02):
    tiers = TierLoad("small", seconds=0.001), TierLoad("large", seconds=service, utilization=busy)
    return LoadSnapshot(0, seconds, rate, delay, tiers)


def controller(*, last=LAST, strictest=STRICT):
    return Controller(CALLS, strictest, CHEAPEST, last)


def capacity(point):
    """Requests per second that fill the large tier at a point."""
    return 1 / (0.02 * CALLS[point][1])


def test_it_begins_at_the_cheapest_certified_point():
    assert controller().index == CHEAPEST


def test_with_room_it_grows_stricter_only_after_three_calm_intervals():
    slow = controller()
    assert [slow.step(load(10.0)) for _ in range(2)] == [None, None]
    assert (slow.step(load(10.0)).after, slow.index) == (STRICT, STRICT)
    assert slow.step(load(10.0)) is None


def test_a_long_pause_is_several_calm_intervals():
    slow = controller()
    assert slow.step(load(0.1, seconds=10.0)).after == STRICT


def test_it_eases_at_once_when_the_target_is_exceeded():
    slow = controller()
    slow.step(load(1.0, seconds=10.0))
    assert slow.index == STRICT
    move = slow.step(load(2 * capacity(STRICT)))
    assert move.after > STRICT
    assert "utilisation" in str(move)


def test_what_no_point_could_carry_is_met_by_the_last_one():
    slow = controller()
    calls = [(1, share) for share in (1.0, 0.8, 0.6)]
    for slow in (controller(), Controller(calls, 0, 1, 2)):
        assert slow.step(load(1e6)).after == slow.last
        assert slow.step(load(1e6)) is None


def test_a_queue_takes_the_extra_calls_back_and_is_remembered():
    slow = controller()
    slow.step(load(1.0, seconds=10.0))
    move = slow.step(load(30.0, delay=0.050, busy=1.0))  # by the sum there is room
    assert (move.after, "50 ms" in move.reason) == (CHEAPEST, True)
    for _ in range(10):
        assert slow.step(load(30.0)) is None  # the same load has proved to be too much


def test_a_short_wait_before_an_idle_tier_is_no_pressure():
    slow = controller()
    slow.step(load(1.0, seconds=10.0))
    assert slow.step(load(30.0, delay=0.050, busy=0.2)) is None


def test_brownout_comes_when_the_fast_loop_alone_cannot_take_it_off():
    slow = controller()
    assert slow.step(load(1.9 * capacity(CHEAPEST))) is None
    assert slow.step(load(9 * capacity(CHEAPEST))).after > CHEAPEST


def test_without_brownout_it_never_leaves_the_promise():
    slow = controller(last=CHEAPEST)
    for rate in (1e3, 1e6, 1.0, 1e9):
        slow.step(load(rate, delay=1.0, busy=1.0))
        assert slow.index <= CHEAPEST


def test_a_busy_entry_tier_moves_nothing_since_no_point_would_relieve_it():
    slow = controller()
    tiers = TierLoad("small", seconds=1.0, utilization=1.0), TierLoad("large", seconds=0.001)
    for _ in range(5):
        slow.step(LoadSnapshot(0, 1.0, 100.0, 0.5, tiers))
        assert slow.index <= CHEAPEST


def test_a_step_up_and_back_settles_within_five_intervals_without_oscillation():
    slow, full = controller(), capacity(CHEAPEST)
    for rate in (0.5 * full, 1.5 * full, 0.5 * full, 3.0 * full, 0.5 * full):
        moves = [slow.step(load(rate)) for _ in range(30)]
        went = [i for i, move in enumerate(moves) if move is not None]
        assert all(i < 8 for i in went), (rate, moves)
        points = [CHEAPEST, *(move.after for move in moves if move is not None)]
        assert points[1:] in (sorted(points[1:]), sorted(points[1:], reverse=True))


rates = st.lists(
    st.tuples(st.floats(0.0, 1e4), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.1, 60.0)),
    max_size=40,
)


@given(rates, st.sampled_from([CHEAPEST, LAST]), st.integers(0, CHEAPEST))
def test_it_stays_on_the_path_and_moves_once_per_interval(readings, last, strictest):
    slow = controller(last=last, strictest=strictest)
    for rate, delay, busy, seconds in readings:
        before = slow.index
        move = slow.step(load(rate, delay=delay, busy=busy, seconds=seconds))
        assert strictest <= slow.index <= last
        if move is None:
            assert slow.index == before
        else:
            assert (move.before, move.after) == (before, slow.index) != (before, before)


@given(st.floats(1.0, 1e4), st.floats(1.0, 4.0))
def test_more_load_is_never_answered_with_a_stricter_point(rate, factor):
    light, heavy = controller(), controller()
    for _ in range(6):
        light.step(load(rate))
        heavy.step(load(rate * factor))
    assert heavy.index >= light.index


# -- the fast loop -------------------------------------------------------------------------------


def gears(slack=STRICT, last=LAST):
    return Gears(CALLS, CHEAPEST, last, slack)


def test_an_empty_queue_and_spare_capacity_allow_a_stricter_point():
    assert gears().at(CHEAPEST, 0, 100, spare=True) == STRICT
    assert gears().at(CHEAPEST, 0, 100) == CHEAPEST
    assert gears(slack=None).at(CHEAPEST, 0, 100, spare=True) == CHEAPEST


def test_a_queue_that_takes_all_the_slack_halves_the_calls():
    index = gears().at(CHEAPEST, 100, 100)
    assert CALLS[index][1] == pytest.approx(CALLS[CHEAPEST][1] / 2, abs=0.06)
    assert gears(last=CHEAPEST).at(CHEAPEST, 100, 100) == CHEAPEST


def test_an_empty_queue_takes_a_request_back_into_the_promise():
    assert gears().at(8, 0, 100) == CHEAPEST


@given(st.integers(0, LAST), st.booleans(), st.lists(st.integers(0, 200), min_size=2, max_size=9))
def test_the_longer_the_wait_the_fewer_the_calls(base, spare, waits):
    found = [gears().at(base, wait, 100, spare=spare) for wait in sorted(waits)]
    assert found == sorted(found)
    assert all(0 <= index <= LAST for index in found)


def test_the_strictest_useful_point_wins_half_of_the_losses_back():
    assert strictest_useful([0, 4, 5, 6, 10, 99], certified=5) == 2
    assert strictest_useful([0], certified=1) == 0
    assert strictest_useful([7, 9], certified=0) == 0


def test_a_controller_without_spare_points_stands_still():
    still = attrs.evolve(controller(), strictest=CHEAPEST, last=CHEAPEST)
    assert all(still.step(load(rate)) is None for rate in (0.1, 10.0, 1e5, 0.1, 0.1, 0.1))


# -- workers -------------------------------------------------------------------------------------


def tier(answered, *, delay=0.1, busy=1.0):
    return TierLoad("large", delay=delay, utilization=busy, answered=answered)


def test_a_queue_that_stands_brings_a_worker_and_a_gain_keeps_it():
    scaler = Scaler(1, 3)
    assert scaler.step(tier(100.0)) is None
    assert scaler.step(tier(100.0)).after == 2
    assert [scaler.step(tier(180.0)) for _ in range(3)] == [None] * 3  # the trial
    assert scaler.step(tier(180.0)).after == 3
    for _ in range(10):
        scaler.step(tier(250.0))
    assert scaler.workers == 3


def test_a_worker_that_brings_nothing_is_taken_back_and_not_soon_tried_again():
    scaler = Scaler(1, 4)
    moves = [scaler.step(tier(100.0)) for _ in range(1_000)]
    at = [i for i, move in enumerate(moves) if move is not None]
    assert [moves[i].after for i in at] == [2, 1] * (len(at) // 2)
    assert "throughput 100/s, 100/s without" in str(moves[at[1]])
    tries = [b - a for a, b in zip(at[::2], at[2::2], strict=False)]
    assert tries == sorted(tries)
    assert tries[0] >= 30
    assert len(at) <= 2 * 7  # doubled each time


def test_workers_go_when_the_others_can_do_the_work():
    scaler = Scaler(1, 4)
    for answered in (100.0, 100.0, 200.0, 200.0, 200.0):
        scaler.step(tier(answered))
    assert scaler.workers >= 2
    calm = [scaler.step(tier(20.0, delay=0.0, busy=0.1)) for _ in range(20)]
    assert scaler.workers == 1
    assert [move.after for move in calm if move is not None][-1] == 1


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1), st.floats(0, 1)), max_size=60),
    st.integers(1, 3), st.integers(0, 4),
)  # fmt: skip
def test_workers_stay_within_their_bounds_and_change_by_one(readings, low, more):
    scaler = Scaler(low, low + more)
    for answered, delay, busy in readings:
        before = scaler.workers
        move = scaler.step(tier(answered, delay=delay, busy=busy))
        assert low <= scaler.workers <= low + more
        assert abs(scaler.workers - before) == (move is not None)
