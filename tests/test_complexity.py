"""Complexity: what a rule can be applied to, and what is said of what it cannot."""

import asyncio
import re

import numpy as np
import pytest
from onnx import helper

import cascade
from cascade import AsyncRouter, InputTypeError, InputValueError, Policy, PolicyError, Router
from cascade.complexity import estimator, misfit, rows_estimator
from cascade.protocols import InputSpec
from tests.test_inputs import Table
from tests.tiers.test_onnx import INT64, STRING, identity, model

SURE = cascade.tier(lambda x: ("a", 0.9), returns="pairs", rows="one")
TIERS = {"small": SURE, "large": SURE}
LIST, LENGTH = [1.0, 2.0], {"length": 1.0}
SECRET = "sekret"


def policy(weights, **more):
    return Policy.from_dict(
        {
            "version": 1,
            "name": "p",
            "deadline": "1s",
            "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
            "escalation": {"thresholds": [0.8]},
            "complexity": {"weights": weights, "skip_above": [0.5]},
            **more,
        }
    )


@pytest.mark.parametrize("weights", [[], {}, ()])
def test_a_rule_has_a_weight(weights):
    with pytest.raises(PolicyError, match="one or more numbers"):
        policy(weights)


X = InputSpec("x", "float32", (3,))
TEXT = InputSpec("t", "text", (1,))
A, B = InputSpec("a", "float32", (1,)), InputSpec("b", "int64", ())


@pytest.mark.parametrize(
    ("weights", "specs", "words"),
    [
        (LIST, [X], r"expected 3 numbers for 'x': float32 row of shape \(3,\), got 2"),
        (LIST, [InputSpec("x", "float32", (3, 2))], "expected 6 numbers"),
        (LIST, [TEXT], r"by the names of statistics of a text \('t': text\), got a list"),
        (LIST, [A, B], "by the names of inputs"),
        ({"lenght": 1.0}, [TEXT], "did you mean 'length'"),
        ({"colour": 1.0}, [TEXT], "it has length, words"),
        ({"a": 1.0, "c": 1.0}, [A, B], "'c' is nothing"),
        ({"a": 1.0, "x": 1.0}, [A, X], "'x' is nothing"),
        ({"height": 1.0}, [X], "give a list, one number per element"),
    ],
)
def test_a_rule_that_does_not_fit_the_inputs_is_told_apart(weights, specs, words):
    assert re.search(words, str(misfit(weights, specs)))


@pytest.mark.parametrize(
    ("weights", "specs"),
    [
        (LIST, []),
        (LIST, [InputSpec("x", "float32", (2,))]),
        (LIST, [InputSpec("x", "float32", (1, 2))]),
        (LIST, [InputSpec("x", "float32", (None,))]),
        (LENGTH, [TEXT]),
        ({"b": 1.0, "a": 1.0}, [A, B]),
        ({"b": 1.0}, [A, B]),
        ({"a": 1.0}, [A]),
    ],
)
def test_a_rule_that_may_fit_is_taken(weights, specs):
    assert misfit(weights, specs) is None


def test_a_rule_that_does_not_fit_a_model_is_refused_before_the_first_request(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    tiers = [{"name": name, "kind": "onnx", "model": "m.onnx"} for name in ("small", "large")]
    for weights in ([1.0, 2.0, 3.0], LENGTH):
        router = Router(policy(weights, tiers=tiers), models=tmp_path, env={})
        with pytest.raises(PolicyError, match=r"complexity\.weights"):
            router.warmup()
    named = Router(
        policy({"height": 1.0}, tiers=tiers),
        models=tmp_path, env={}, prepare=lambda d: [d["height"], 1 - d["height"]],
    )  # fmt: skip
    with named as router:
        assert router.route({"height": 0.9}).tier == "large"
        assert router.route({"height": 0.9}, at_least="large").tier == "large"


@pytest.mark.parametrize(
    ("weights", "x", "hard"),
    [
        (LIST, [1, 1], True),
        (LIST, (-1, -1), False),
        (LIST, np.ones(2), True),
        (LIST, np.ones((1, 2), dtype=np.float32), True),
        (LENGTH, "abc", True),
        ({"length": -1.0}, {"length": 3}, False),
        (LENGTH, {"length": [3.0]}, True),
        (LENGTH, {"length": np.ones(1)}, True),
    ],
)
def test_a_rule_reads_rows_and_batches_alike(weights, x, hard):
    with Router(policy(weights), tiers=TIERS) as router:
        tier = "large" if hard else "small"
        assert router.route(x).tier == tier
        assert router.route_many([x] * 4).tiers.tolist() == [tier] * 4
        if isinstance(x, dict):
            columns = {name: [value] * 4 for name, value in x.items()}
            assert router.route_many(columns).tiers.tolist() == [tier] * 4


@pytest.mark.parametrize(
    ("weights", "x", "error", "words"),
    [
        (LIST, np.ones(3), InputValueError, "a row of 2 numbers, one per weight, got 3"),
        (LIST, np.ones(3, dtype=np.float32), InputValueError, "one per weight, got 3"),
        (LIST, SECRET, InputTypeError, "got a str"),
        (LIST, [SECRET, "1"], InputTypeError, "got a list"),
        (LIST, [[1], [2, 3]], InputValueError, "a ragged or unreadable list"),
        (LIST, {SECRET: 1}, InputTypeError, "got a dict"),
        (LENGTH, {"length": SECRET}, InputTypeError, "'length': expected a number, got a str"),
        (
            LENGTH,
            {"length": 10**400},
            InputValueError,
            "a number, got one too large",
        ),
        (LENGTH, {"length": [1, 2]}, InputValueError, "'length': expected a number, got 2"),
        (LENGTH, {SECRET: 1}, InputValueError, "a dict has no 'length'"),
        (LENGTH, 5, InputTypeError, "weights name length: expected a text, got an int"),
        ({"height": 1.0}, 5, InputTypeError, "expected a dict of them, got an int"),
        ({"lenght": 1.0}, SECRET, InputValueError, "has no 'lenght'; did you mean 'length'"),
    ],
)
def test_a_request_that_a_rule_cannot_read_is_refused(weights, x, error, words):
    async def awaited():
        async with AsyncRouter(policy(weights, cache={}), tiers=TIERS) as router:
            return await asyncio.gather(
                *(router.route(x) for _ in range(3)), return_exceptions=True
            )

    assert [type(found) for found in asyncio.run(awaited())] == [error] * 3
    with Router(policy(weights, cache={}), tiers=TIERS) as router:
        for ask in (lambda: router.route(x), lambda: router.route(x, at_least="small")):
            with pytest.raises(error, match=words) as caught:
                ask()
            assert SECRET not in str(caught.value)
        with pytest.raises(error, match=f"row 0: .*{words}"):
            router.route_many([x] * 4)


def test_the_columns_of_a_batch_need_what_the_weights_name():
    one = rows_estimator(0.0, {"a": 1.0})
    with pytest.raises(InputValueError, match="row 0: complexity: a dict has no 'a'"):
        one({"b": [1, 2]}, 2)
    with pytest.raises(InputTypeError, match=r"row 1: .* got a str"):
        one({"a": [1, "x"]}, 2)


def test_a_table_is_read_by_the_names_of_its_columns():
    table = Table(np.array([[0.0, 9.0], [9.0, 0.0]]))
    hard = rows_estimator(0.0, {"a": 1.0})(table, 2)
    assert hard.tolist() == [estimator(0.0, {"a": 1.0})({"a": x}) for x in (0.0, 9.0)]
    with Router(policy({"b": 1.0}), tiers=TIERS) as router:
        found = router.route_many(Table(np.array([[0.0, 9.0], [9.0, -1.0], [9.0, -1.0]])))
        assert found.tiers.tolist() == ["large", "small", "small"]


def test_a_row_of_any_length_is_counted_when_it_comes():
    assert estimator(0.0, LIST)([0, 0]) == 0.5
    ragged = [np.ones(2), np.ones(3)]
    with pytest.raises(InputValueError, match=r"row 1: .* got 3"):
        rows_estimator(0.0, LIST)(ragged, 2)


def test_a_text_by_the_name_of_its_input_has_statistics_too(tmp_path):
    node = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml",
        keys_strings=["yes"], values_int64s=[1], default_int64=0,
    )  # fmt: skip
    model(tmp_path / "m.onnx", [node], [("x", STRING, [None, 1])], [("y", INT64, [None, 1])])
    large = {"name": "large", "kind": "onnx", "model": "m.onnx", "outputs": "label"}
    tiers = [{"name": "small", "kind": "external"}, large]
    rule = policy(LENGTH, tiers=tiers)
    with Router(rule, models=tmp_path, env={}, tiers={"small": SURE}) as router:
        for x in ("yes", {"x": "yes"}):
            assert router.route(x).value == 1
        for batch in (["yes"] * 3, {"x": ["yes"] * 3}, np.array(["yes"] * 3)):
            assert router.route_many(batch).values.tolist() == [1] * 3
