"""The direct way gives what the state machine gives: the same answers, steps, times and books."""

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cascade
from cascade import Policy, Router
from cascade.complexity import estimator
from cascade.errors import CascadeError
from cascade.types import NEVER, OperatingPoint

TIERS = ("small", "middle", "large")
confidences = st.sampled_from([0.3, 0.5, 0.3, 0.5, 0.6, 0.9, 1.0, 0.0, math.nan, 1.5, -0.1, None])
values = st.sampled_from([1, 0.5, "a", "b", None, math.nan, [1], True])
hard = estimator(-3.0, {"length": 0.7})
BY_HAND = {"metadata": {}}  # has the driver take every step


@st.composite
def worlds(draw):
    tree = {
        "version": 1, "name": "p", "deadline": "40ns",
        "escalation": {"thresholds": [0.5, 0.5]},
        "mode": draw(st.sampled_from(["enforce"] * 4 + ["top_only", "first_only"])),
        "tiers": [
            {"name": name, "kind": "external", "execution": "inline"} for name in TIERS
        ],
    }  # fmt: skip
    cuts = ()
    if draw(st.booleans()):
        at = st.sampled_from([0.0, 0.5, 1.0, *(hard("x" * n) for n in range(6))])
        cuts = tuple(sorted(draw(st.lists(at, min_size=1, max_size=2))))
        tree["complexity"] = {"weights": {"length": 0.7}, "intercept": -3, "skip_above": cuts}
    thresholds = draw(st.tuples(*[st.sampled_from([0.5, 0.9, NEVER, 0.0])] * 2))
    if draw(st.booleans()):
        tree["cache"] = {"entries": draw(st.integers(1, 4))}
    if draw(st.integers(0, 4)) == 4:
        tree["escalation"]["abstain_below"] = 0.55
    broken = st.sampled_from([False] * 5 + [True])
    answer = st.tuples(confidences, values, st.sampled_from([0, 1, 9, 10, 20, 30]), broken)
    return {
        "policy": Policy.from_dict(tree),
        "point": OperatingPoint(0, thresholds, cuts, certified=draw(st.booleans())),
        "bare": draw(st.tuples(*[st.sampled_from([True, True, True, False])] * 3)),
        "answers": draw(st.lists(st.tuples(answer, answer, answer), min_size=1, max_size=5)),
        "asked": draw(
            st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "a"])), min_size=4)
        ),
        "refusing": draw(
            st.dictionaries(
                st.integers(0, 2), st.sampled_from([1, 10, 20, 30, 31, 40, 41, -1]), max_size=1
            )
        ),
    }


class World:
    """Three tiers that answer as they were told to, each call taking its time."""

    def __init__(self, world):
        self.now, self.calls, self.world = 1_000, [], world
        tiers = {name: self._tier(i) for i, name in enumerate(TIERS)}
        self.seen = []
        self.router = Router(
            world["policy"], tiers=tiers, clock=lambda: self.now, env={},
            on_outcome=lambda outcome: self.seen.append(told(outcome)),
        )  # fmt: skip

    def _tier(self, i):
        def answer(text):
            self.calls.append((i, text))
            answers = self.world["answers"]
            confidence, value, taken, broken = answers[len(text) % len(answers)][i]
            self.now += taken
            if broken:
                raise OSError
            return value, confidence

        def batch(texts):
            pairs = [answer(text) for text in texts]
            sure = None if pairs[0][1] is None else [c for _, c in pairs]
            return cascade.Prediction([v for v, _ in pairs], confidences=sure)

        if self.world["bare"][i]:
            return cascade.tier(answer, returns="pairs", rows="one")
        return cascade.tier(batch, returns="prediction")

    def _look(self, tier, eta):
        self.calls.append((tier, eta))
        return eta

    def ask(self, text, **how):
        try:
            return told(self.router.route(text, **how))
        except CascadeError as error:
            return type(error), told(error.outcome)

    def run(self, **how):
        with self.router as router:
            plan = attrs.evolve(router._service.plan, point=self.world["point"])
            router._service.plan = plan
            for i, eta in self.world["refusing"].items():
                plan.lanes[i].eta = plan.etas[i] = lambda i=i, eta=eta: self._look(i, eta)
            answers = [self.ask("x" * n, tenant=tenant, **how) for n, tenant in self.world["asked"]]
            said = router.statistics()
            runs = [lane.service.runs for lane in plan.lanes]
            books = said.requests, said.dispositions, said.tiers, said.cache, runs
            flights = plan.engine.flights
            return answers, self.seen, self.calls, books, flights, self.now


def told(outcome):
    return (
        repr(outcome.value), outcome.tier, repr(outcome.confidence), outcome.disposition,
        outcome.reason, outcome.covered, repr(outcome.best), outcome.deadline, outcome.latency,
        [(*s.to_dict().items(),) for s in outcome.steps],
    )  # fmt: skip


@settings(max_examples=200)
@given(worlds())
def test_it_is_what_the_state_machine_does(world):
    straight, by_hand = World(world), World(world)
    assert straight.run() == by_hand.run(**BY_HAND)


def test_it_is_the_way_that_most_requests_take(monkeypatch):
    tree = {
        "version": 1, "name": "p", "deadline": "1s", "escalation": {"thresholds": [0.5]},
        "tiers": [{"name": name, "kind": "external", "execution": "inline"} for name in "ab"],
    }  # fmt: skip
    pair = cascade.tier(lambda x: ("yes", 0.9 if x == "easy" else 0.1), returns="pairs", rows="one")
    with Router(Policy.from_dict(tree), tiers={"a": pair, "b": pair}) as router:
        monkeypatch.setattr("cascade.decide.Decision.step", None)  # nobody needs to ask it
        assert [router.route(x).tier for x in ("easy", "hard")] == ["a", "b"]
        with pytest.raises(TypeError):
            router.route("hard", **BY_HAND)
