"""The direct way over real models: alone and in company it is what the state machine does."""

import asyncio

import numpy as np
import pytest

from cascade import AsyncRouter, DeadlineExceeded, Policy, Router
from cascade.complexity import sigmoid
from cascade.direct import _easy
from cascade.protocols import BoundTier
from tests.benchmarks.models import perceptron

BY_HAND = {"metadata": {}}  # has the driver take every step
ROWS = list(np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
WEIGHTS = np.random.default_rng(1).normal(size=8).round(3).tolist()


def policy(folder, **more):
    perceptron(folder / "small.onnx", [8, 3], 0)
    perceptron(folder / "large.onnx", [8, 16, 3], 1)
    tiers = [
        {"name": name, "kind": "onnx", "model": f"{name}.onnx", "execution": "inline",
         "batch": {"max_size": 16}}
        for name in ("small", "large")
    ]  # fmt: skip
    tree = {
        "version": 1, "name": "p", "deadline": "9s", "tiers": tiers,
        "escalation": {"thresholds": [0.5]},
        "complexity": {"weights": WEIGHTS, "skip_above": [0.8]},
    }  # fmt: skip
    return Policy.from_dict({**tree, **more}, root=folder)


def told(outcome):
    steps = [(s.tier, s.result, s.threshold) for s in outcome.steps]
    return outcome.value, outcome.tier, outcome.disposition, outcome.reason, outcome.covered, steps


async def crowd(router, rows, **how):
    """Ask for all rows at once, in a loop that has seen several wait."""
    await router.route(np.zeros(8, dtype=np.float32))
    router._loop.crowded = True
    return await asyncio.gather(*(router.route(row, **how) for row in rows))


@pytest.mark.parametrize("more", [{"cache": {}}, {}], ids=["cache", "no cache"])
def test_in_company_and_alone_the_answers_are_the_same(tmp_path, more):
    found = policy(tmp_path, **more)

    async def ask(how):
        async with AsyncRouter(found, models=tmp_path) as router:
            return await crowd(router, ROWS, **how), router.statistics()

    together, books = asyncio.run(ask({}))
    by_hand, hand_books = asyncio.run(ask(BY_HAND))
    with Router(found, models=tmp_path) as router:
        alone = [router.route(row) for row in ROWS]
    assert [told(a) for a in together] == [told(a) for a in by_hand] == [told(a) for a in alone]
    assert {a.tier for a in together} == {"small", "large"}
    assert max(a.steps[0].rows or 0 for a in together) == 16
    assert (books.dispositions, books.tiers["small"].calls, books.cache) == (
        hand_books.dispositions, hand_books.tiers["small"].calls, hand_books.cache,
    )  # fmt: skip


def test_in_company_too_the_rarer_ends_are_those_of_the_state_machine(tmp_path, monkeypatch):
    """Several of one key, one that is cancelled, one that is too late, and a model that fails."""

    async def ask():
        async with AsyncRouter(policy(tmp_path, cache={}), models=tmp_path) as router:
            await crowd(router, ROWS[:2])
            plan = router._service.plan
            row, other = ROWS[10], ROWS[11]
            same = [asyncio.create_task(router.route(row)) for _ in range(3)]
            left = asyncio.create_task(router.route(other))
            late = asyncio.create_task(router.route(ROWS[12], deadline=1e-6))
            await asyncio.sleep(0)
            left.cancel()
            ended = await asyncio.gather(*same, left, late, return_exceptions=True)
            small = plan.lanes[0].tier
            monkeypatch.setattr(small, "run_rows", None)
            monkeypatch.setattr(small, "run_stoppable", None)
            router._loop.crowded = True
            broken = await asyncio.gather(*(router.route(row) for row in ROWS[20:23]))
            assert (plan.engine.flights, router._loop.active) == ({}, 0)
            return ended, broken

    (*same, left, late), broken = asyncio.run(ask())
    assert len({told(outcome)[:3] for outcome in same}) == 1
    assert isinstance(left, asyncio.CancelledError)
    assert isinstance(late, DeadlineExceeded)
    assert {(o.tier, o.steps[0].result, o.covered) for o in broken} <= {
        ("large", "failed", True), ("large", "accepted", True),
    }  # fmt: skip
    assert any(outcome.steps[0].result == "failed" for outcome in broken)


class Said(BoundTier):
    """A tier that says what it is told to, sound or not."""

    def __init__(self, name, value, confidence):
        self.name, self.said = name, (value, confidence)

    def run(self, job):
        if self.said[0] is None:
            raise ValueError

    def read(self, raw):
        return self.said

    run_rows = read_rows = None


@pytest.mark.parametrize("odd", [float("nan"), 1.5, None])
def test_each_tier_is_told_with_the_answer_that_is_its_own(monkeypatch, odd):
    """Also where a later one has said something that is no answer, or nothing."""
    names = ["small", "medium", "large"]
    said = Said("small", "cat", 0.5), Said("medium", "garbage", odd), Said("large", None, 1.0)
    monkeypatch.setattr("cascade.service.bind", lambda *_, **__: said)
    tree = {
        "version": 1, "name": "p", "deadline": "9s", "escalation": {"thresholds": [0.8, 0.8]},
        "tiers": [{"name": n, "kind": "external", "execution": "inline"} for n in names],
    }  # fmt: skip
    router = Router(Policy.from_dict(tree))
    alone, by_hand = router.route("x"), router.route("x", **BY_HAND)
    assert told(alone) == told(by_hand)
    assert (alone.value, alone.tier) == ("cat", "small")


@pytest.mark.parametrize("cut", [0.0, 1e-9, 0.2, 0.5, 0.999, 1.0, 2.0])
def test_what_is_surely_easy_is_easy(tmp_path, cut):
    """The product's limit is never above the cut, and close to it."""
    rule = {"weights": WEIGHTS, "intercept": -0.5, "skip_above": [min(cut, 1.0)]}
    if cut > 1.0:
        del rule["skip_above"]
    with Router(policy(tmp_path, complexity=rule), models=tmp_path) as router:
        plan = router._service.plan
        dot, limit = _easy(plan)
        if cut == 0.0:
            assert dot is None
            return
        scale = [float(dot(row)) for row in ROWS]
        assert scale == pytest.approx([float(np.dot(WEIGHTS, row)) for row in ROWS], rel=1e-4)
        for z in [limit - 1e-9, *(each for each in scale if each < limit)]:
            assert cut > 1.0 or sigmoid(z - 0.5) < cut
        if cut < 1.0:
            assert sigmoid(limit - 0.5) == pytest.approx(cut, rel=1e-3)
