"""Priorities, and when a refused request should come back."""

import threading

import pytest

import cascade
from cascade import DeadlineExceeded, Overloaded, Policy, RecordingError, Router
from cascade.admission import Priority, retry_after
from cascade.batching import Curve, DeadlineQueue
from cascade.simulation import Arrivals, simulate


class Waiting:
    def __init__(self, until, rank=1):
        self.until = until
        self.rank = rank


def test_the_queue_goes_by_class_then_by_deadline():
    queue = DeadlineQueue()
    low, late, early, high = Waiting(1, 2), Waiting(9), Waiting(5), Waiting(99, 0)
    for one in (low, late, early, high):
        queue.push(one)
    assert (queue.ahead(0), queue.ahead(1), queue.ahead(2)) == (1, 3, 4)
    assert (queue.behind(0), queue.behind(1), queue.behind(2)) == (3, 1, 0)
    order = [queue.take(0, 1, Curve()).taken[0] for _ in range(4)]
    assert order == [high, early, late, low]
    assert (queue.ahead(2), queue.evict(0)) == (0, None)


def test_the_last_of_a_lower_class_is_evicted():
    queue = DeadlineQueue()
    first, last, normal = Waiting(5, 2), Waiting(9, 2), Waiting(99)
    for one in (last, first, normal):
        queue.push(one)
    assert queue.evict(1) is last
    assert queue.evict(1) is first
    assert (queue.evict(1), queue.evict(0), len(queue)) == (None, normal, 0)


def test_unknown_classes_are_refused_with_the_nearest_spelling():
    with pytest.raises(ValueError, match="did you mean 'high'"):
        Priority.of("hihg")


@pytest.mark.parametrize(
    ("wait", "eta", "budget", "seconds"),
    [(0, -1, 10, 0.001), (4e9, -2, 10, 2.0), (3e9, 5e9, 4e9, 1.0), (1e9, 90e9, 1e9, 1.0)],
)
def test_retry_after(wait, eta, budget, seconds):
    assert retry_after(int(wait), int(eta), int(budget)) == seconds


def policy(queue=2, **large):
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "30s",
            "tiers": [{"name": "only", "kind": "external", "execution": "worker", "workers": 1,
                       "queue": queue, **large}],
        }
    )  # fmt: skip


def test_a_higher_class_goes_first_and_takes_the_place_of_a_lower_one():
    begun, gate, served = threading.Event(), threading.Event(), []

    def only(x):
        begun.set()
        gate.wait(30)
        served.append(x)
        return x

    found = {}

    def ask(x, priority):
        try:
            found[x] = router.route(x, priority=priority).disposition
        except Overloaded as error:
            found[x] = error

    with Router(policy(), tiers={"only": cascade.tier(only, rows="one")}) as router:
        lane = router._service.plan.lanes[0]

        def send(x, priority, queued):
            thread = threading.Thread(target=ask, args=(x, priority))
            thread.start()
            while lane.occupancy().queued != queued and thread.is_alive():
                pass
            return thread

        threads = [threading.Thread(target=ask, args=("running", None))]
        threads[0].start()
        begun.wait(30)
        threads += [send("low", "low", 1), send("normal", None, 2), send("high", "high", 2)]
        while "low" not in found:  # its place was taken
            pass
        with pytest.raises(Overloaded) as caught:
            router.route("another", priority="low")
        gate.set()
        for thread in threads:
            thread.join(30)
    assert served == ["running", "high", "normal"]
    assert isinstance(found["low"], Overloaded)
    assert found["low"].outcome.disposition == "shed"
    assert caught.value.retry_after >= 0.001


def test_a_refusal_for_its_deadline_says_when_to_come_back():
    slow = cascade.tier(lambda x: x, rows="one")
    with Router(policy(), tiers={"only": slow}) as router:
        service = router._service.plan.lanes[0].service
        service.observe_rows(2_000_000_000, 1)
        for _ in range(3):
            service.observe(2_000_000_000)
        with pytest.raises(DeadlineExceeded) as caught:
            router.route(1, deadline=0.5)
        assert caught.value.outcome.disposition == "shed"
        assert caught.value.retry_after == 0.001  # the queue is empty: waiting would not help
        with pytest.raises(ValueError, match="priority"):
            router.route(1, priority="urgent")


def trace(n=3_000, priorities=("high", "normal", "low")):
    import numpy as np

    ranks = np.arange(n) % len(priorities)
    return Arrivals(
        np.arange(n) * 0.005, ranks=np.array([Priority(p).rank for p in priorities])[ranks]
    )


def test_under_overload_the_high_class_is_served_and_the_low_one_pays():
    recording = {
        "truth": ["x"], "small.value": ["y"], "small.confidence": [0.0], "large.value": ["x"],
    }  # fmt: skip
    rules = {
        "version": 1, "name": "p", "deadline": "200ms", "escalation": {"thresholds": [0.5]},
        "tiers": [{"name": "small", "kind": "external"},
                  {"name": "large", "kind": "external", "workers": 1, "queue": 5}],
    }  # fmt: skip
    found = simulate(
        Policy.from_dict(rules), recording, trace(), baselines=False,
        seconds={"small": "10us", "large": "10ms"},
    )  # fmt: skip
    by_large = [(found.log.rank[rank::3] == 1).mean() for rank in range(3)]
    assert by_large[0] == 1.0
    assert by_large[0] > by_large[1] > by_large[2]
    assert found.utilization["large"] > 0.95
    assert {str(end.reason) for end in found.log.ends} >= {"top", "overload"}


def test_arrivals_read_priorities_and_tenants(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("arrival_s,priority,tenant\n1,low,a\n0,,\n")
    read = Arrivals.read(path)
    assert (read.ranks.tolist(), read.tenants.tolist()) == ([1, 2], [None, "a"])
    path.write_text("arrival_s,priority\n1,lo\n")
    with pytest.raises(RecordingError, match=r"a\.csv:2: priority: .* did you mean 'low'"):
        Arrivals.read(path)
