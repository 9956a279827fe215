"""The batch rule: the curve, the knee, the wait, and the queue in the order of deadlines."""

import math

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cascade.batching import (
    ArrivalGap,
    Curve,
    DeadlineQueue,
    fit_curve,
    hold,
    knee,
    portion,
    turn_size,
)

TIMES = st.floats(0, 1e9)


@attrs.define(eq=False)
class Request:
    until: int
    rank: int = 1


@given(st.floats(0, 1e8), st.floats(0, 1e7), st.lists(st.integers(1, 64), min_size=2))
def test_an_affine_tier_is_recovered(overhead, per_row, sizes):
    curve = fit_curve([(n, round(overhead + per_row * n)) for n in sizes])
    for n in sizes:
        assert curve.time(n) == pytest.approx(overhead + per_row * n, rel=1e-6, abs=2)


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**9)), max_size=60))
def test_whatever_was_seen_time_is_never_negative_nor_falling(runs):
    curve = fit_curve(runs)
    assert curve.overhead >= -1e-6
    assert curve.per_row >= 0
    assert curve.residual >= 0
    assert curve.time(1) <= curve.time(2) <= curve.safe(2)


def test_runs_of_one_size_keep_the_slope_that_was_known():
    curve = fit_curve([(8, 180)] * 5, prior=Curve(100.0, 10.0))
    assert (curve.overhead, curve.per_row) == (100.0, 10.0)


def test_the_residual_is_the_quantile_of_what_is_left_over():
    runs = [(1, 100)] * 19 + [(1, 500)]
    assert fit_curve(runs).safe(1) == 120  # the mean: one in twenty lies beyond
    assert fit_curve(runs, quantile=1.0).safe(1) == 500


@given(TIMES, TIMES, st.integers(1, 4096))
def test_the_knee_pays_and_doubling_beyond_it_does_not(overhead, per_row, limit):
    size = knee(Curve(overhead, per_row), limit)
    assert 1 <= size <= limit
    if per_row > 0 and size < limit:
        twice = min(2 * size, limit)
        assert overhead / twice + per_row > 0.85 * (overhead / size + per_row)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [(Curve(7.3, 1.7), 16), (Curve(230.0, 94.0), 8), (Curve(12.0, 1226.0), 1)],
    ids=["MLP", "17 MB net", "RBF-SVC"],
)
def test_the_knees_of_measured_tiers(curve, expected):
    assert knee(curve, 64) == expected


@given(TIMES, TIMES, st.integers(1, 4096), st.integers(1, 10**7))
def test_a_turn_takes_what_pays_and_as_many_as_take_a_fair_time(overhead, per_row, limit, fair):
    curve = Curve(overhead, per_row)
    size = turn_size(curve, limit, fair)
    assert knee(curve, limit) <= size <= limit
    if size > knee(curve, limit):
        assert curve.time(size) <= fair + 1  # ns, rounded
    if per_row > 0 and size < limit:
        assert overhead + per_row * (size + 1) > fair * (1 - 1e-9)


@given(st.integers(1, 64), st.integers(1, 64), TIMES, TIMES, TIMES, st.integers(0, 10**10))
def test_waiting_never_costs_a_deadline(queued, cap, overhead, per_row, gap, slack):
    curve = Curve(overhead, per_row)
    wait = hold(queued, cap, curve, gap, slack)
    assert wait == 0 or (queued < cap and wait + curve.time(queued + 1) <= slack + 2)


def test_a_slope_that_is_next_to_nothing_limits_nothing():
    flat = Curve(0.0, 5e-324)
    assert turn_size(flat, 64, fair=1) == 64
    assert portion(flat, 100, left=1_000_000, last=4) == 100
    assert portion(Curve(2e6, 5e-324), 100, left=1_000_000, last=4) == 1
    queue = DeadlineQueue()
    for _ in range(3):
        queue.push(Request(1_000))
    assert len(queue.take(0, 9, flat).taken) == 3


def test_nobody_waits_for_what_is_not_known_to_come():
    assert hold(1, 8, Curve(1e6, 1.0), math.inf, 10**9) == 0


def test_the_second_to_come_tells_the_gap_however_long_the_clock_has_run():
    seen = ArrivalGap()
    seen.count(10**15)
    assert seen.gap == math.inf
    seen.count(10**15 + 1000)
    assert seen.gap == 1000.0
    seen.count(10**15 + 9000 + 1000)
    assert seen.gap == 1000.0 + 8000.0 / 8


def test_the_earliest_deadline_goes_first():
    queue = DeadlineQueue()
    late, early, middle = Request(300), Request(100), Request(200)
    for request in (late, early, middle):
        queue.push(request)
    assert queue.take(0, 8, Curve()).taken == [early, middle, late]


def test_a_batch_is_as_large_as_its_first_deadline_allows():
    queue = DeadlineQueue()
    requests = [Request(1_000 + i) for i in range(8)]
    for request in requests:
        queue.push(request)
    assert queue.take(0, 8, Curve(500.0, 100.0)).taken == requests[:5]
    assert queue.take(0, 2, Curve(500.0, 100.0)).why == "full"


def test_those_who_cannot_make_it_are_dropped_before_they_run():
    queue = DeadlineQueue()
    hopeless, fine = Request(500), Request(5_000)
    queue.push(hopeless)
    queue.push(fine)
    batch = queue.take(0, 8, Curve(1_000.0))
    assert (batch.taken, batch.dropped) == ([fine], [hopeless])


def test_nothing_starts_after_its_deadline_in_100_000_requests():
    import random

    chance, queue, now, started = random.Random(0), DeadlineQueue(), 0, 0
    for _ in range(100_000):
        now += chance.randrange(20)
        queue.push(Request(now + chance.randrange(-5, 200)))
        if chance.random() < 0.4:
            for request in queue.take(now, 4, Curve(5.0, 2.0)).taken:
                started += 1
                assert now + 7 <= request.until
    assert started > 50_000


def test_who_waits_anew_has_left_his_old_place():
    queue = DeadlineQueue()
    moved, low, normal = Request(100, 2), Request(900, 2), Request(5, 1)
    for request in (moved, low, normal):
        queue.push(request)
    assert queue.remove(moved)
    moved.until, moved.rank = 5_000, 0
    queue.push(moved)
    assert queue.evict(1) is low
    assert queue.first() is moved
    assert (len(queue), queue.clear(), queue.clear()) == (2, [moved, normal], [])
    queue.push(moved)
    assert queue.remove(moved)
    moved.until = 100
    queue.push(moved)
    queue.push(Request(50, 0))
    assert queue.take(0, 9, Curve()).taken[1:] == [moved]


class Queueing(RuleBasedStateMachine):
    """Push, leave and take in any order: nobody is lost, nobody is served twice."""

    def __init__(self):
        super().__init__()
        self.queue, self.waiting, self.over, self.now = DeadlineQueue(), [], [], 0

    @rule(until=st.integers(0, 1_000), rank=st.integers(0, 2))
    def push(self, until, rank):
        request = Request(self.now + until, rank)
        self.queue.push(request)
        self.waiting.append(request)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data):
        request = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(request)
        assert not self.queue.remove(request)
        self.waiting.remove(request)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), until=st.integers(0, 1_000), rank=st.integers(0, 2))
    def move(self, data, until, rank):
        request = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(request)
        request.until, request.rank = self.now + until, rank
        self.queue.push(request)

    @rule(cap=st.integers(1, 9), passes=st.integers(0, 100))
    def take(self, cap, passes):
        self.now += passes
        batch = self.queue.take(self.now, cap, Curve(10.0, 1.0))
        assert len(batch.taken) <= cap
        for request in batch.taken + batch.dropped:
            self.waiting.remove(request)
        assert all(request.until >= self.now + 11 for request in batch.taken)
        assert all(request.until < self.now + 11 for request in batch.dropped)
        if batch.taken and self.waiting:
            last = batch.taken[-1]
            assert (last.rank, last.until) <= min((r.rank, r.until) for r in self.waiting)

    @precondition(lambda self: self.waiting)
    @rule(rank=st.integers(0, 2))
    def evict(self, rank):
        lower = [request for request in self.waiting if request.rank > rank]
        evicted = self.queue.evict(rank)
        assert (evicted is None) == (not lower)
        if evicted is not None:
            assert (evicted.rank, evicted.until) == max((r.rank, r.until) for r in lower)
            self.waiting.remove(evicted)

    @invariant()
    def those_who_wait_are_counted(self):
        assert len(self.queue) == len(self.waiting)
        first = self.queue.first()
        assert (first is None) == (not self.waiting)


TestQueueing = Queueing.TestCase
