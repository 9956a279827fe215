"""What a signal's handler raises, anywhere on a request's way: no lock is held, no key is dead."""

import asyncio
import dis
import sys
import threading

import pytest

import cascade
from cascade import AsyncRouter, Policy, Router
from tests.test_router_flights import LONG, Clock

HERE = ("cascade/aio.py", "cascade/direct.py", "cascade/engine.py", "cascade/flight.py",
        "cascade/ledger.py", "cascade/load.py", "cascade/router.py")  # fmt: skip


class Stop(BaseException):
    """As KeyboardInterrupt, which the test runner has its own use for."""


class Interrupt:
    """Raises at the n-th place where the interpreter looks for signals: after a call in C."""

    def __init__(self, n):
        self.left = n
        self.places = {}

    def __enter__(self):
        sys._getframe().f_trace_opcodes = True  # 3.12 heeds it from the next settrace on
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.endswith(HERE):
            return None
        if event == "call":
            frame.f_trace, frame.f_trace_lines = self.trace, False
            frame.f_trace_opcodes = True
            if frame.f_back is not None:
                self.places[frame.f_back] = -1  # a call in Python is none
        elif event == "opcode":
            before = self.places.get(frame)
            self.places[frame] = frame.f_lasti
            if before in looks(frame.f_code) and self.left >= 0:
                self.left -= 1
                if self.left < 0:
                    raise Stop
        return self.trace


def looks(code, known={}):  # noqa: B006  it is a cache
    found = known.get(code)
    if found is None:
        names = {"CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}
        found = {one.offset for one in dis.get_instructions(code) if one.opname in names}
        known[code] = found
    return found


def policy(execution, **more):
    inline = {"name": "large", "kind": "external", "execution": "inline"}
    tiers = [{"name": "small", "kind": "external", "execution": execution}, inline]
    tree = {"version": 1, "name": "p", "deadline": "9s", "cache": {}, "tiers": tiers,
            "escalation": {"thresholds": [0.8]}}  # fmt: skip
    return Policy.from_dict({**tree, **more})


def tiers(sure):
    small = cascade.tier(lambda x: (f"{x}!", sure), returns="pairs", rows="one")
    return {"small": small, "large": cascade.tier(lambda x: f"{x}!", rows="one")}


def sound(router):
    """Whether nothing is left of what was interrupted."""
    plan = router._service.plan
    locks = [plan.engine.lock, plan.engine.ledger._lock, *(s.service._lock for s in plan.lanes)]
    return not plan.engine.flights and not any(lock.locked() for lock in locks)


@pytest.mark.parametrize("fold", [1, 128])
@pytest.mark.parametrize("special", [{}, {"at_least": "small"}], ids=["direct", "begin"])
@pytest.mark.parametrize("sure", [0.9, 0.1])
@pytest.mark.parametrize("execution", ["inline", "worker"])
def test_wherever_a_request_is_interrupted_the_next_one_is_answered(
    execution, sure, special, fold, monkeypatch
):
    for module in ("engine", "direct"):
        monkeypatch.setattr(f"cascade.{module}.FOLD_AT", fold)
    with Router(policy(execution), tiers=tiers(sure)) as router:
        for n in range(10_000):
            interrupt = Interrupt(n)
            try:
                with interrupt:
                    router.route(n, **special)
            except Stop:
                pass
            assert sound(router), n
            if interrupt.left >= 0:
                break
            assert router.route(n, deadline=LONG).value == f"{n}!"
        assert n > 20


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_wherever_an_awaited_request_is_interrupted_the_next_one_is_answered():
    async def main():
        async with AsyncRouter(policy("worker"), tiers=tiers(0.9)) as router:
            for n in range(10_000):
                interrupt = Interrupt(n)
                try:
                    with interrupt:
                        await router.route(n)
                except Stop:
                    pass
                assert sound(router), n
                if interrupt.left >= 0:
                    break
                assert (await router.route(n, deadline=LONG)).value == f"{n}!"
        return n

    assert asyncio.run(main()) > 20


@pytest.mark.parametrize("pending", [True, False])
def test_wherever_a_follower_is_interrupted_no_flight_is_left_behind(pending):
    """Also where it is made the leader just then, of a call under way or from the start."""
    go = threading.Event()

    def small(x):
        assert go.wait(LONG)
        return f"{x}!", 0.9

    given = {**tiers(0.9), "small": cascade.tier(small, returns="pairs", rows="one")}
    with Router(policy("worker"), tiers=given) as router:
        plan, over = router._service.plan, threading.Event()
        engine, lane = plan.engine, plan.lanes[0]

        def leave(leader):
            while not (leader.followers or over.is_set()):
                over.wait(0)
            engine.abandon(leader)
            go.set()

        for n in range(10_000):
            go.clear()
            over.clear()
            now = plan.clock()
            leader = engine.begin(plan, n, now, now + 10**9, None, 0, True, None, print)
            engine.start(leader, n)
            if pending:
                leader.pending = lane, lane.submit(leader, lambda _: None)
            leaving = threading.Thread(target=leave, args=(leader,))
            leaving.start()
            interrupt = Interrupt(n)
            try:
                with interrupt:
                    router.route(n, deadline=LONG)
            except Stop:
                pass
            over.set()
            leaving.join(LONG)
            assert sound(router), n
            if interrupt.left >= 0:
                break
        assert n > 20


def test_a_flight_whose_leader_is_gone_is_not_joined_for_ever():
    """As when its clearing up is interrupted too: a while after its deadline it is replaced."""
    clock = Clock()
    with Router(policy("inline"), tiers=tiers(0.9), clock=clock) as router:
        engine = router._service.plan.engine

        def follow(request):
            raise AssertionError

        lost = engine.begin(
            router._service.plan, "x", clock(), clock() + 10, None, 0, True, None, follow
        )
        assert list(engine.flights.values()) == [lost]
        clock.now += 1_000_000_011
        assert router.route("x").value == "x!"
        assert not engine.flights
        engine.abandon(lost)  # it lives after all


def test_who_was_replaced_for_being_late_leaves_the_others_flight_alone():
    clock = Clock()
    with Router(policy("inline"), tiers=tiers(0.9), clock=clock) as router:
        plan = router._service.plan
        engine = plan.engine
        how = None, 0, True, None, lambda request: None
        late = engine.begin(plan, "x", clock(), clock() + 10, *how)
        engine.start(late, "x")
        clock.now += 1_000_000_011
        second = engine.begin(plan, "x", clock(), clock() + 10, *how)
        assert engine.flights == {late.key: second}
        fact = plan.lanes[0].call(late)
        assert engine.settle(late, late.step(fact, clock(), late.etas)).value == "x!"
        assert engine.flights == {late.key: second}
        assert router._lead(second, "x").value == "x!"
        assert not engine.flights
