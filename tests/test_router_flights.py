"""Flights through the router: threads with events, and no clock but the test's own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

import cascade
from cascade import DeadlineExceeded, Policy, Router, TierError
from cascade.engine import Engine
from cascade.flight import Follower, Lead
from cascade.router import _SyncFollower

SECOND = 1_000_000_000
LONG = 30.0  # seconds after which a test that hangs is failed


class Clock:
    """Virtual time in ns."""

    def __init__(self):
        self.now = SECOND

    def __call__(self):
        return self.now


class Gate:
    """A tier that says when it was entered, and answers when it is let."""

    def __init__(self, answer=lambda x: (x.upper(), 0.9)):
        self.answer = answer
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, x):
        self.calls.append(x)
        self.entered.release()
        assert self.go.acquire(timeout=LONG)
        return self.answer(x)

    @property
    def tier(self):
        return cascade.tier(self, returns="pairs", rows="one")


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def router(first, top=lambda xs: ["large"] * len(xs), **options):
    tree = {
        "version": 1, "name": "p", "deadline": "20s", "cache": {},
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    return Router(Policy.from_dict(tree), tiers={"small": first, "large": top}, **options)


def joined(r, count, key="x"):
    """Wait until so many callers follow the one flight of a key; no clock is involved."""
    done = threading.Event()
    for _ in range(10_000_000):
        with r._service.plan.engine.lock:
            flight = r._service.plan.engine.flights.get(key)
            if flight is not None and len(flight.followers or ()) == count:
                return
        done.wait(0)  # lets the other threads run
    pytest.fail("the callers never joined")


def test_one_computation_serves_all_who_ask_the_same(pool):
    gate = Gate()
    with router(gate.tier) as r:
        leader = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        followers = [pool.submit(r.route, "x") for _ in range(9)]
        joined(r, 9)
        gate.go.release()
        outcomes = [f.result(LONG) for f in (leader, *followers)]
        assert gate.calls == ["x"]
        assert {(o.value, o.tier, str(o.disposition)) for o in outcomes} == {
            ("X", "small", "accepted")
        }
        assert len({o.id for o in outcomes}) == 10
        assert [step.result for step in outcomes[0].steps] == ["accepted"]
        assert [step.result for step in outcomes[-1].steps] == ["shared"]
        found = r.statistics()
        assert found.tiers["small"].calls == 1
        assert found.requests == 10
        assert r.route("x").disposition == "cached"
        assert not r._service.plan.engine.flights


def test_other_keys_tenants_and_floors_do_not_wait(pool):
    gate = Gate()
    with router(gate.tier) as r:
        leader = pool.submit(r.route, "x", tenant="a")
        assert gate.entered.acquire(timeout=LONG)
        assert r.route("x", tenant="a", at_least="large").value == "large"
        others = [pool.submit(r.route, "y", tenant="a"), pool.submit(r.route, "x", tenant="b"),
                  pool.submit(r.route, "x"),
                  pool.submit(r.route, "x", tenant="a", use_cache=False)]  # fmt: skip
        for _ in others:
            assert gate.entered.acquire(timeout=LONG)
        assert sorted(gate.calls) == ["x", "x", "x", "x", "y"]
        gate.go.release(5)
        for future in (leader, *others):
            future.result(LONG)


def test_who_asks_in_another_mode_does_not_wait(pool):
    gate = Gate(lambda x: (x.upper(), 0.1))
    with router(gate.tier) as r:
        r.set_mode("first_only")
        before = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        r.set_mode("enforce")
        after = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        gate.go.release(2)
        told = [(o.value, o.disposition, o.mode) for o in (before.result(LONG), after.result(LONG))]
        assert told == [("X", "degraded", "first_only"), ("large", "accepted", "enforce")]
        assert not r._service.plan.engine.flights


def test_what_followers_get_is_their_own(pool):
    gate = Gate(lambda x: ({"labels": [x]}, 0.9))
    with router(gate.tier) as r:
        leader = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        follower = pool.submit(r.route, "x")
        joined(r, 1)
        gate.go.release()
        values = [future.result(LONG).value for future in (leader, follower)]
        for value in values:
            value["labels"].append("changed")
        assert values == [{"labels": ["x", "changed"]}] * 2
        assert r.route("x").value == {"labels": ["x"]}


def test_a_fault_is_shared_and_not_retried(pool):
    def fail(x):
        raise KeyError(x)

    gate, asked = Gate(fail), []

    def top(xs):
        asked.append(xs)
        raise ZeroDivisionError

    with router(gate.tier, top) as r:
        leader = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        followers = [pool.submit(r.route, "x") for _ in range(3)]
        joined(r, 3)
        gate.go.release()
        errors = [f.exception(LONG) for f in (leader, *followers)]
        assert (gate.calls, asked) == (["x"], [["x"]])
        assert {type(e) for e in errors} == {TierError}
        assert {e.tier for e in errors} == {"large"}
        assert len({id(e) for e in errors}) == 4  # each thread raises its own
        assert len({e.outcome.id for e in errors}) == 4
        assert all(isinstance(e.__cause__, ZeroDivisionError) for e in errors)
        assert r.statistics().dispositions == {"failed": 4}
        assert not r._service.plan.engine.flights


def slow_top(clock, seconds=1):
    """A top tier of which the router knows that it takes so long."""

    def answer(xs):
        clock.now += seconds * SECOND
        return ["large"] * len(xs)

    return answer


def learn(r, gate):
    """Let the router see how long the top tier takes."""
    gate.go.release(5)
    for i in range(5):
        assert r.route(f"warm {i}", deadline=1000).tier == "large"
        assert gate.entered.acquire(timeout=LONG)
    gate.calls.clear()


def test_a_follower_with_more_time_goes_on_from_the_leaders_answer(pool):
    clock, gate = Clock(), Gate(lambda x: ("unsure", 0.1))
    with router(gate.tier, slow_top(clock), clock=clock) as r:
        learn(r, gate)
        leader = pool.submit(r.route, "x", deadline=0.5)
        assert gate.entered.acquire(timeout=LONG)
        brief = pool.submit(r.route, "x", deadline=0.9)
        joined(r, 1)
        patient = pool.submit(r.route, "x", deadline=1000)
        joined(r, 2)
        another = pool.submit(r.route, "x", deadline=1000)
        joined(r, 3)
        gate.go.release()
        for future in (leader, brief):
            outcome = future.result(LONG)
            assert (outcome.value, outcome.disposition) == ("unsure", "degraded")
            assert outcome.reason == "deadline"
            assert not outcome.covered
        for future in (patient, another):
            outcome = future.result(LONG)
            assert (outcome.value, outcome.disposition) == ("large", "accepted")
        assert gate.calls == ["x"]  # nobody asked the small tier again
        assert r.route("x").disposition == "cached"
        assert not r._service.plan.engine.flights


def test_a_leader_that_is_shed_leaves_the_flight_to_those_with_time(pool):
    clock, gate = Clock(), Gate(lambda x: ("unsure", 0.1))
    with router(gate.tier, slow_top(clock), clock=clock) as r:
        learn(r, gate)
        with pytest.raises(DeadlineExceeded):
            r.route("x", deadline=0.5, at_least="large")
        assert not r._service.plan.engine.flights
        assert r.route("x", deadline=5, at_least="large").value == "large"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_leader_hands_over(pool, kind):
    first = []

    def answer(x):
        if not first:
            first.append(x)
            raise kind
        return x.upper(), 0.9

    gate = Gate(answer)
    with router(gate.tier) as r:

        def interrupted():
            with pytest.raises(kind):
                r.route("x")
            return True

        leader = pool.submit(interrupted)
        assert gate.entered.acquire(timeout=LONG)
        followers = [pool.submit(r.route, "x") for _ in range(3)]
        joined(r, 3)
        gate.go.release(2)
        assert leader.result(LONG)
        assert {f.result(LONG).value for f in followers} == {"X"}
        assert gate.calls == ["x", "x"]  # one of the three led, the others went on waiting
        assert not r._service.plan.engine.flights


def test_who_gives_up_waiting_just_as_he_is_made_leader_leads(pool, monkeypatch):
    """Between the landing and the waking: else nobody would fly, and the key would be dead."""
    first, landed = [], threading.Event()
    wake = Engine._wake

    def answer(x):
        if not first:
            first.append(x)
            raise KeyboardInterrupt
        return x.upper(), 0.9

    def late(landing):
        landed.set()
        assert gate.entered.acquire(timeout=LONG)  # the follower has gone on by himself
        gate.go.release()
        wake(landing)

    gate = Gate(answer)
    monkeypatch.setattr(Engine, "_wake", staticmethod(late))
    monkeypatch.setattr(_SyncFollower, "wait", lambda self, seconds: landed.wait(LONG) and None)
    with router(gate.tier) as r:

        def interrupted():
            with pytest.raises(KeyboardInterrupt):
                r.route("x")

        leader = pool.submit(interrupted)
        assert gate.entered.acquire(timeout=LONG)
        follower = pool.submit(r.route, "x")
        joined(r, 1)
        gate.go.release()
        assert follower.result(LONG).value == "X"
        leader.result(LONG)
        assert not r._service.plan.engine.flights


def test_arguments_that_are_refused_leave_no_flight():
    with router(cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one")) as r:
        for wrong in ({"priority": "urgent"}, {"received": 2**80}, {"deadline": -1}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                r.route("x", **wrong)
        assert not r._service.plan.engine.flights
        assert r.route("x").value == "x"


def test_an_interrupted_leader_without_followers_frees_the_key(pool):
    gate = Gate(lambda x: (_ for _ in ()).throw(KeyboardInterrupt))
    with router(gate.tier) as r:
        gate.go.release()
        with pytest.raises(KeyboardInterrupt):
            r.route("x")
        assert not r._service.plan.engine.flights


def test_a_follower_whose_time_is_up_takes_what_there_is(pool):
    gate, top = Gate(lambda x: ("unsure", 0.1)), Gate(lambda x: ("large", 1.0))
    with router(gate.tier, top.tier) as r:
        leader = pool.submit(r.route, "x")
        assert gate.entered.acquire(timeout=LONG)
        with pytest.raises(DeadlineExceeded) as caught:
            r.route("x", deadline=1e-9)
        assert (caught.value.outcome.disposition, caught.value.outcome.value) == ("failed", None)
        gate.go.release()
        assert top.entered.acquire(timeout=LONG)
        outcome = r.route("x", deadline=1e-9)
        assert (outcome.value, outcome.disposition) == ("unsure", "degraded")
        top.go.release()
        assert leader.result(LONG).value == "large"
        assert r.statistics().dispositions == {"failed": 1, "degraded": 1, "accepted": 1}


def test_many_threads_and_keys_count_exactly(pool):
    calls = []

    def answer(x):
        calls.append(x)
        return x, 0.9

    with router(cascade.tier(answer, returns="pairs", rows="one")) as r:

        def work(seed):
            return [r.route(f"key {i * seed % 40}").value for i in range(200)]

        for values in pool.map(work, [1, 3, 7, 9, 11, 13, 17, 19]):
            assert all(value.startswith("key ") for value in values)
        found = r.statistics()
        assert found.requests == 1600
        assert sorted(set(calls)) == sorted(calls)  # one computation for each key
        assert found.cache.entries == 40
        assert not r._service.plan.engine.flights


@pytest.mark.parametrize("joined_by", [0, 1])
def test_a_request_that_took_off_while_another_landed_lets_its_answer_do(pool, joined_by):
    """It looks for the key again after it took off, so that none is computed twice."""
    clock, calls = Clock(), []

    def answer(x):
        calls.append(x)
        return x, 0.9

    first = cascade.tier(answer, returns="pairs", rows="one")
    with router(first, clock=clock) as r:
        engine = r._service.plan.engine

        class Busy(dict):
            def setdefault(self, key, own):
                clock.now += 1
                r._service.plan = quiet
                other = r.route("x")  # looks, asks and lands before this one takes off
                assert other.disposition == "accepted"
                taken = super().setdefault(key, own)
                for _ in range(joined_by):
                    own.join(follower := _Follower(own))
                    followers.append(follower)
                return taken

        followers = []
        quiet = r._service.plan
        for lane in quiet.lanes:
            lane.inline = True
        engine.flights = Busy()
        r._service.plan = attrs.evolve(quiet)
        assert r.route("x").disposition == "cached"
        assert calls == ["x"]
        assert len(engine.flights) == joined_by  # one who had joined goes on by itself
        assert all(isinstance(each.verdict, Lead) for each in followers)


class _Follower(Follower):
    def __init__(self, leader):
        own = type(leader)(leader.plan, leader.row, 0, leader.arrived, leader.until)
        super().__init__(own, own.until, lambda: None)
