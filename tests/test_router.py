"""The router, from the outside."""

import json
import pickle

import attrs
import numpy as np
import pytest

import cascade
from cascade import (
    DeadlineExceeded,
    Degraded,
    Disposition,
    InputTypeError,
    InputValueError,
    Mode,
    Overloaded,
    Policy,
    PolicyError,
    Prediction,
    Router,
    TierError,
    TierOutputError,
)
from cascade.policy import Certificate, Escalation, PathPoint


class Clock:
    """Virtual time in ns; tiers advance it."""

    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now


def policy(threshold=0.8, **more):
    tree = {
        "version": 1, "name": "pets", "deadline": "1s",
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [threshold]},
    }  # fmt: skip
    return Policy.from_dict(tree | more)


def small(confidence=0.9, value="cat"):
    return cascade.tier(lambda x: (value, confidence), returns="pairs", rows="one")


def large(value="dog"):
    return cascade.tier(lambda x: value, rows="one")


def router(threshold=0.8, first=None, top=None, *, more=None, **options):
    tiers = {"small": first or small(), "large": top or large()}
    return Router(policy(threshold, **(more or {})), tiers=tiers, **options)


def test_a_sure_small_tier_answers_and_the_large_one_is_not_asked():
    asked = []
    with router(top=cascade.tier(asked.append, rows="one")) as r:
        outcome = r.route("meow")
    assert (outcome.value, outcome.tier, outcome.confidence) == ("cat", "small", 0.9)
    assert (outcome.disposition, outcome.reason) == ("accepted", "confident")
    assert not outcome.covered  # thresholds without a certificate promise nothing
    assert not asked


def test_an_unsure_small_tier_escalates():
    with router(first=small(0.5)) as r:
        outcome = r.route("meow")
    assert (outcome.value, outcome.tier, outcome.reason) == ("dog", "large", "top")
    assert [(step.tier, step.result) for step in outcome.steps] == [
        ("small", "unsure"), ("large", "accepted"),
    ]  # fmt: skip
    assert outcome.steps[0].threshold == 0.8
    assert outcome.covered


def test_an_outcome_has_every_field_and_goes_to_json():
    with router() as r:
        outcome = r.route("meow", deadline="20s")
    found = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert list(found) == [
        "id", "value", "tier", "confidence", "disposition", "reason", "covered", "deadline",
        "latency", "steps", "point", "policy", "mode", "cost", "shadow",
    ]  # fmt: skip
    assert found["deadline"] == pytest.approx(20.0)
    assert found["mode"] == "enforce"
    assert found["policy"] == r.policy.digest
    latency = found["latency"]
    parts = [latency[part] for part in ("input", "transfer", "compute", "output")]
    assert sum(parts) == pytest.approx(latency["total"])
    assert min(parts) >= 0
    again = pickle.loads(pickle.dumps(outcome))
    assert again.to_dict() == outcome.to_dict()


def test_ids_are_unique():
    with router() as r:
        assert len({r.route("x").id for _ in range(100)}) == 100


def test_explain_names_every_step_and_its_numbers():
    with router(first=small(0.5)) as r:
        text = r.route("meow").explain()
    for words in ("large", "small: unsure", "0.5000", "0.8000", "took"):
        assert words in text


# -- modes ---------------------------------------------------------------------------------------


def test_modes_answer_by_one_end_of_the_ladder():
    with router() as r:
        r.set_mode("top_only")
        assert r.route("x").tier == "large"
        r.set_mode(Mode.FIRST_ONLY)
        outcome = r.route("x")
        assert (outcome.tier, outcome.disposition, outcome.reason) == ("small", "degraded", "mode")
        with pytest.raises(Degraded):
            outcome.unwrap()
        assert outcome.unwrap(degraded=True) == "cat"
        r.set_mode("enforce")
        assert r.route("x").disposition is Disposition.ACCEPTED
        with pytest.raises(PolicyError, match="expected one of"):
            r.set_mode("enforced")


def test_first_only_is_never_cached():
    with router(more={"cache": {}, "mode": "first_only"}) as r:
        assert [r.route("x").disposition for _ in range(2)] == ["degraded", "degraded"]


# -- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "0s", "soon"])
def test_a_deadline_that_is_none_is_a_value_error(bad):
    with router() as r, pytest.raises(ValueError, match=r"deadline|duration"):
        r.route("x", deadline=bad)


def test_a_deadline_is_mandatory_and_clamped():
    tree = policy().to_dict()
    del tree["deadline"]
    bare = Policy.from_dict(tree)
    with Router(bare, tiers={"small": small(), "large": large()}) as r:
        with pytest.raises(PolicyError, match="missing in the call and in the policy"):
            r.route("x")
        assert r.route("x", deadline=2).deadline == 2.0
    with router(more={"max_deadline": "2s"}) as r:
        assert r.route("x", deadline=60).deadline == 2.0


def test_escalation_needs_the_time_it_takes():
    clock = Clock()

    def slow(x):
        clock.now += 50_000_000
        return "dog"

    with router(first=small(0.5), top=cascade.tier(slow, rows="one"), clock=clock) as r:
        for _ in range(5):
            assert r.route("x").tier == "large"
        outcome = r.route("x", deadline="20ms")
        assert (outcome.value, outcome.disposition) == ("cat", "degraded")
        assert outcome.reason == "deadline"
        refused = outcome.steps[-1]
        assert (refused.tier, refused.result) == ("large", "refused")
        assert refused.eta == pytest.approx(0.05)
        assert refused.remaining == pytest.approx(0.02)


def test_a_budget_that_began_at_arrival_may_be_spent_already():
    clock = Clock()
    clock.now = 10**9
    with router(clock=clock) as r, pytest.raises(DeadlineExceeded) as caught:
        r.route("x", deadline=0.1, received=0)
    assert caught.value.outcome.disposition is Disposition.SHED
    assert caught.value.outcome.to_dict()["value"] is None


@pytest.mark.parametrize(
    ("received", "error"),
    [(1.5, TypeError), ("1", TypeError), (2**70, ValueError), (-(2**70), ValueError),
     (10**9 + 1, ValueError)],
)  # fmt: skip
def test_a_time_of_arrival_that_cannot_be_is_refused_before_anything_is_counted(received, error):
    clock = Clock()
    clock.now = 10**9
    with router(clock=clock) as r:
        with pytest.raises(error, match=r"received: .*time\.monotonic_ns"):
            r.route("x", received=received)
        assert r.route("x", received=np.int64(10**9 - 5)).latency.input == pytest.approx(5e-9)
        assert r.statistics().requests == 1


# -- the cache -----------------------------------------------------------------------------------


def test_a_hit_is_a_fresh_outcome_of_the_tier_that_answered():
    with router(more={"cache": {}}) as r:
        first, second = r.route("x"), r.route("x")
        assert (second.disposition, second.reason, second.tier) == ("cached", "cache", "small")
        assert (second.value, second.confidence) == (first.value, first.confidence)
        assert first.id != second.id
        assert r.route("x", use_cache=False).disposition is Disposition.ACCEPTED
        assert r.route("y").disposition is Disposition.ACCEPTED


def test_at_least_is_never_answered_from_a_smaller_tiers_cached_result():
    with router(more={"cache": {}}) as r:
        assert r.route("x").tier == "small"
        outcome = r.route("x", at_least="large")
        assert (outcome.tier, outcome.disposition) == ("large", "accepted")
        again = r.route("x", at_least="large")
        assert (again.tier, again.disposition) == ("large", "cached")
        assert r.route("x").tier == "large"  # the dearer answer serves both


@pytest.mark.parametrize("many", [False, True])
def test_what_a_floor_had_answered_is_not_what_was_promised_to_others(many):
    """The middle tier's answer to what the small one knows: accepted, not covered, not kept."""
    policy = Policy.from_dict(
        {
            "version": 1, "name": "three", "deadline": "1s", "cache": {},
            "tiers": [
                {"name": name, "kind": "external", "version": "1"}
                for name in ("small", "middle", "large")
            ],
            "escalation": {"thresholds": [0.8, 0.8]},
        }
    )  # fmt: skip
    point = PathPoint(thresholds=(0.8, 0.8), losses=0, p_value=0.01)
    never = PathPoint(thresholds=(2.0, 2.0), losses=0, p_value=0.0)
    certificate = Certificate(
        loss="gross", max_loss=0.1, alpha=0.1, n=100, path=(never, point), certified=2,
        tiers=("small", "middle", "large"), covers="adaptive",
    )  # fmt: skip
    policy = attrs.evolve(
        policy, escalation=Escalation(certificate="c.json"), certificate=certificate
    )
    sure = {
        name: cascade.tier(lambda x, name=name: (name, 0.9), returns="pairs", rows="one")
        for name in ("small", "middle", "large")
    }
    with Router(policy, tiers=sure) as r:

        def ask(**settings):
            if not many:
                return r.route("x", **settings)
            return r.route_many(["x"], use_cache=True, **settings)[0]

        found = ask(at_least="middle")
        assert (found.tier, found.covered, found.disposition) == ("middle", False, "accepted")
        found = ask()
        assert (found.tier, found.covered, found.disposition) == ("small", True, "accepted")
        assert ask().disposition == "cached"
        found = ask(at_least="large")
        assert (found.tier, found.covered) == ("large", True)
        found = ask(at_least="middle")
        assert (found.tier, found.covered, found.disposition) == ("large", True, "cached")


def test_tenants_do_not_see_each_others_answers():
    with router(more={"cache": {}}) as r:
        r.route("x", tenant="a")
        assert r.route("x", tenant="b").disposition is Disposition.ACCEPTED
        assert r.route("x").disposition is Disposition.ACCEPTED
        assert r.route("x", tenant="a").disposition is Disposition.CACHED


def test_nothing_but_accepted_answers_is_cached():
    with router(first=small(0.5), top=cascade.tier(fail, rows="one"), more={"cache": {}}) as r:
        assert [r.route("x").disposition for _ in range(2)] == ["degraded", "degraded"]


def test_a_cached_value_cannot_be_changed_by_a_caller():
    answers = cascade.tier(lambda x: ({"labels": ["cat"]}, 0.9), returns="pairs", rows="one")
    with router(first=answers, more={"cache": {}}) as r:
        r.route("x").value["labels"].append("dog")
        r.route("x").value["labels"].append("dog")
        assert r.route("x").value == {"labels": ["cat"]}
    arrays = cascade.tier(lambda x: (np.zeros(2), 0.9), returns="pairs", rows="one")
    with router(first=arrays, more={"cache": {}}) as r:
        r.route("x").value[:] = 1
        with pytest.raises(ValueError, match="read-only"):
            r.route("x").value[:] = 1


def test_entries_expire_in_the_routers_own_time():
    clock = Clock()
    with router(more={"cache": {"ttl": "1s"}}, clock=clock) as r:
        r.route("x")
        clock.now += 999_999_999
        assert r.route("x").disposition is Disposition.CACHED
        clock.now += 1
        assert r.route("x").disposition is Disposition.ACCEPTED


# -- faults --------------------------------------------------------------------------------------


def fail(x):
    raise KeyError("a secret of the input")


def test_a_failing_tier_escalates_and_is_counted():
    with router(first=cascade.tier(fail, returns="pairs", rows="one")) as r:
        outcome = r.route("x")
        assert (outcome.value, outcome.steps[0].result) == ("dog", "failed")
        assert r.statistics().tiers["small"].results == {"failed": 1}


def test_when_all_fail_the_last_error_is_raised_without_the_input():
    failing = cascade.tier(fail, returns="pairs", rows="one")
    with router(first=failing, top=failing) as r:
        with pytest.raises(TierError) as caught:
            r.route("x")
    error = caught.value
    assert error.tier == "large"
    assert isinstance(error.__cause__, KeyError)
    assert "secret" not in str(error)
    assert error.outcome.disposition is Disposition.FAILED
    assert pickle.loads(pickle.dumps(error)).tier == "large"


@pytest.mark.parametrize(
    ("answer", "returns", "rows"),
    [
        (("cat", float("nan")), "pairs", "one"),
        (("cat", 1.5), "pairs", "one"),
        (("cat", "sure"), "pairs", "one"),
        ("cat", "pairs", "one"),
        ([("cat", 0.9), ("cat", 0.9)], "pairs", "batch"),
        ([0.5, 0.6], "probabilities", "one"),
        ([float("nan"), 1.0], "probabilities", "one"),
        (Prediction(["cat", "dog"], confidences=[0.9]), "prediction", "batch"),
        (Prediction(["cat"], confidences=[float("inf")]), "prediction", "batch"),
        (("cat", 0.9), "pairs", "batch"),
        ((word for word in ["cat"]), "pairs", "batch"),
        (None, "pairs", "batch"),
    ],
)
def test_what_cannot_be_an_answer_escalates_and_is_counted(answer, returns, rows):
    first = cascade.tier(lambda x: answer, returns=returns, rows=rows)
    with router(first=first) as r:
        assert r.route("x").tier == "large"
        assert r.statistics().tiers["small"].results == {"failed": 1}
    alone = Policy.from_dict(
        {"version": 1, "name": "one", "deadline": 1, "tiers": [{"name": "it", "kind": "external"}]}
    )
    with Router(alone, tiers={"it": first}) as r, pytest.raises(TierError):
        r.route("x")


def test_a_tuple_from_a_bare_callable_names_the_way_out():
    with router(first=small(0.1), top=lambda xs: ("cat", 0.9)) as r:
        outcome = r.route("x")
        assert (outcome.value, outcome.reason) == ("cat", "fault")
    alone = {"version": 1, "name": "one", "deadline": 1}
    alone["tiers"] = [{"name": "it", "kind": "external"}]
    with Router(Policy.from_dict(alone), tiers={"it": lambda xs: ("cat", 0.9)}) as r:
        with pytest.raises(TierOutputError, match="returns="):
            r.route("x")


def test_keyboard_interrupt_passes_through_and_frees_the_flight():
    calls = []

    def interrupt(x):
        calls.append(x)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return ("cat", 0.9)

    first = cascade.tier(interrupt, returns="pairs", rows="one")
    with router(first=first, more={"cache": {}}) as r:
        with pytest.raises(KeyboardInterrupt):
            r.route("x")
        assert r.route("x").value == "cat"


# -- functions around the tiers --------------------------------------------------------------------


def test_prepare_runs_before_the_key_and_postprocess_before_the_cache():
    with router(
        first=cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one"),
        more={"cache": {}}, prepare=str.lower, postprocess=str.title,
    ) as r:  # fmt: skip
        assert r.route("MEOW").value == "Meow"
        assert r.route("meow").disposition is Disposition.CACHED
        assert r.route_many(["A", "b", "C"]).values.tolist() == ["A", "B", "C"]


@pytest.mark.parametrize("cache", [None, {}])
def test_an_answer_that_cannot_be_postprocessed_is_a_fault_that_is_counted(cache):
    def post(value):
        raise KeyError(value)

    more = {} if cache is None else {"cache": cache}
    with router(postprocess=post, more=more) as r:
        for _ in range(2):  # it was not cached
            with pytest.raises(TierError, match=r"'small': its postprocess raised KeyError$") as e:
                r.route("x")
            assert isinstance(e.value.__cause__, KeyError)
            assert e.value.outcome.disposition is Disposition.FAILED
            assert e.value.outcome.steps[-1].error == str(e.value)
        assert r.statistics().dispositions == {Disposition.FAILED: 2}


def test_what_prepare_raises_is_about_the_input_and_does_not_show_it():
    def prepare(x):
        return x["text"]

    with router(prepare=prepare) as r:
        for ask in (lambda: r.route({"txt": "secret"}), lambda: r.route_many([{"txt": "secret"}])):
            with pytest.raises(InputValueError, match=r"^prepare: raised KeyError$") as error:
                ask()
            assert isinstance(error.value.__cause__, KeyError)
        with pytest.raises(InputTypeError, match=r"^prepare: raised TypeError$"):
            r.route(1)
        assert r.statistics().requests == 0


def test_a_tiers_own_prepare_runs_at_its_first_call_alone():
    seen = []

    def prepare(x):
        seen.append(x)
        return x * 2

    echo = cascade.tier(lambda x: x, rows="one")
    with router(first=small(0.5), top=echo, prepare={"large": prepare}) as r:
        assert r.route("ab").value == "abab"
        assert r.route_many(["a", "b", "c"]).values.tolist() == ["aa", "bb", "cc"]
    with router(top=echo, prepare={"large": prepare}) as r:
        r.route("never")
    assert "never" not in seen
    with pytest.raises(PolicyError, match="did you mean 'large'"):
        router(prepare={"larg": prepare})


def test_context_tells_a_tier_of_its_request():
    def ask(x, context):
        assert 0 < context.remaining() <= 50.0
        return (f"{context.tenant} {context.metadata['lang']} {context.cancelled()}", 0.9)

    first = cascade.tier(ask, returns="pairs", rows="one", context=True)
    with router(first=first) as r:
        outcome = r.route("x", deadline=50, tenant="acme", metadata={"lang": "en"})
    assert outcome.value == "acme en False"


def test_observers_see_every_outcome_and_their_errors_are_counted():
    seen = []

    def broken(outcome):
        seen.append(outcome.value)
        raise RuntimeError

    with router(on_outcome=broken) as r:
        assert r.route("x").value == "cat"
        assert r.statistics().observer_errors == 1
    assert seen == ["cat"]


# -- building, entering, looking inside ------------------------------------------------------------


def test_what_does_not_fit_the_policy_is_refused_when_built():
    with pytest.raises(PolicyError, match="bind it with"):
        Router(policy(), tiers={"small": small()})
    with pytest.raises(PolicyError, match="did you mean 'small'"):
        Router(policy(), tiers={"smal": small(), "large": large()})

    async def later(xs):
        return xs

    with pytest.raises(PolicyError, match="asynchronous"):
        router(first=later)


def test_life():
    r = router()
    assert not r.ready
    assert r.route("x").value == "cat"  # a request warms up by itself
    assert r.ready
    assert r.health().tiers == ("small", "large")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(r)
    r.close()
    with pytest.raises(PolicyError, match="closed"):
        r.route("x")


def test_at_least_names_a_tier():
    with router() as r:
        assert r.route("x", at_least="large").tier == "large"
        with pytest.raises(PolicyError, match="no tier 'larg'"):
            r.route("x", at_least="larg")


def test_statistics_add_up():
    with router(first=cascade.tier(by_word, returns="pairs", rows="one"), more={"cache": {}}) as r:
        for word in ["sure", "sure", "unsure", "other"] * 300:
            r.route(word)
        found = r.statistics()
    assert found.requests == sum(found.dispositions.values()) == 1200
    assert found.dispositions == {"accepted": 3, "cached": 1197}
    assert found.tiers["small"].results == {"accepted": 1, "unsure": 2}
    assert found.tiers["large"].calls == 2
    assert (found.cache.hits, found.cache.misses, found.cache.entries) == (1197, 3, 3)
    assert found.latency["total"].count == 1200
    parts = sum(found.latency[part].sum for part in ("input", "transfer", "compute", "output"))
    assert parts == pytest.approx(found.latency["total"].sum)
    assert found.bottleneck is not None


def by_word(x):
    return ("cat", 0.9 if x == "sure" else 0.1)


def test_metrics_are_prometheus_text():
    with router(first=small(0.5)) as r:
        r.route("x")
        r.route_many(["x", "y", "z"])
        text = r.metrics()
    label = 'policy="pets",tier="large",disposition="accepted",reason="top"'
    assert f"cascade_requests_total{{{label}}} 4" in text
    assert 'cascade_tier_calls_total{tier="small",result="unsure"} 4' in text
    assert 'cascade_latency_seconds_count{part="total"} 1' in text
    assert 'cascade_mode{mode="enforce"} 1' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP", "# TYPE", "cascade_"))


def test_overloaded_carries_when_to_come_back():
    error = Overloaded("full", retry_after=0.25)
    assert pickle.loads(pickle.dumps(error)).retry_after == 0.25


def test_an_empty_dict_is_no_input_and_no_tier_hears_of_it():
    asked = []
    with Router(policy(), tiers={"small": asked.append, "large": asked.append}) as router:
        for ask in (router.route, lambda x: router.route_many([x])):
            with pytest.raises(InputValueError, match="an empty dict"):
                ask({})
    assert not asked
