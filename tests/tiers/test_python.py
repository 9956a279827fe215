"""Tiers in Python: what may be one, what it may return, and what is said of the rest."""

import asyncio

import numpy as np
import pytest

import cascade
from cascade import AsyncRouter, Policy, PolicyError, Prediction, Router, TierOutputError
from cascade.testing import check_tier, scripted
from cascade.tiers.python import alone, each
from cascade.types import jsonable


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"returns": "value"}, "returns: expected one of"),
        ({"rows": "each"}, "rows: expected 'batch'"),
    ],
)
def test_a_word_that_is_none_is_refused(how, words):
    with pytest.raises(PolicyError, match=words):
        cascade.tier(len, **how)


def test_what_cannot_be_called_is_no_tier():
    with pytest.raises(PolicyError, match="expected a callable, got an int"):
        cascade.tier(5)


@pytest.mark.parametrize("classes", ["ab", 5, [], ["a"], ["a", "a"], [["a"], ["b"]], [1, 1.0]])
def test_classes_are_two_or_more_different_labels(classes):
    with pytest.raises(PolicyError, match="two or more different labels"):
        cascade.tier(len, classes=classes)


def test_classes_of_an_array_are_plain_labels():
    found = cascade.tier(len, classes=np.array([1, 2])).classes
    assert (found, [type(label) for label in found]) == ((1, 2), [int, int])


TIER = {"name": "a", "kind": "external", "version": "1"}
TREE = {"version": 1, "name": "p", "deadline": "9s", "tiers": [TIER]}


class Estimator:
    def fit(self): ...
    def get_params(self): ...
    def predict(self, X): ...


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (5, "expected a callable or an object with predict"),
        (Estimator(), "wrap it: cascade.tier"),
        (cascade.tier(len, version="2"), "the policy names version '1', the tier is '2'"),
    ],
)
def test_what_cannot_be_bound_says_why(tier, words):
    with pytest.raises(PolicyError, match=words):
        Router(Policy.from_dict(TREE), tiers={"a": tier}, env={})


class Sorted:
    """A tier of one's own that says what its classes are."""

    def __init__(self, classes):
        self.classes = classes

    def predict(self, batch, context):
        return Prediction(probabilities=[[0.25, 0.75]] * len(batch))


def by_class(*classes):
    return cascade.tier(lambda xs: [[0.25, 0.75] for _ in xs], returns="probabilities",
                        classes=classes)  # fmt: skip


TWO = {**TREE, "tiers": [TIER, TIER | {"name": "b"}], "escalation": {"thresholds": [0.5]}}
UNSAID = cascade.tier(len, returns="pairs")  # its classes, that is
NAMED = TWO | {"classes": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("tree", "a", "b", "words"),
    [
        (
            TWO,
            by_class("x", "y"),
            by_class("y", "z"),
            "tiers 'a' and 'b': classes: .*; not in both: 'x', 'z'",
        ),
        (NAMED, by_class("x", "y"), len, "not in both: 'cat', 'dog', 'x', …"),
        (NAMED, UNSAID, by_class("cat", "dog", "cow"), "not in both: 'cow'"),
        (NAMED, UNSAID, Sorted(["cat", "cow"]), "not in both: 'cow', 'dog'"),
        (NAMED, UNSAID, Sorted("ab"), "tier 'b': classes: expected a list of two or more"),
    ],
)
def test_tiers_have_the_same_classes(tree, a, b, words):
    with pytest.raises(PolicyError, match=words):
        Router(Policy.from_dict(tree), tiers={"a": a, "b": b}, env={})


def test_the_order_of_the_classes_is_the_tiers_own():
    tiers = {"a": by_class("dog", "cat"), "b": Sorted(np.array(["cat", "dog"]))}
    with Router(Policy.from_dict(NAMED), tiers=tiers, env={}) as router:
        for lowest, value in (("a", "cat"), ("b", "dog")):
            assert router.route("x", at_least=lowest).value == value
            assert router.route_many(["x"] * 3, at_least=lowest).values.tolist() == [value] * 3


class Loose:
    def predict(self, batch, context):
        return ["x"] * len(batch)


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (Loose(), r"predict\(\) must return a cascade.Prediction, got list"),
        (cascade.tier(lambda xs: [("a", 0.9)] * len(xs)), "returned tuples"),
        (cascade.tier(lambda xs: "ab", returns="prediction"), "expected a Prediction, got str"),
        (cascade.tier(lambda x: (i for i in "ab"), rows="one"), "the value is a generator"),
    ],
)  # fmt: skip
def test_what_is_no_answer_says_why(tier, words):
    with Router(Policy.from_dict(TREE), tiers={"a": tier}, env={}) as router:
        with pytest.raises(TierOutputError, match=words):
            router.route("x")


def test_rows_of_named_columns_are_taken_apart_and_put_together():
    assert each({"a": [1, 2], "b": "xy"}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    batch = alone({"a": np.ones(2), "b": 3.5, "c": "x"})
    assert (batch["a"].shape, batch["b"].tolist(), batch["c"]) == ((1, 2), [3.5], ["x"])


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (5, "expected a callable or predict"),
        (scripted({"a": ("x", 0.5)}, default=("y", None)), "confidence"),
    ],
)
def test_an_author_is_told_what_is_wrong(tier, words):
    with pytest.raises(AssertionError, match=words):
        check_tier(tier, ["a", "b"])


def test_values_of_every_kind_are_compared_and_shown():
    value = {"a": np.arange(2), "b": (1, None)}
    check_tier(cascade.tier(lambda xs: [value for _ in xs]), ["a", "b"])
    check_tier(cascade.tier(lambda xs: [np.arange(2) for _ in xs]), ["a", "b"])
    assert jsonable({1: (np.arange(2), {2.5}, float("nan"), np.float32(0.5))}) == {
        "1": [[0, 1], "{2.5}", None, 0.5]
    }


def test_a_prediction_is_taken_as_it_is():
    tier = cascade.tier(lambda xs: Prediction(list(xs)), returns="prediction", version="1")
    with Router(Policy.from_dict(TREE), tiers={"a": tier}, env={}) as router:
        assert router.route("x").value == "x"


@pytest.mark.parametrize(
    ("function", "how", "said"),
    [
        (lambda xs: [("x", 1.0)], {}, "returned tuples; say what they mean"),
        (lambda xs: ("x", 1.0), {}, "returned a tuple; say what it means"),
        (lambda xs: "x", {}, "expected 1 results, got a str"),
        (lambda xs: [("x", None)], {"returns": "pairs"}, "confidence: expected a number, got None"),
        (lambda xs: xs, {"returns": "prediction"}, "expected a Prediction, got list"),
        (lambda xs: [[0.5, np.nan]], {"returns": "probabilities"},
         "probabilities: expected finite numbers"),
        (lambda xs: [[1.5, -0.5]], {"returns": "probabilities"},
         "probabilities: expected none below zero"),
        (lambda xs: [[0.5, 0.6]], {"returns": "probabilities"},
         "probabilities: expected a sum of one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_function_returned_wrongly_is_said_once_and_of_which_tier(
    function, how, said, asynchronous
):
    async def awaited(xs):
        return function(xs)

    tier = cascade.tier(awaited if asynchronous else function, **how)

    async def ask():
        async with AsyncRouter(Policy.from_dict(TREE), tiers={"a": tier}, env={}) as router:
            await router.route("x")

    with pytest.raises(TierOutputError, match=rf"^tier 'a': {said}") as caught:
        asyncio.run(ask())
    assert caught.value.tier == "a"


def test_by_itself_it_has_no_name():
    with pytest.raises(TierOutputError, match=r"^tier: returned tuples"):
        cascade.tier(lambda xs: [("x", 1.0)]).predict(["x"], None)


@pytest.mark.parametrize("rows", ["one", "batch"])
def test_a_row_without_a_pair_is_faulty_and_the_others_are_not(rows):
    known = {"x": ("X", 0.9), "y": ("Y", 0.9)}

    def ask(x):
        return known.get(x) if rows == "one" else list(map(known.get, x))

    tree = {
        "version": 1, "name": "p", "deadline": "9s", "escalation": {"thresholds": [0.5]},
        "tiers": [{"name": name, "kind": "external"} for name in "ab"],
    }  # fmt: skip
    tiers = {"a": cascade.tier(ask, returns="pairs", rows=rows), "b": lambda xs: ["?"] * len(xs)}
    with Router(Policy.from_dict(tree), tiers=tiers) as router:
        alone = [router.route(x).value for x in ("x", "odd", "y")]
        assert router.route_many(["x", "odd", "y"]).values.tolist() == alone == ["X", "?", "Y"]
        none = router.route_many(["odd", "odder"])
    assert none.values.tolist() == ["?", "?"]
    assert "expects (value, confidence) for each row, got a NoneType" in none[0].steps[0].error
