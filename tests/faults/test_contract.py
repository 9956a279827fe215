"""Faults of tiers, through every driver: what must be so whoever asks, and however."""

import asyncio
import itertools
import math
import random
import threading

import numpy as np
import pytest

import cascade
from cascade import CascadeError, Prediction
from cascade.testing import VirtualClock, async_router_for, router_for, run_virtual, scripted

NAN, INF = math.nan, math.inf


def tree(**more):
    return {
        "version": 1, "name": "p", "deadline": "10s", "cache": {},
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.5]},
    } | more  # fmt: skip


class Found:
    """The outcomes, the calls of each tier and what was left behind."""

    def __init__(self, outcomes, router, tiers):
        self.outcomes = outcomes
        self.calls = {name: list(tier.calls) for name, tier in tiers.items()}
        plan = router._service.plan
        assert not plan.engine.flights
        for lane in plan.lanes:
            assert lane.occupancy().queued == 0
            assert not len(getattr(lane, "_running", ()))
        said = router.statistics()
        assert said.requests == sum(said.dispositions.values()) == len(outcomes)
        cache = plan.engine.cache
        self.cached = 0 if cache is None else len(cache)

    @property
    def ends(self):
        return [(str(o.disposition), str(o.reason), o.tier) for o in self.outcomes]


def of(error):
    assert isinstance(error, CascadeError), repr(error)
    assert error.outcome is not None
    return error.outcome


def sync(policy, answers, xs, **how):
    tiers = {name: scripted(answer) for name, answer in answers.items()}
    found = []
    with router_for(policy, **tiers) as router:
        for x in xs:
            try:
                found.append(router.route(x, **how))
            except CascadeError as error:
                found.append(of(error))
        return Found(found, router, tiers)


def in_a_loop(policy, answers, xs, **how):
    tiers = {name: scripted(answer, asynchronous=True) for name, answer in answers.items()}

    async def main(loop):
        router = async_router_for(policy, loop=loop, **tiers)
        asked = (router.route(x, **how) for x in xs)
        found = await asyncio.gather(*asked, return_exceptions=True)
        found = [of(f) if isinstance(f, BaseException) else f for f in found]
        return Found(found, router, tiers)

    return run_virtual(main)


def columnar(policy, answers, xs, **how):
    tiers = {name: scripted(answer) for name, answer in answers.items()}
    with router_for(policy, **tiers) as router:
        return Found(list(router.route_many(xs, use_cache=True, **how)), router, tiers)


DRIVERS = {"sync": sync, "async": in_a_loop, "columnar": columnar}


@pytest.fixture(params=DRIVERS)
def drive(request):
    return DRIVERS[request.param]


# -- 1: a tier raises ------------------------------------------------------------------------------

ERRORS = [
    ValueError("x"), OSError(5, "x"), MemoryError(), RecursionError(), KeyError("x"),
    StopIteration(), StopAsyncIteration(), AssertionError(), TimeoutError(),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    ExceptionGroup("x", [ValueError()]), cascade.TierError("x"),
    cascade.Overloaded("x"),
    ZeroDivisionError(), NotImplementedError(), ConnectionResetError(),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_what_a_tier_raises_escalates_or_is_the_librarys(drive, error):
    if drive is in_a_loop and isinstance(error, StopIteration):
        pytest.skip("Python makes it a RuntimeError inside a coroutine")
    found = drive(tree(), {"small": lambda _: error, "large": lambda _: ("b", 1.0)}, ["x"])
    assert found.ends == [("accepted", "top", "large")]
    found = drive(tree(), {"small": lambda _: ("a", 0.3), "large": lambda _: error}, ["x"])
    assert found.ends == [("degraded", "fault", "small")]
    assert (found.outcomes[0].value, found.cached) == ("a", 0)
    found = drive(tree(), {"small": lambda _: error, "large": lambda _: error}, ["x"])
    assert found.ends == [("failed", "fault", None)]
    assert found.outcomes[0].value is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_and_leaves_nothing(error):
    small = scripted(lambda _: error())
    with router_for(tree(), small=small, large="b") as router:
        for route in (router.route, lambda x: router.route_many([x])):
            with pytest.raises(error):
                route("x")
        assert not router._service.plan.engine.flights
        small._answers = lambda _: ("a", 1.0)
        assert router.route("x").value == "a"


@pytest.mark.parametrize("drive", [sync, in_a_loop])  # a batch that raises fails as one
def test_thousands_of_faults_leak_nothing(drive):
    draw = random.Random(1)
    plan = {i: (draw.random(), draw.random()) for i in range(3_000)}

    def small(i):
        return LookupError() if plan[i][0] < 0.3 else ("a", plan[i][0])

    def large(i):
        return LookupError() if plan[i][1] < 0.3 else ("b", 1.0)

    patient = {"kind": "external", "queue": 5_000, "breaker": {"rate": "100%", "minimum": 500}}
    policy = tree(tiers=[{"name": name, **patient} for name in ("small", "large")])
    found = drive(policy, {"small": small, "large": large}, list(plan))
    for i, outcome in enumerate(found.outcomes):
        first, second = plan[i]
        if first >= 0.5:
            want = ("accepted", "confident", "small")
        elif second >= 0.3:
            want = ("accepted", "top", "large")
        else:
            want = ("failed", "fault", None) if first < 0.3 else ("degraded", "fault", "small")
        assert (str(outcome.disposition), str(outcome.reason), outcome.tier) == want
    assert found.cached == sum(o.disposition == "accepted" for o in found.outcomes)


# -- the same facts, the same ends: simulation included --------------------------------------------


def simulated(policy, answers, xs):
    rows = {name: [answer(x) for x in xs] for name, answer in answers.items()}
    recording = {"truth": ["a"] * len(xs)}
    for name, found in rows.items():
        recording[f"{name}.value"] = [value for value, _ in found]
        recording[f"{name}.confidence"] = [sure for _, sure in found]
    times = dict.fromkeys(rows, "1ms")
    arrivals = [float(i) for i in range(len(xs))]
    found = cascade.simulate(cascade.Policy.from_dict(policy), recording, arrivals, seconds=times)
    return [(str(end.disposition), str(end.reason), end.tier) for end in found.log.ends]


def test_every_driver_ends_a_request_alike():
    draw = random.Random(4)
    xs = list(range(300))
    first, second = ([draw.choice([0.0, 0.19, 0.2, 0.49, 0.5, 1.0]) for _ in xs] for _ in "ab")
    policy = tree(escalation={"thresholds": [0.5], "abstain_below": 0.2})
    answers = {"small": lambda i: ("a", first[i]), "large": lambda i: ("b", second[i])}
    want = simulated(policy, answers, xs)
    assert {end for end, _, _ in want} == {"accepted", "abstained"}
    for driver in DRIVERS.values():
        assert driver(policy, answers, xs).ends == want


# -- 5: confidences that are none ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -0.1, 1.0000001, 2.0, -1e-300, 1e308, None])
def test_a_confidence_that_is_none_is_never_accepted(drive, bad):
    found = drive(
        tree(), {"small": lambda _: ("a", bad), "large": lambda _: ("b", 1.0)}, ["x", "y"]
    )
    assert found.ends == [("accepted", "top", "large")] * 2
    found = drive(tree(), {"small": lambda _: ("a", bad), "large": lambda _: LookupError()}, ["x"])
    assert found.ends == [("failed", "fault", None)]
    assert found.cached == 0


PROBABILITIES = [
    [NAN, 1.0],
    [0.0, 0.0],
    [0.9, 0.9],
    [-0.5, 1.5],
    [INF, 0.0],
    [0.4, 0.4],
    [1.0, NAN],
]


def asked_by(drive_name, tier, policy, xs):
    """Route rows by one tier of one's own; the outcomes, faults included."""
    with router_for(policy, small=tier, large="b") as router:
        if drive_name == "columnar":
            return list(router.route_many(xs))
        if drive_name == "sync":
            return [router.route(x) for x in xs]

        async def main():
            async with cascade.AsyncRouter.over(router) as other:
                return [await other.route(x) for x in xs]

        return asyncio.run(main())


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("row", PROBABILITIES, ids=str)
def test_probabilities_that_are_none_are_never_accepted(name, row):
    tier = cascade.tier(lambda xs: np.array([row] * len(xs)), returns="probabilities")
    outcomes = asked_by(name, tier, tree(classes=["p", "q"]), ["x", "y"])
    assert [o.tier for o in outcomes] == ["large"] * 2
    sound = cascade.tier(lambda xs: np.array([[0.9, 0.1]] * len(xs)), returns="probabilities")
    outcomes = asked_by(name, sound, tree(classes=["p", "q"]), ["x", "y"])
    assert [o.value for o in outcomes] == ["p"] * 2


@pytest.mark.parametrize("rows", [2_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_no_row_is_accepted_below_its_threshold_or_without_a_confidence(rows):
    draw = np.random.default_rng(5)
    odd = np.array([NAN, INF, -INF, -1.0, 1.5, 0.5, 0.49999999999999994])
    sure = np.where(draw.random(rows) < 0.5, draw.choice(odd, rows), draw.random(rows))
    small = cascade.tier(
        lambda xs: Prediction(["a"] * len(xs), confidences=sure[np.asarray(xs)]),
        returns="prediction",
    )
    with router_for(tree(), small=small, large="b") as router:
        many = router.route_many(list(range(rows)))
        sound = (sure >= 0.5) & (sure <= 1.0)
        assert [tier == "small" for tier in many.tiers] == sound.tolist()
        for i in range(0, rows, 101):
            assert (router.route(i).tier == "small") == sound[i]


# -- 6: answers that are none ----------------------------------------------------------------------

MALFORMED = {
    "nothing": lambda n: None,
    "too few": lambda n: Prediction(["a"] * (n - 1), confidences=[0.9] * (n - 1)),
    "too many": lambda n: Prediction(["a"] * (n + 1), confidences=[0.9] * (n + 1)),
    "too few confidences": lambda n: Prediction(["a"] * n, confidences=[0.9] * (n + 2)),
    "no numbers": lambda n: Prediction(["a"] * n, confidences=["x"] * n),
    "objects": lambda n: Prediction(["a"] * n, confidences=[object()] * n),
    "empty": lambda n: Prediction(),
    "a vector for a matrix": lambda n: Prediction(probabilities=np.full(n, 0.5)),
    "three axes": lambda n: Prediction(probabilities=np.full((n, 2, 1), 0.5)),
    "other classes": lambda n: Prediction(probabilities=np.full((n, 3), 1 / 3)),
    "an object matrix": lambda n: Prediction(probabilities=np.full((n, 2), None)),
    "text": lambda n: Prediction(probabilities=np.full((n, 2), "0.5")),
    "complex": lambda n: Prediction(probabilities=np.full((n, 2), 0.5j)),
    "more rows": lambda n: Prediction(probabilities=np.full((n + 1, 2), 0.5)),
    "a dict": lambda n: {"label": "a"},
    "a string": lambda n: "a" * n,
    "a generator": lambda n: (x for x in "ab"),
}


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("how", MALFORMED)
def test_an_answer_of_the_wrong_shape_is_a_fault_of_the_tier(name, how):
    tier = cascade.tier(lambda xs: MALFORMED[how](len(xs)), returns="prediction")
    outcomes = asked_by(name, tier, tree(classes=["p", "q"]), ["x", "y"])
    assert [o.tier for o in outcomes] == ["large"] * 2
    assert {step.result for o in outcomes for step in o.steps if step.tier == "small"} == {"failed"}


def test_a_read_only_view_is_an_answer_like_any_other(drive):
    frozen = np.broadcast_to(np.float32(0.75), (3,))
    found = drive(tree(), {"small": lambda _: (frozen, 0.9), "large": lambda _: "b"}, ["x"])
    assert found.ends == [("accepted", "confident", "small")]


# -- 7: rows stay with their requests --------------------------------------------------------------


@pytest.mark.parametrize("rows", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_every_row_gets_its_own_answer(rows):
    draw = np.random.default_rng(7)
    sure = draw.random(rows)
    small = cascade.tier(lambda xs: [(("s", x), sure[x]) for x in xs], returns="pairs")
    large = cascade.tier(lambda xs: [(("l", x), 1.0) for x in xs], returns="pairs")
    xs = draw.permutation(rows).tolist()
    with router_for(tree(), small=small, large=large) as router:
        many = router.route_many(xs)
        assert [tuple(v) for v in many.values] == [("s" if sure[x] >= 0.5 else "l", x) for x in xs]


@pytest.mark.parametrize("rows", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_every_request_of_a_shared_batch_gets_its_own_answer(rows):
    policy = tree(tiers=[{"name": name, "kind": "external", "batch": {"max_size": 16},
                          "queue": 100_000} for name in ("small", "large")], cache={})  # fmt: skip
    answers = {"small": lambda x: (("s", x), x % 7 / 7), "large": lambda x: (("l", x), 1.0)}
    found = in_a_loop(policy, answers, list(range(rows)))
    assert [o.value for o in found.outcomes] == [
        ("s" if x % 7 / 7 >= 0.5 else "l", x) for x in range(rows)
    ]


# -- 8: a tier becomes slow ------------------------------------------------------------------------


def test_a_tier_that_becomes_ten_times_slower_makes_nobody_late():
    small = scripted(lambda _: ("a", 0.3), asynchronous=True, seconds=0.001)
    large = scripted(lambda _: ("b", 1.0), asynchronous=True, seconds=0.005)

    async def main(loop):
        router = async_router_for(tree(deadline="20ms"), loop=loop, small=small, large=large)
        found, late = [], 0
        for i in range(300):
            large.seconds = 0.005 if i < 100 else 0.05
            before = loop.time()
            found.append((await router.route(i)).tier)
            late += loop.time() - before > 0.0200001
        return found, late

    tiers, late = run_virtual(main)
    assert tiers == ["large"] * 100 + ["small"] * 200
    assert late == 0


def test_a_slow_tier_is_not_asked_by_those_who_have_less_time_than_it_is_known_to_take():
    small = scripted(lambda _: ("a", 0.3), asynchronous=True, seconds=0.001)
    large = scripted(lambda _: ("b", 1.0), asynchronous=True, seconds=0.05)

    async def main(loop):
        router = async_router_for(tree(deadline="1s"), loop=loop, small=small, large=large)
        for i in range(50):
            await router.route(i)
        asked = len(large.calls)
        ends = [(await router.route((i, "x"), deadline=0.02)).reason for i in range(100)]
        return ends, len(large.calls) - asked

    ends, asked = run_virtual(main)
    assert {str(reason) for reason in ends} == {"deadline"}
    assert asked <= 1


def test_a_tier_that_became_slower_than_the_deadline_is_hardly_asked_again():
    small = scripted(lambda _: ("a", 0.3), asynchronous=True, seconds=0.001)
    large = scripted(lambda _: ("b", 1.0), asynchronous=True, seconds=0.005)

    async def main(loop):
        router = async_router_for(tree(deadline="20ms"), loop=loop, small=small, large=large)
        for i in range(50):
            await router.route(i)
        large.seconds = 0.05
        for i in range(50):
            await router.route((i, "slower"))
        ends = [await router.route((i, "known")) for i in range(500)]
        return [step.result for end in ends for step in end.steps]

    results = run_virtual(main)
    assert results.count("timed_out") <= 0.01 * 500


# -- 14: a loop that the user's own code blocks ----------------------------------------------------


def test_time_that_a_blocked_loop_took_is_the_requests_own():
    small = scripted(lambda _: ("a", 0.9), asynchronous=True)

    async def main(loop):
        router = async_router_for(tree(deadline="500ms"), loop=loop, small=small)
        arrived = loop.clock()
        loop.now += 0.4  # whoever holds the loop
        outcome = await router.route("x", received=arrived)
        arrived = loop.clock()
        loop.now += 0.6
        with pytest.raises(cascade.DeadlineExceeded):
            await router.route("y", received=arrived)
        return outcome

    outcome = run_virtual(main)
    assert outcome.latency.input == pytest.approx(0.4, abs=0.02)
    assert small.calls == ["x"]


# -- 16: deadlines that are none -------------------------------------------------------------------

DEADLINES = [0, -1, 0.0, -0.0, NAN, INF, -INF, 1e300, 10**30, "0s", "fast", "", "-1s", "1e9h"]


@pytest.mark.parametrize("deadline", DEADLINES)
def test_a_deadline_that_is_none_asks_nobody(deadline):
    tiers = {"small": scripted(lambda _: ("a", 0.9)), "large": scripted(lambda _: ("b", 0.9))}
    with router_for(tree(), **tiers) as router:
        for route in (router.route, lambda x, **how: router.route_many([x], **how)):
            with pytest.raises(ValueError, match=r"deadline|duration"):
                route("x", deadline=deadline)

        async def main():
            async with cascade.AsyncRouter.over(router) as other:
                with pytest.raises(ValueError, match=r"deadline|duration"):
                    await other.route("x", deadline=deadline)

        assert router.statistics().requests == 0
        asyncio.run(main())
    assert tiers["small"].calls == tiers["large"].calls == []


@pytest.mark.parametrize("deadline", [[1], True, b"1s", {}])
def test_what_is_no_deadline_at_all_is_a_type_error(deadline):
    with router_for(tree(), small=("a", 0.9)) as router:
        with pytest.raises(TypeError, match="deadline: expected seconds"):
            router.route("x", deadline=deadline)
        assert router.statistics().requests == 0


def test_a_budget_of_the_past_asks_nobody(drive):
    past = cascade.Budget(1)
    answers = {"small": lambda _: ("a", 0.9), "large": lambda _: ("b", 0.9)}
    found = drive(tree(), answers, ["x"], deadline=past)
    assert found.calls == {"small": [], "large": []}
    assert found.ends[0][1:] == ("deadline", None)


# -- 20, 21: clocks --------------------------------------------------------------------------------


def test_the_time_of_day_decides_nothing(monkeypatch):
    def ends():
        small = scripted(lambda i: ("a", i / 10))
        with router_for(tree(cache={"ttl": "1m"}), small=small, large="b") as router:
            found = [router.route(i) for i in [*range(10), *range(10)]]
            return [(o.tier, str(o.disposition)) for o in found], len(small.calls)

    before = ends()
    hours = itertools.cycle([0.0, 7_200.0, 3_600.0])
    monkeypatch.setattr("time.time", lambda: 1e9 + next(hours))
    assert ends() == before


def test_a_clock_that_stands_still_divides_by_nothing():
    clock = VirtualClock()
    small = scripted(lambda i: ("a", i / 10))
    with router_for(tree(), clock=clock, small=small, large="b") as router:
        for i in range(10):
            outcome = router.route(i)
            assert outcome.latency.total == 0.0
            assert outcome.explain()
        router.route_many(list(range(20, 30)))
        assert router.statistics().requests == 20
        assert router.metrics()
    recording = {
        "truth": ["a"],
        "small.value": ["a"],
        "small.confidence": [0.9],
        "large.value": ["a"],
    }
    policy = cascade.Policy.from_dict(tree())
    times = {"small": "1ms", "large": "1ms"}
    assert cascade.simulate(policy, recording, [0.0] * 5, seconds=times).n == 5


# -- 19, 32: replaced and closed under traffic -----------------------------------------------------


def test_a_thousand_swaps_mix_no_two_policies():
    """Each tier answers with its version; the digest in the outcome says which policy that was."""

    def parts(version):
        tiers = [{"name": n, "kind": "external", "version": version} for n in ("small", "large")]
        policy = cascade.Policy.from_dict(tree(tiers=tiers))
        small = cascade.tier(lambda _: (version, 0.3), rows="one", returns="pairs", version=version)
        large = cascade.tier(lambda _: version, rows="one", version=version)
        return policy, {"small": small, "large": large}

    given = [parts(str(i)) for i in range(10)]
    digests = {policy.digest: str(i) for i, (policy, _) in enumerate(given)}
    wrong, done = [], threading.Event()
    policy, tiers = given[0]
    router = cascade.Router(policy, tiers=tiers, env={})

    def ask(seed):
        asked = 0
        try:
            while not done.is_set() or asked < 100:
                outcome = router.route((seed, asked))
                asked += 1
                if outcome.value != digests[outcome.policy] or outcome.tier != "large":
                    wrong.append(outcome)
        except BaseException as error:  # noqa: BLE001  whatever it is, it must not be
            wrong.append(error)

    with router:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for i in range(1_000):
            router.swap(given[i % 10][0], tiers=given[i % 10][1])
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
