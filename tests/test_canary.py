"""Inputs, keys and tenants reach no log, metric, message or outcome: a canary in every sink."""

import asyncio
import contextlib
import logging
import threading
import traceback

import numpy as np
import pytest
from onnx import TensorProto, helper

import cascade
from cascade import AsyncRouter, CascadeError, Policy, Router
from cascade.testing import async_router_for, router_for, run_virtual, scripted

CANARY = "kanarienvogel"
NUMBER = 424242.1328125  # exact in float32, and nobody else's
SEEN = (CANARY, "424242")


class Sinks:
    """Everything that a service would print, send or store."""

    def __init__(self, caplog):
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self.texts = []
        self.raised = []

    def take(self, *things):
        for thing in things:
            self.texts += [str(thing), repr(thing)]

    def outcome(self, outcome):
        self.take(outcome, outcome.to_dict(), outcome.explain(), outcome.steps, outcome.latency)

    def router(self, router):
        self.take(router, router.metrics(), router.statistics(), router.health())

    @contextlib.contextmanager
    def errors(self, kind=Exception):
        with pytest.raises(kind) as caught:
            yield
        error = caught.value
        self.raised.append(error)
        if getattr(error, "outcome", None) is not None:
            self.outcome(error.outcome)
        ours = isinstance(error, CascadeError)
        for each in chain(error):
            if isinstance(each, (UserError, KeyError)):  # what a tier says is the tier's own affair
                return
            self.take(each, each.args)
        if ours:
            # The frames' own lines are these tests': they hold the word.
            self.texts += traceback.format_exception_only(error)

    def check(self):
        for record in self._caplog.records:
            self.texts += [record.getMessage(), str(record.args), str(record.exc_info)]
        assert self.texts
        for text in self.texts:
            for word in SEEN:
                assert word not in text, text


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class UserError(Exception):
    """Raised by a tier, with the input in it."""


@pytest.fixture
def sinks(caplog):
    found = Sinks(caplog)
    yield found
    found.check()


def tree(**more):
    return {
        "version": 1, "name": "p", "deadline": "10s", "cache": {},
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.5], "abstain_below": 0.2},
    } | more  # fmt: skip


def says(value, confidence, **how):
    return scripted(lambda _: (value, confidence), **how)


def fails(error, **how):
    return scripted(error=error, **how)


ENDS = {
    "accepted": lambda **how: (says("a", 0.9, **how), says("b", 0.9, **how)),
    "escalated": lambda **how: (says("a", 0.3, **how), says("b", 0.9, **how)),
    "degraded": lambda **how: (says("a", 0.3, **how), fails(UserError(CANARY), **how)),
    "abstained": lambda **how: (says("a", 0.1, **how), fails(UserError(CANARY), **how)),
    "recovered": lambda **how: (fails(UserError(CANARY), **how), says("b", 0.9, **how)),
    "no confidence": lambda **how: (says("a", float("nan"), **how), says("b", 0.9, **how)),
}
REQUEST = {"tenant": CANARY, "metadata": {CANARY: CANARY}}
INPUTS = [CANARY, CANARY.encode(), {CANARY: NUMBER}, [CANARY, NUMBER], NUMBER, np.full(3, NUMBER)]


@pytest.mark.parametrize("end", ENDS)
def test_answers_say_nothing_of_what_was_asked(sinks, end):
    small, large = ENDS[end]()
    with router_for(tree(), small=small, large=large) as router:
        for x in INPUTS:
            for _ in range(2):
                sinks.outcome(router.route(x, **REQUEST))
            many = router.route_many([x, x], use_cache=True, **REQUEST)
            sinks.take(many)
            for outcome in many:
                sinks.outcome(outcome)
        sinks.router(router)


@pytest.mark.parametrize("end", ENDS)
def test_nor_do_those_of_an_event_loop(sinks, end):
    async def main(loop):
        small, large = ENDS[end](asynchronous=True)
        router = async_router_for(tree(), loop=loop, small=small, large=large)
        for x in INPUTS:
            sinks.outcome(await router.route(x, **REQUEST))
        for outcome in await router.route_many(INPUTS, **REQUEST):
            sinks.outcome(outcome)
        sinks.router(router)

    run_virtual(main)


BROKEN = {
    "raises": fails(UserError(CANARY)),
    "raises a TimeoutError": fails(TimeoutError()),
    "not a pair": cascade.tier(lambda x: CANARY, rows="one", returns="pairs"),
    "no number": cascade.tier(lambda x: ("a", CANARY), rows="one", returns="pairs"),
    "no numbers": cascade.tier(lambda xs: [("a", CANARY)] * len(xs), returns="pairs"),
    "no confidences": cascade.tier(
        lambda xs: cascade.Prediction([CANARY], confidences=[CANARY]), returns="prediction"
    ),
    "no matrix": cascade.tier(lambda xs: [[CANARY]], returns="probabilities", classes=["a", "b"]),
    "no result": cascade.tier(lambda xs: CANARY),
    "wrong count": cascade.tier(lambda xs: [CANARY] * 7),
    "a generator": cascade.tier(lambda xs: (x for x in xs)),
    "a key error": cascade.tier(lambda x: {}[x], rows="one"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_errors_say_nothing_of_what_was_asked_or_answered(sinks, how):
    tier = BROKEN[how]
    policy = tree(tiers=[{"name": "small", "kind": "external"}], escalation={}, mode="top_only")
    with router_for(policy, small=tier) as router:
        with sinks.errors(CascadeError):
            router.route(CANARY, **REQUEST)
        assert sinks.raised[-1].tier == "small"
        for outcome in router.route_many([CANARY, CANARY], **REQUEST):
            sinks.outcome(outcome)
        sinks.router(router)


def test_refusals_say_nothing_of_who_asked(sinks):
    async def main(loop):
        slow = scripted(hangs=True)
        policy = tree(deadline="20ms")
        router = async_router_for(policy, loop=loop, small=slow, large=slow)
        with sinks.errors(cascade.DeadlineExceeded):
            await router.route(CANARY, **REQUEST)
        sinks.router(router)

    run_virtual(main)
    gate, policy = threading.Event(), tree(deadline="60s")
    for spec in policy["tiers"]:
        spec.update(execution="worker", workers=1, queue=1)

    stuck = cascade.tier(lambda _: gate.wait(60) and ("a", 0.9), rows="one", returns="pairs")
    refused = threading.Event()
    with router_for(policy, small=stuck, large=stuck) as router:

        def ask(x):
            try:
                router.route(x, **REQUEST)
            except CascadeError as error:
                sinks.raised.append(error)
                refused.set()

        threads = [threading.Thread(target=ask, args=(f"{CANARY} {i}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        assert refused.wait(60)
        gate.set()
        for thread in threads:
            thread.join()
        assert {type(e) for e in sinks.raised} >= {cascade.Overloaded, cascade.DeadlineExceeded}
        sinks.take(*sinks.raised, *(error.outcome for error in sinks.raised))
        sinks.router(router)


def identity(folder, dtype=TensorProto.FLOAT, names="x"):
    ends = [helper.make_tensor_value_info(n, dtype, [None, 2]) for n in names]
    out = helper.make_tensor_value_info("p", dtype, [None, 2])
    nodes = [helper.make_node("Identity", [names[0]], ["p"])]
    graph = helper.make_graph(nodes, "g", ends, [out])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    tiers = [{"name": "it", "kind": "onnx", "model": "m.onnx"}]
    tree = {"version": 1, "name": "t", "deadline": "10s", "tiers": tiers, "cache": {},
            "inputs": {"validate": "finite"}}  # fmt: skip
    return Router(Policy.from_dict(tree, root=folder), env={})


BAD = [
    CANARY, CANARY.encode(), [CANARY, CANARY], {CANARY: [1.0, 2.0]}, {"x": CANARY}, [NUMBER],
    {CANARY: NUMBER}, {"x": [NUMBER, 1.0], CANARY: 1}, [NUMBER, [NUMBER]], [NUMBER, float("nan")],
    np.full((5, 2), NUMBER), np.array([CANARY, CANARY]), np.array([CANARY, 1], dtype=object),
    np.full(2, NUMBER + 1j), [NUMBER, NUMBER], [10**400, NUMBER], {1: CANARY, 2: CANARY}, None,
]  # fmt: skip


@pytest.mark.parametrize("names", ["x", "xy"])
def test_bad_inputs_are_described_and_not_shown(sinks, tmp_path, names):
    with identity(tmp_path, names=names) as router:
        for x in BAD:
            for route in (router.route, router.route_many):
                for given in (x, {"x": x, "y": x}, {"x": x, CANARY: x}):
                    with sinks.errors():
                        route(given, **REQUEST)
                        raise UserError  # it was good, in a way
        sinks.router(router)
        assert sum(isinstance(e, CascadeError) for e in sinks.raised) > 40
        assert all(isinstance(e, (CascadeError, UserError)) for e in sinks.raised), sinks.raised


def test_nothing_is_written_that_was_not_asked_for(sinks, tmp_path, monkeypatch):
    env = {"CASCADE_METRICS_DIR": str(tmp_path / "metrics")}
    policy = Policy.from_dict(tree(mode="observe"))
    (tmp_path / "metrics").mkdir()
    with Router(
        policy, tiers={"small": says("a", 0.3), "large": says("b", 1.0)}, env=env
    ) as router:
        router.record(tmp_path / "rows", 1.0)
        for x in INPUTS:
            outcome = router.route(x, **REQUEST)
            router.feedback(outcome.id, "b")
        router.flush()
        sinks.take(router.metrics())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 2
    sinks.take(*(file.name for file in files), *(file.read_text() for file in files))


def test_what_a_tier_gets_shows_no_input(sinks):
    seen = []

    def look(_, job):
        seen.append(job)
        return "a", 0.9

    small = cascade.tier(look, rows="one", returns="pairs", context=True)
    with router_for(tree(), small=small) as router:
        router.route(CANARY, **REQUEST)
        sinks.take(*seen, router, router._service, router._service.plan.engine)
    assert len(seen) == 1


def test_metrics_have_few_series_however_many_ask(sinks):
    ends = ("accepted", "escalated", "degraded", "abstained", "recovered")
    with router_for(tree(), small=says("a", 0.9), large=says("b", 0.9)) as router:
        for round_ in range(40):
            small, large = ENDS[ends[round_ % len(ends)]]()
            policy = Policy.from_dict(tree(name=f"p{round_}", revision=f"r{round_}"))
            router.swap(policy, tiers={"small": small, "large": large})
            for i in range(25):
                router.route(f"{CANARY} {round_} {i}", tenant=f"{CANARY} {i}")
        lines = [line for line in router.metrics().splitlines() if not line.startswith("#")]
        sinks.take(*lines)
    names = {line.rpartition(" ")[0] for line in lines}
    assert len(names) == len(lines) <= 100


def test_an_async_router_over_a_router_is_as_discreet(sinks):
    async def main():
        tiers = {"small": fails(UserError(CANARY)), "large": says("b", 1.0)}
        router = AsyncRouter(Policy.from_dict(tree()), tiers=tiers, env={})
        async with router:
            for x in INPUTS:
                sinks.outcome(await router.route(x, **REQUEST))
            sinks.router(router)

    asyncio.run(main())
