"""What ``route_many`` returns: columns that show no more than the outcomes of their rows."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import cascade
from cascade import Disposition, InputTypeError, Policy, Router, TierOutputError
from cascade.columnar import row_at
from cascade.inputs import row_caster, rows_caster
from cascade.keys import key_maker
from cascade.protocols import InputSpec

WORDS = ["sure", "unsure", "odd"]


def router(small=None, large=None, *, more=None, **options):
    tree = {
        "version": 1, "name": "p", "deadline": "5s",
        "tiers": [{"name": name, "kind": "external"} for name in ("small", "large")],
        "escalation": {"thresholds": [0.5], "abstain_below": 0.3},
    }  # fmt: skip
    tiers = {
        "small": small or cascade.tier(_sure_of("sure"), returns="pairs", rows="one"),
        "large": large or cascade.tier(_sure_of("sure", "unsure"), returns="pairs", rows="one"),
    }
    return Router(Policy.from_dict(tree | (more or {})), tiers=tiers, **options)


def _sure_of(*words):
    return lambda x: (len(x), 0.9 if x in words else 0.1)


def _fails(x):
    raise KeyError(x)


def test_a_row_that_abstains_or_fails_has_no_value_in_the_column():
    with router() as r:
        many = r.route_many(WORDS)
        assert many.values.tolist() == [4, 6, None]
        assert (many[2].disposition, many[2].value, many[2].best) == ("abstained", None, 3)
        assert r.route_many(WORDS[:2]).values.dtype.kind in "iO"  # as the tiers gave it
    broken = cascade.tier(_fails, returns="pairs", rows="one")
    with router(large=broken, small=broken) as r:
        many = r.route_many(WORDS)
        assert many.values.tolist() == [None] * 3
        assert {str(outcome.disposition) for outcome in many} == {"failed"}


def test_rows_say_what_went_wrong_with_their_tiers_but_not_with_what():
    with router(small=cascade.tier(_fails, returns="pairs", rows="one")) as r:
        failed, answered = r.route_many(WORDS)[0].steps
        assert (failed.result, failed.error) == ("failed", "tier 'small' raised KeyError")
        assert answered.error is None
        assert "raised KeyError" in r.route_many(WORDS)[0].explain()
        one = r.route("sure")
        assert one.steps[0].error == "tier 'small' raised KeyError"
        assert "raised KeyError" in one.explain()
        assert one.to_dict()["steps"][0]["error"] == "tier 'small' raised KeyError"


def test_a_row_is_known_by_one_id():
    with router() as r:
        many, others = r.route_many(WORDS), r.route_many(WORDS)
        ids = [outcome.id for outcome in many]
        assert [many[i].id for i in range(3)] == ids
        assert len({*ids, *(outcome.id for outcome in others), r.route("sure").id}) == 7


def test_rows_cost_what_their_tiers_say():
    def priced(price):
        return cascade.tier(
            lambda xs: cascade.Prediction(
                [len(x) for x in xs],
                confidences=[0.9 if x == "sure" else 0.4 for x in xs],
                costs=[price + len(x) for x in xs],
            ),
            returns="prediction",
        )

    with router(small=priced(10), large=priced(100)) as r:
        many, one = r.route_many(WORDS), [r.route(word) for word in WORDS]
        assert [outcome.cost for outcome in many] == [14.0, 122.0, 116.0]
        assert [outcome.cost for outcome in one] == [14.0, 122.0, 116.0]


@pytest.mark.parametrize("sure", [[float("nan")], None])
def test_what_is_no_answer_has_no_cost_in_a_batch_or_alone(sure):
    def small(xs, context):
        confidences = sure and sure * len(xs)
        return cascade.Prediction(xs, confidences=confidences, costs=[5.0] * len(xs))

    def large(xs, context):
        return cascade.Prediction(xs, costs=[1.0] * len(xs))

    with router(SimpleNamespace(predict=small), SimpleNamespace(predict=large)) as r:
        found = [r.route("x"), *r.route_many(["x", "y", "z"])]
        assert [[step.result for step in one.steps] for one in found] == [
            ["failed", "accepted"]
        ] * 4
        assert [one.cost for one in found] == [1.0] * 4


def test_observers_see_every_row():
    seen = []
    with router(on_outcome=seen.append) as r:
        many = r.route_many(WORDS)
    assert [outcome.id for outcome in seen] == [outcome.id for outcome in many]


def test_the_outcomes_of_a_batch_pickle():
    with router() as r:
        many = r.route_many(WORDS)
        again = pickle.loads(pickle.dumps(many))
    assert [o.to_dict() for o in again] == [o.to_dict() for o in many]
    assert again.values.tolist() == many.values.tolist()


@pytest.mark.parametrize("cache", [None, {}])
def test_a_tenant_that_is_no_string_is_refused_for_rows_as_for_one(cache):
    with router(more={} if cache is None else {"cache": cache}) as r:
        for ask in (lambda: r.route("x", tenant=1), lambda: r.route_many(["x"], tenant=1)):
            with pytest.raises(InputTypeError, match="tenant: expected a string, got int"):
                ask()


def test_rows_that_are_cached_earn_and_cost_nothing():
    allowance = {"overall": 0.0, "per_tenant": 1.0, "burst": 4}
    more = {"cache": {}, "escalation": {"thresholds": [0.5], "allowance": allowance}}
    with router(more=more) as r:
        r.route_many(WORDS[:1] * 1_000, use_cache=True)
        earned = r._service.plan.allowance.earn(None, 0).tokens
        r.route_many(WORDS[:1] * 1_000, use_cache=True)
        assert r._service.plan.allowance.earn(None, 0).tokens == earned


def test_a_row_whose_answer_cannot_be_postprocessed_has_failed():
    def post(value):
        return 12 // (value - 6)  # not of "unsure"

    with router(postprocess=post) as r:
        many = r.route_many(WORDS[:2])
        assert many.values.tolist() == [-6, None]
        assert [str(o.disposition) for o in many] == ["accepted", "failed"]
        assert many[1].steps[-1].error == "tier 'large': its postprocess raised ZeroDivisionError"
        assert np.isnan(many.confidences[1])
        counted = r.statistics()
        assert counted.dispositions == {Disposition.ACCEPTED: 1, Disposition.FAILED: 1}


@pytest.mark.parametrize(
    ("post", "wrong"),
    [(lambda _: float("nan"), "is NaN"), (iter, "is a list_iterator; cascade does not stream")],
)
def test_what_postprocess_makes_is_held_to_what_an_answer_may_be(post, wrong):
    small = cascade.tier(lambda x: ([x], 0.9), returns="pairs", rows="one")
    with router(small=small, postprocess=post, more={"cache": {}}) as r:
        with pytest.raises(TierOutputError) as raised:
            r.route("x")
        many = r.route_many(["x", "y"], use_cache=True)
        for found in (raised.value.outcome, *many):
            assert str(found.disposition) == "failed"
            assert found.steps[-1].error == f"tier 'small': its postprocess: the value {wrong}"
        assert many.values.tolist() == [None, None]
        assert r.statistics().requests == 3


def test_what_postprocess_makes_is_a_plain_value():
    with router(postprocess=np.float32) as r:
        assert type(r.route("sure").value) is type(r.route_many(["sure"])[0].value) is float


class Part:
    """Answers with a column of what it is asked, and is sure where the next one says so."""

    def predict(self, batch, context):
        return cascade.Prediction(values=batch[:, 0], confidences=batch[:, 1])


class Reused:
    """Answers in the same array every time."""

    def __init__(self):
        self.out = np.zeros(2)

    def predict(self, batch, context):
        self.out[:] = batch[:, 0]
        return cascade.Prediction(values=self.out, confidences=batch[:, 1])


def test_answers_are_written_neither_into_the_input_nor_into_a_model_s_own_array():
    large = SimpleNamespace(
        predict=lambda xs, context: cascade.Prediction(values=np.full(len(xs), -1.0))
    )
    given = np.array([[1.0, 0.9], [2.0, 0.1]])
    with router(Part(), large) as one:
        assert one.route_many(given).values.tolist() == [1.0, -1.0]
    assert given.tolist() == [[1.0, 0.9], [2.0, 0.1]]
    reused = Reused()
    with router(reused, large) as one:
        first = one.route_many(given)
        assert reused.out.tolist() == [1.0, 2.0]
        one.route_many(7 * given)
        assert first.values.tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("specs", "batch"),
    [
        ([InputSpec("x", "float32", ())], np.arange(3.0)),
        ([InputSpec("x", "float32", (1,))], np.arange(3.0)),
        ([InputSpec("x", "float32", ()), InputSpec("t", "text", ())],
         {"x": np.arange(3.0), "t": ["a", "b", "c"]}),
        ([InputSpec("x", "int64", (None,)), InputSpec("y", "int64", ())],
         {"x": [[1], [2, 3], [4]], "y": [1, 2, 3]}),
        ([], np.arange(3.0)),
        ([], {"x": np.arange(3.0), "t": ["a", "b", "c"]}),
    ],
)  # fmt: skip
def test_a_row_has_one_key_alone_and_in_a_batch(specs, batch):
    rows, n = rows_caster(specs)(batch)
    key, cast, columns = key_maker(specs), row_caster(specs), isinstance(batch, dict)
    for i in range(n):
        alone = {name: column[i] for name, column in batch.items()} if columns else batch[i]
        assert key(row_at(rows, i, declared=bool(specs))) == key(cast(alone)) is not None
