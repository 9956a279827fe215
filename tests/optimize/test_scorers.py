import pickle

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from cascade.optimize.export import to_onnx
from cascade.optimize.scorers import EstimatorScorer, OnnxScorer, seconds_per_row


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 5)).astype(np.float32)
    return LogisticRegression().fit(X, X[:, :3].argmax(axis=1)), X


def both(estimator, columns=(0, 1, 2)):
    return OnnxScorer(to_onnx(estimator, 5), columns), EstimatorScorer(estimator, columns)


def test_both_give_float32_in_the_order_of_the_classes(fitted):
    estimator, X = fitted
    expected = estimator.predict_proba(X)[:, [2, 0, 1]]
    for scorer in both(estimator, (2, 0, 1)):
        found = scorer.probabilities(X)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rows_are_run_one_by_one(fitted):
    estimator, X = fitted
    scorer, _ = both(estimator)
    single = np.concatenate([scorer.batch(X[at : at + 1]) for at in range(len(X))])
    assert (scorer.probabilities(X) == single).all()


def test_no_rows(fitted):
    estimator, X = fitted
    for scorer in both(estimator):
        assert scorer.probabilities(X[:0]).shape == (0, 3)
        assert seconds_per_row(scorer, X[:0]) == 0.0


def test_a_used_scorer_pickles(fitted):
    estimator, X = fitted
    for scorer in both(estimator):
        before = scorer.probabilities(X)
        assert (pickle.loads(pickle.dumps(scorer)).probabilities(X) == before).all()


def test_seconds_are_measured(fitted):
    estimator, X = fitted
    assert all(seconds_per_row(scorer, X) > 0.0 for scorer in both(estimator))


def test_a_model_that_does_not_run_says_so_to_its_caller_alone(capfd):
    beyond = helper.make_node(
        "ArrayFeatureExtractor", ["input", "at"], ["out"], domain="ai.onnx.ml"
    )
    graph = helper.make_graph(
        [beyond],
        "beyond",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 5])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [helper.make_tensor("at", TensorProto.INT64, [1], [7])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    scorer = OnnxScorer(model.SerializeToString(), [0])
    with pytest.raises(Exception, match="index is out of range"):
        scorer.probabilities(np.zeros((1, 5), np.float32))
    assert capfd.readouterr().err == ""
