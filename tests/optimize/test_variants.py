"""Quantised and pruned models: what is made, that it is smaller, and what it answers."""

import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from cascade import MissingExtra
from cascade.optimize.export import to_onnx
from cascade.optimize.layers import hidden_layers, with_neurons
from cascade.optimize.pruning import pruned, why_not_prune
from cascade.optimize.quantizing import quantized, why_not_quantize
from cascade.optimize.trees import Forest
from tests.optimize.models import build, convolution, perceptron, rows

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
X, Y = rows(200)


def run(model, data=X):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: data})[0]


def forest(n=12, **more):
    return to_onnx(RandomForestClassifier(n, max_depth=3, random_state=0, **more).fit(X, Y), 64)


@pytest.fixture(scope="module")
def int8():
    feeds = [{"x": X[i : i + 1]} for i in range(30)]
    return {one.name: one for one in quantized(convolution(), feeds)}


def test_every_way_of_quantising_is_made(int8, capfd):
    assert list(int8) == [
        "dynamic int8", "dynamic int8, per channel",
        "static int8, MinMax", "static int8, MinMax, per channel",
        "static int8, Entropy", "static int8, Entropy, per channel",
        "static int8, Percentile", "static int8, Percentile, per channel",
        "float16",
    ]  # fmt: skip
    assert [one.problem for one in int8.values()] == [None] * 9
    assert capfd.readouterr().out == ""


def test_static_models_hold_int8_and_answer_as_before(int8):
    right = run(convolution()).argmax(axis=1)
    assert (right == Y).all()
    for name in ("static int8, MinMax", "static int8, Percentile, per channel"):
        model = onnx.load_from_string(int8[name].model)
        assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in model.graph.node}
        assert (run(int8[name].model).argmax(axis=1) == right).mean() > 0.95


def test_probabilities_still_sum_to_one(int8):
    """A softmax in steps of 1/255 does not, and serving refuses it."""
    for one in int8.values():
        assert np.abs(run(one.model).sum(axis=1) - 1.0).max() < 1e-3, one.name


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (RandomForestClassifier(3), "made of trees .TreeEnsembleClassifier.*cascade prune"),
        (LogisticRegression(), "LinearClassifier, Normalizer of ai.onnx.ml"),
    ],
)
def test_what_cannot_be_quantised_says_why(estimator, reason):
    import re

    assert re.search(reason, why_not_quantize(to_onnx(estimator.fit(X, Y), 64)))


def test_a_model_without_any_product_says_so():
    nodes = [onnx.helper.make_node("Softmax", ["x"], ["p"], axis=1)]
    only = build(nodes, {}, columns=64)
    assert why_not_quantize(only) == "it has no matrix product to quantise, only Softmax"


def test_what_can_be_is_found():
    assert why_not_quantize(convolution()) is None
    assert why_not_quantize(to_onnx(MLPClassifier((8,), max_iter=5).fit(X, Y), 64)) is None


def test_without_the_extra_the_line_to_install_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"cascade-router\[quantize\]"):
        why_not_quantize(convolution())


# -- trees -----------------------------------------------------------------------------------------


def test_a_forest_of_all_its_trees_is_the_same_forest():
    found = Forest.find(forest())
    assert found.averaged
    assert np.allclose(run(found.only(found.ids)), run(forest()), atol=1e-6)


def test_fewer_trees_are_a_smaller_model_whose_votes_still_sum_to_one():
    model = forest()
    variants = {one.name: one.model for one in pruned(model, {"input": X}, Y)}
    assert list(variants) == [f"{n} of 12 trees" for n in (9, 6, 4, 3, 2)]
    sizes = [len(model), *map(len, variants.values())]
    assert sizes == sorted(sizes, reverse=True)
    for one in variants.values():
        assert np.allclose(run(one).sum(axis=1), 1.0, atol=1e-5)


def test_the_trees_that_help_are_kept():
    """Half of the trees know the classes by heart, the others vote for anything."""
    random = np.random.default_rng(0)
    noise = RandomForestClassifier(6, max_depth=2, random_state=0).fit(X, random.permutation(Y))
    good = RandomForestClassifier(6, max_depth=6, random_state=0).fit(X, Y)
    good.estimators_ = noise.estimators_ + good.estimators_
    good.n_estimators = 12
    model = to_onnx(good, 64)
    found = Forest.find(model)
    ranked = found.ranked({"input": X}, Y)
    assert set(ranked[:4]) <= set(range(6, 12))
    half = run(found.only(ranked[:6])).argmax(axis=1)
    assert (half == Y).mean() > 0.98


def test_trees_of_a_model_of_one_row_at_a_time_are_ranked_as_any_others():
    free = forest()
    loaded = onnx.load_from_string(free)
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    orders = [
        Forest.find(model).ranked({"input": X[:40]}, Y[:40]).tolist()
        for model in (free, loaded.SerializeToString())
    ]
    assert orders[0] == orders[1]


def test_boosted_trees_keep_their_order_and_their_weights():
    boosted = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0).fit(X, Y)
    model = to_onnx(boosted, 64)
    found = Forest.find(model)
    assert not found.averaged
    assert found.ranked({"input": X}, Y).tolist() == found.ids.tolist()
    fewer = list(boosted.staged_predict_proba(X))[2]  # 3 stages of 4 classes
    assert np.allclose(run(found.only(found.ids[:12])), fewer, atol=1e-4)
    names = [one.name for one in pruned(model, {"input": X}, Y)]  # whole stages, a tree per class
    assert names == [f"{n} of 20 trees" for n in (16, 8, 4)]


@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_pruned_model_is_that_of_the_estimator_with_the_same_trees(kind, classes):
    """So nothing is gained by pruning the estimator before its export.

    Of two classes the converter writes the share of one alone.
    """
    truth = Y % classes
    whole = kind(8, max_depth=4, random_state=0).fit(X, truth)
    found = Forest.find(to_onnx(whole, 64))
    assert found.averaged
    kept = found.ranked({"input": X}, truth)[:3]
    whole.estimators_ = [whole.estimators_[one] for one in kept]
    whole.n_estimators = 3
    assert np.allclose(run(found.only(kept)), whole.predict_proba(X), atol=1e-5)
    assert np.allclose(run(found.only(kept)), run(to_onnx(whole, 64)), atol=1e-6)


def test_boosted_trees_of_two_classes_are_no_shares_of_a_vote():
    boosted = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0)
    found = Forest.find(to_onnx(boosted.fit(X, Y % 2), 64))
    assert not found.averaged
    fewer = list(boosted.staged_predict_proba(X))[2]
    assert np.allclose(run(found.only(found.ids[:3])), fewer, atol=1e-4)


def test_trees_of_a_model_with_two_inputs_are_ranked():
    """As a pipeline over columns has; the trees see both, side by side."""
    model = onnx.load_from_string(forest())
    del model.graph.input[:]
    for name, width in (("left", 32), ("right", 32)):
        kind = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])
        model.graph.input.append(kind)
    joined = onnx.helper.make_node("Concat", ["left", "right"], ["input"], axis=1)
    model.graph.node.insert(0, joined)
    feeds = {"left": X[:, :32], "right": X[:, 32:]}
    assert len(pruned(model.SerializeToString(), feeds, Y)) == 5


def test_several_ensembles_say_why_none_of_them_is_pruned():
    several = BaggingClassifier(DecisionTreeClassifier(max_depth=2), 3, random_state=0).fit(X, Y)
    reason = why_not_prune(to_onnx(several, 64))
    assert reason.startswith("its trees are in 3 TreeEnsembleClassifier: only those of one")
    regressor = GradientBoostingRegressor(n_estimators=3, random_state=0).fit(X, Y)
    given = [("input", FloatTensorType([None, 64]))]
    reason = why_not_prune(convert_sklearn(regressor, initial_types=given).SerializeToString())
    assert reason.startswith("its trees are in 1 TreeEnsembleRegressor: only those of one")


def test_one_tree_cannot_lose_a_tree():
    assert why_not_prune(to_onnx(DecisionTreeClassifier().fit(X, Y), 64)) == "it is one tree"


# -- neurons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gemm", [False, True])
def test_neurons_that_do_not_matter_go(gemm):
    model = perceptron(gemm=gemm)
    (layer,) = hidden_layers(model)
    assert layer.size == 32
    fewer = with_neurons(model, 0.25, {"x": X})
    assert hidden_layers(fewer)[0].size == 8
    assert len(fewer) < 0.35 * len(model)
    assert np.abs(run(fewer) - run(model)).max() < 0.02


def test_the_next_layer_is_fitted_to_what_it_computed_before():
    """Neurons that are copies of each other: half of them can go and nothing changes."""
    model = onnx.load_from_string(perceptron(hidden=4))
    held = {one.name: one for one in model.graph.initializer}
    for name, axis in (("w1", 1), ("b1", 0), ("w2", 0)):
        array = onnx.numpy_helper.to_array(held[name])
        twice = np.repeat(array, 2, axis=axis)
        held[name].CopyFrom(onnx.numpy_helper.from_array(twice, name))
    whole = model.SerializeToString()
    half = with_neurons(whole, 0.5, {"x": X})
    assert hidden_layers(half)[0].size == 4
    assert np.abs(run(half) - run(whole)).max() < 1e-2
    plain = with_neurons(whole, 1.0, {"x": X})
    assert np.abs(run(plain) - run(whole)).max() < 1e-4


def test_several_layers_shrink_one_after_the_other():
    fitted = MLPClassifier((24, 16), max_iter=60, random_state=0).fit(X, Y)
    model = to_onnx(fitted, 64)
    assert [layer.size for layer in hidden_layers(model)] == [24, 16]
    half = with_neurons(model, 0.5, {"input": X})
    assert [layer.size for layer in hidden_layers(half)] == [12, 8]
    assert (run(half).argmax(axis=1) == run(model).argmax(axis=1)).mean() > 0.9


def test_what_cannot_be_pruned_says_why():
    reason = why_not_prune(convolution())
    assert reason.startswith("it has neither several trees nor a hidden layer between two dense")
    assert [one.problem for one in pruned(perceptron(), {"x": X}, None)] == [None] * 5


def test_weights_that_are_used_twice_are_left_alone():
    model = onnx.load_from_string(perceptron())
    model.graph.node[3].input[1] = "w1"
    assert hidden_layers(model.SerializeToString()) == []


def test_products_that_do_more_than_multiply_are_left_alone():
    model = onnx.load_from_string(perceptron(gemm=True))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("alpha", 0.5))
    assert hidden_layers(model.SerializeToString()) == []


def test_layers_without_biases_shrink_too():
    """What the neurons that go contributed on average has nowhere to go, and is fitted away."""
    weights = {name: np.eye(64, 4, dtype=np.float32) for name in ("a", "b")}
    first = np.zeros((64, 16), np.float32)
    first[:, :4] = weights["a"]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w1"], ["z"]),
        onnx.helper.make_node("Relu", ["z"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "w2"], ["l"]),
        onnx.helper.make_node("Softmax", ["l"], ["p"], axis=1),
    ]
    whole = build(nodes, {"w1": first, "w2": np.eye(16, 4, dtype=np.float32)})
    fewer = with_neurons(whole, 0.25, {"x": X})
    assert hidden_layers(fewer)[0].size == 4
    assert np.abs(run(fewer) - run(whole)).max() < 1e-3
