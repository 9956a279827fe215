"""The worker lane: a bounded queue, batches, callers who leave, workers that hang."""

import threading
import time

import numpy as np
import pytest

import cascade
from cascade import Policy
from cascade.batching import Curve
from cascade.binding import bind
from cascade.breaker import Breaker
from cascade.facts import Failed, Refused, Replied, TimedOut
from cascade.lanes import WorkerLane
from cascade.tiers.faults import NotAsked
from tests.contract.test_lanes import LONG, Job


class Gate:
    """A batch function that waits until it is let."""

    def __init__(self):
        self.go, self.entered, self.batches = threading.Semaphore(0), threading.Semaphore(0), []
        self.fails = False

    def __call__(self, xs):
        self.batches.append(list(xs))
        self.entered.release()
        assert self.go.acquire(timeout=LONG)
        if self.fails:
            raise ConnectionError
        return [(x, 0.9) for x in xs]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def lane(gate):
    made = []

    def make(target=gate, **settings):
        if not made:
            made.append(WorkerLane(0, bound(target), time.monotonic_ns, **settings))
        return made[0]

    yield make
    for one in made:
        one.close()


def bound(function):
    tree = {
        "version": 1, "name": "p", "deadline": "9s",
        "tiers": [{"name": "it", "kind": "external"}],
    }  # fmt: skip
    target = cascade.tier(function, returns="pairs")
    return bind(Policy.from_dict(tree), {"it": target}, None, {})[0]


class Facts(dict):
    """Facts as they come in."""

    def __init__(self):
        super().__init__()
        self._came = threading.Semaphore(0)

    def of(self, key):
        def done(fact):
            assert key not in self, "a second fact"
            self[key] = fact
            self._came.release()

        return done

    def wait(self, count):
        for _ in range(count):
            assert self._came.acquire(timeout=LONG)
        return self


def test_what_waits_goes_together_when_the_worker_is_idle(lane, gate):
    facts, it = Facts(), lane(cap=4)
    it._arrivals.count = lambda _: None  # as if nobody came soon: nothing is waited for
    it.submit(Job("first"), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    for i in range(6):
        it.submit(Job(i), facts.of(i))
    gate.go.release(3)
    facts.wait(7)
    assert gate.batches == [["first"], [0, 1, 2, 3], [4, 5]]
    assert {key: fact.value for key, fact in facts.items()} == {
        "first": "first", **{i: i for i in range(6)},
    }  # fmt: skip
    assert facts["first"].batch == (1, "idle")
    assert facts[0].batch == (4, "full")
    assert facts[5].batch == (2, "idle")


def test_one_row_more_is_waited_for_once(lane, monkeypatch):
    """Two workers who took turns at it had a lone row wait until its time was nearly up."""
    it = lane(workers=2, cap=8)
    monkeypatch.setattr(it, "_threads", 2)
    monkeypatch.setattr(it, "_wake", lambda: None)
    it._arrivals.gap, it.service.curve = 1e6, Curve(1e9)
    it.submit(Job("alone"), Facts().of("alone"))
    first, second = threading.Lock(), threading.Lock()
    (_, _, held), (_, _, other) = it._next(first), it._next(second)
    assert (held, other) == (1_000_000, -1)
    _, run, _ = it._next(first)
    assert ([ticket.job.row for ticket in run.tickets], run.why) == (["alone"], "waited")


def test_what_does_not_fit_into_a_batch_that_was_waited_for_goes_to_the_other_worker(
    lane, monkeypatch
):
    it, facts = lane(workers=2, cap=8), Facts()
    monkeypatch.setattr(it, "_threads", 2)
    monkeypatch.setattr(it, "_clock", lambda: 0)
    monkeypatch.setattr(it._arrivals, "count", lambda _: None)
    it._arrivals.gap, it.service.curve = 1e6, Curve(1e9, 1e7)
    first, second = threading.Lock(), threading.Lock()
    gates = [first, second]
    for one in gates:
        one.acquire()
    with monkeypatch.context() as before:
        before.setattr(it, "_wake", lambda: None)
        for row in range(3):
            it.submit(Job(row), facts.of(row))
    assert [it._next(one)[2] for one in gates] == [1_000_000, -1]
    urgent = Job("urgent")
    urgent.until = 1_025_000_000  # time for two together
    it.submit(urgent, facts.of("urgent"))
    _, run, _ = it._next(first)
    assert [ticket.job.row for ticket in run.tickets] == ["urgent", 0]
    assert second.acquire(blocking=False)
    _, rest, _ = it._next(second)
    assert rest is None or [ticket.job.row for ticket in rest.tickets] == [1, 2]


def test_deadlines_go_before_arrival(lane, gate):
    facts, it = Facts(), lane()
    it.submit(Job("first"), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    it.submit(Job("patient", 20), facts.of("patient"))
    it.submit(Job("urgent", 10), facts.of("urgent"))
    gate.go.release(3)
    facts.wait(3)
    assert gate.batches == [["first"], ["urgent"], ["patient"]]


def test_a_full_queue_refuses(lane, gate):
    facts, it = Facts(), lane(limit=2)
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    for i in range(3):
        it.submit(Job(i), facts.of(i))
    assert (type(facts[2]), facts[2].reason) == (Refused, "overload")
    assert it.eta() == -2
    gate.go.release(3)
    facts.wait(4)


def test_leaving_the_queue_frees_the_place_at_once(lane, gate):
    facts, it = Facts(), lane(limit=1)
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    ticket = it.submit(Job("leaves"), facts.of("leaves"))
    assert it.cancel(ticket)
    assert it.cancel(ticket)
    it.submit(Job("comes"), facts.of("comes"))
    gate.go.release(2)
    facts.wait(2)
    assert set(facts) == {"runs", "comes"}
    assert gate.batches == [["runs"], ["comes"]]


def test_who_is_left_with_a_run_is_a_zombie_until_it_comes_back(lane, gate):
    it, facts = lane(), Facts()
    fact = it.call(Job("hangs", 0.2))
    assert type(fact) is TimedOut
    assert fact.submitted <= fact.started < fact.finished
    assert (it.zombies, it.eta()) == (1, -1)
    refused = it.call(Job("later"))
    assert refused.reason == "breaker"
    gate.go.release(2)
    while it.zombies:
        time.sleep(0.001)
    it.submit(Job("again"), facts.of("again"))
    assert facts.wait(1)["again"].value == "again"


def test_rows_that_were_left_on_threads_of_their_own_count_too(lane, gate):
    it, facts = lane(workers=2), Facts()
    back = [it.lose(), it.lose()]
    assert (it.zombies, it.eta(), it.live()) == (2, -1, 0)
    assert it.call(Job("later")).reason == "breaker"
    back.pop()()
    assert it.zombies == 1
    for i in range(2):
        it.submit(Job(i), facts.of(i))
    assert gate.entered.acquire(timeout=LONG)
    while not it._idle:  # the other worker has looked, and may not
        time.sleep(0.001)
    assert (len(gate.batches), it.occupancy().queued) == (1, 1)
    back.pop()()
    assert gate.entered.acquire(timeout=LONG)
    gate.go.release(2)
    facts.wait(2)
    assert it.zombies == 0


def test_one_zombie_leaves_the_other_worker_to_the_rest(lane, gate):
    it = lane(workers=2)
    assert type(it.call(Job("hangs", 0.2))) is TimedOut
    gate.go.release()  # for whichever run asks first: the hung one or the next
    assert it.zombies <= 1
    gate.go.release()
    assert type(it.call(Job("fine"))) is Replied


def test_a_batch_is_stopped_only_when_nobody_waits_for_it(lane, gate):
    facts, it = Facts(), lane(cap=2)
    it.submit(Job("first"), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    leaving = it.submit(Job("leaves"), facts.of("leaves"))
    it.submit(Job("stays"), facts.of("stays"))
    gate.go.release()
    assert gate.entered.acquire(timeout=LONG)
    assert it.cancel(leaving)
    assert it.zombies == 0
    gate.go.release()
    assert facts.wait(2)["stays"].value == "stays"
    assert "leaves" not in facts


def test_a_call_can_be_taken_over(lane, gate):
    facts, it = Facts(), lane()
    ticket = it.submit(Job("x"), facts.of("leader"))
    assert gate.entered.acquire(timeout=LONG)
    assert it.adopt(ticket, Job("x"), facts.of("heir"))
    gate.go.release()
    assert facts.wait(1)["heir"].value == "x"
    assert "leader" not in facts
    assert not it.adopt(ticket, Job("x"), facts.of("late"))


def test_a_call_is_one_failure_whoever_waits_for_it(lane, gate):
    facts, it = Facts(), lane()
    it.breaker = Breaker(rate=0.5, minimum=9, window=10**12, pause=1, chance=lambda: 0.0)
    call = it.submit(Job("call"), facts.of("leader"))
    assert gate.entered.acquire(timeout=LONG)
    for heir in "abc":
        assert type(it.timed_out(call)) is TimedOut
        assert it.adopt(call, Job("call"), facts.of(heir))
    gate.fails = True
    gate.go.release()
    assert type(facts.wait(1)["c"]) is Failed
    assert len(it.breaker._failures) == 1
    it.submit(Job("next"), facts.of("next"))
    gate.go.release()
    facts.wait(1)
    assert len(it.breaker._failures) == 2


def test_what_cannot_make_it_is_dropped_unrun(lane, gate):
    facts, it = Facts(), lane()
    it.submit(Job("first"), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    it.submit(job := Job("hopeless", 0.01), facts.of("hopeless"))
    while job.remaining() > 0:
        time.sleep(0.001)
    gate.go.release()
    facts.wait(2)
    assert (type(facts["hopeless"]), facts["hopeless"].reason) == (Refused, "deadline")
    assert gate.batches == [["first"]]


def test_expected_time_counts_what_is_ahead(lane, gate):
    facts, it = Facts(), lane()
    it.service.curve = Curve(1e6)
    it.service._eta = 1_000_000
    assert it.eta() == 1_000_000
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    busy = it.eta()
    it.submit(Job("waits"), facts.of("waits"))
    assert 1_000_000 <= busy <= 2_000_000
    assert it.eta() == pytest.approx(busy + 1_000_000, abs=1_000_000)
    gate.go.release(2)
    facts.wait(2)


def test_one_faulty_row_of_a_batch_is_alone(lane, gate):
    def answer(xs):
        gate.entered.release()
        assert gate.go.acquire(timeout=LONG)
        return [(x, float("nan") if x == "bad" else 0.9) for x in xs]

    facts, it = Facts(), lane(answer, cap=4)
    it.submit(Job("first"), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    for x in ("good", "bad", "fine"):
        it.submit(Job(x), facts.of(x))
    gate.go.release(2)
    facts.wait(4)
    assert [type(facts[x]).__name__ for x in ("good", "bad", "fine")] == [
        "Replied", "Failed", "Replied",
    ]  # fmt: skip


def _mistaken(*_):
    raise IndexError


def test_a_mistake_of_the_lanes_own_strands_nobody(lane, gate, monkeypatch):
    facts, it = Facts(), lane()
    gate.go.release(2)
    with monkeypatch.context() as patched:
        patched.setattr(it.service.__class__, "observe_rows", _mistaken)
        it.submit(Job("first"), facts.of("first"))
        facts.wait(1)
    it.submit(Job("second"), facts.of("second"))
    facts.wait(1)
    assert facts["first"].what == "tier 'it' raised IndexError"
    assert facts["second"].value == "second"


def test_closing_waits_for_what_is_under_way_and_refuses_the_rest(lane, gate):
    facts, it = Facts(), lane()
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    it.submit(Job("waits"), facts.of("waits"))
    it.close(grace=0.01)
    assert facts["waits"].reason == "overload"
    gate.go.release()
    assert facts.wait(2)["runs"].value == "runs"


def test_closing_tells_everybody_once_whatever_becomes_of_one(lane, gate, monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_value))

    def lost(_):
        raise RuntimeError("lost")

    facts, it = Facts(), lane()
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    waiting = it.submit(Job("waits", seconds=5), facts.of("gone"))
    assert it.adopt(waiting, Job("waits", seconds=20), facts.of("waits"))
    it.submit(Job("lost", seconds=1), lost)
    it.close()
    assert facts["waits"].reason == "overload"
    gate.go.release()
    assert set(facts.wait(2)) == {"runs", "waits"}
    assert list(map(str, shown)) == ["lost"]


def test_a_lane_that_can_have_no_thread_refuses_until_it_can(lane, monkeypatch):
    facts, it = Facts(), lane(lambda xs: [(x, 0.9) for x in xs])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        it.submit(Job("early"), facts.of("early"))
        assert facts["early"].reason == "overload"
        assert (it.occupancy()[:2], it._threads) == ((0, 0), 0)
    it.submit(Job("later"), facts.of("later"))
    assert facts.wait(2)["later"].value == "later"


class Stop(KeyboardInterrupt):
    """What a signal's handler raises."""


@pytest.mark.parametrize("told", [Stop, RuntimeError])
def test_a_worker_whose_start_was_interrupted_counts(lane, monkeypatch, told):
    """Waiting for the thread may make a RuntimeError of what the handler raised."""
    begin = threading.Thread.start

    def interrupted(thread):
        begin(thread)
        error = told("release unlocked lock")
        error.__context__ = None if told is Stop else Stop()
        raise error

    one = lane(lambda xs: [(x, 0.9) for x in xs], workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Stop):
            one.submit(Job("x"), lambda _: None)
    assert len(one._queue) == 0
    assert [type(one.call(Job(x))) for x in "abc"] == [Replied] * 3
    assert (one._threads, one.occupancy().running) == (1, 0)


def test_a_worker_that_was_let_go_in_an_interrupt_is_not_lost(lane):
    """Between the opening of its gate and the note of it."""
    one = lane(lambda xs: [(x, 0.9) for x in xs], workers=1)
    assert type(one.call(Job("a"))) is Replied
    while not one._idle:
        time.sleep(0.001)

    class Interrupting(list):
        def pop(self, *at):
            one._idle = idle
            raise Stop

    idle, one._idle = one._idle, Interrupting(one._idle)
    with pytest.raises(Stop):
        one.submit(Job("x"), lambda _: None)
    assert [type(one.call(Job(x))) for x in "abc"] == [Replied] * 3


def test_that_nobody_was_free_to_ask_is_no_failure_of_the_tier(lane):
    def busy(xs):
        raise NotAsked("no process is free in time", tier="it")

    one = lane(busy, workers=1)
    one.breaker = Breaker(rate=0.5, minimum=1, window=10**12, pause=10**12, chance=lambda: 0.0)
    assert [type(one.call(Job(x))) for x in "abc"] == [Failed] * 3
    assert not one.breaker.is_open


def test_a_lane_that_can_have_no_more_threads_makes_do_with_those_it_has(lane, gate, monkeypatch):
    facts, it = Facts(), lane(workers=2)
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        it.submit(Job("waits"), facts.of("waits"))
        assert not facts
    gate.go.release(2)
    assert facts.wait(2)["waits"].value == "waits"


def no_thread(_):
    raise RuntimeError("can't start new thread")


def test_a_retired_lane_still_answers_and_keeps_no_thread(lane):
    it = lane(lambda xs: [(x, 0.9) for x in xs])
    assert it.call(Job(1)).value == 1
    it.retire()
    assert it.call(Job(2)).value == 2
    while it._threads:
        time.sleep(0.001)


def test_workers_can_be_added_and_taken_back(lane, gate):
    facts, it = Facts(), lane(workers=1)
    for i in range(5):
        it.submit(Job(i), facts.of(i))
    assert gate.entered.acquire(timeout=LONG)
    assert it.occupancy()[:3] == (1, 4, 1)
    it.resize(3)
    gate.go.release()  # who comes back finds work for the new ones too
    facts.wait(1)
    for _ in range(2):
        assert gate.entered.acquire(timeout=LONG)
    assert it.occupancy().workers == 3
    it.resize(1)
    gate.go.release(9)
    facts.wait(4)
    while it._threads > 1:
        time.sleep(0.001)
    gate.go.release()
    assert it.call(Job("last")).value == "last"


def test_arrays_are_stacked_by_shape(lane, gate):
    shapes = []

    def answer(xs):
        shapes.append(np.shape(xs))
        if len(shapes) == 1:
            gate.entered.release()
            assert gate.go.acquire(timeout=LONG)
        return [(float(x.sum()), 0.9) for x in xs]

    facts, it = Facts(), lane(answer, cap=8)
    it.submit(Job(np.ones(1)), facts.of("first"))
    assert gate.entered.acquire(timeout=LONG)
    for i, n in enumerate((2, 3, 2, 3)):
        it.submit(Job(np.ones(n)), facts.of(i))
    gate.go.release()
    facts.wait(5)
    assert shapes == [(1, 1), (2, 2), (2, 3)]
    assert [facts[i].value for i in range(4)] == [2.0, 3.0, 2.0, 3.0]


def test_context_variables_of_the_caller_reach_a_tier(lane):
    import contextvars

    name = contextvars.ContextVar("name", default="nobody")
    it = lane(lambda xs: [(name.get(), 0.9) for _ in xs])
    name.set("somebody")
    assert it.call(Job(1)).value == "somebody"


def test_one_who_is_taken_over_while_it_waits_goes_by_its_new_deadline(lane, gate):
    facts, it = Facts(), lane()
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    waiting = it.submit(Job("waits", seconds=20), facts.of("gone"))
    it.submit(Job("sooner", seconds=10), facts.of("sooner"))
    assert it.adopt(waiting, Job("waits", seconds=5), facts.of("waits"))
    gate.go.release(9)
    facts.wait(3)
    assert gate.batches == [["runs"], ["waits"], ["sooner"]]
    assert "gone" not in facts
    assert not it.adopt(waiting, Job("late"), facts.of("late"))
    assert not it.cancel(waiting)


def test_who_left_twice_left_once(lane, gate):
    facts, it = Facts(), lane()
    it.submit(Job("runs"), facts.of("runs"))
    assert gate.entered.acquire(timeout=LONG)
    waiting = it.submit(Job("waits"), facts.of("waits"))
    assert it.cancel(waiting)
    assert it.cancel(waiting)
    gate.go.release(9)
    facts.wait(1)
    assert list(facts) == ["runs"]
