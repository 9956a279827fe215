"""The estimator's parameters: what nothing can be fitted with is refused, by name."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from cascade.parameters import check_parameters

GOOD = {
    "tiers": [("small", GaussianNB()), ("large", SVC())], "max_loss": 0.01, "alpha": 0.1,
    "loss": "gross", "calibration_size": 0.3, "costs": None, "random_state": None,
}  # fmt: skip


class Mute(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        return self

    def predict(self, X):
        return X


def two(tier, name="a"):
    return {"tiers": [(name, tier), ("c", GaussianNB())]}


@pytest.mark.parametrize(
    "params",
    [{}, {"costs": [1, 2]}, {"costs": np.array([0.5, 2.0])}, {"max_loss": np.float32(0.1)},
     {"tiers": (["a", GaussianNB()], ("b", SVC()), ("c", make_pipeline(SVC())))},
     two(FrozenEstimator(GaussianNB()))],
    ids=str,
)  # fmt: skip
def test_good_parameters_pass(params):
    check_parameters(GOOD | params)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"max_loss": 0.0}, "max_loss must lie between 0 and 1"),
        ({"alpha": 1.0}, "alpha must lie between 0 and 1"),
        ({"calibration_size": float("nan")}, "calibration_size must lie"),
        ({"loss": "net"}, "loss must be one of gross, disagreement; got 'net'"),
        ({"loss": "disagreements"}, "did you mean 'disagreement'"),
        ({"loss": ["gross"]}, "loss must be one of"),
        ({"tiers": [("one", GaussianNB())]}, "two or more"),
        ({"tiers": []}, "two or more"),
        ({"tiers": [("a", GaussianNB()), ("a", GaussianNB())]}, "unique names"),
        (two(GaussianNB(), "a__b"), "tier name 'a__b'"),
        (two(GaussianNB(), "loss"), "tier name 'loss'"),
        (two(GaussianNB(), "a/b"), "tier name 'a/b'"),
        (two(GaussianNB(), ""), "tier name ''"),
        ({"costs": [1.0]}, "costs must hold one number per tier; got 1 for 2"),
        ({"costs": [1.0, -1.0]}, "costs.1. must be 0 or more"),
        ({"costs": [float("nan"), 1.0]}, "costs.0. must be 0 or more"),
    ],
)
def test_bad_values_are_named(params, words):
    with pytest.raises(ValueError, match=words):
        check_parameters(GOOD | params)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"max_loss": "1%"}, "max_loss must be a number, got a str"),
        ({"alpha": None}, "alpha must be a number, got a NoneType"),
        ({"max_loss": [0.1]}, "max_loss must be a number, got a list"),
        ({"calibration_size": True}, "calibration_size must be a number, got a bool"),
        ({"tiers": None}, "tiers must be two or more .* got a NoneType"),
        ({"tiers": {"a": GaussianNB()}}, "got a mapping; give list"),
        ({"tiers": [GaussianNB(), SVC()]}, "tiers.0.: expected a .name, classifier. pair"),
        ({"tiers": [("a", GaussianNB()), (1, SVC())]}, "tiers.1.: expected a"),
        (two(LogisticRegression), "got the class LogisticRegression; give LogisticRegression"),
        (two(3), "tier 'a': expected a classifier, got an int, which has no fit"),
        (two(Ridge()), "got a Ridge, which is a regressor"),
        (two(Mute()), "a Mute has neither predict_proba.. nor decision_function"),
        ({"costs": 5}, "costs must hold one number per tier; got an int"),
        ({"costs": {"small": 1, "large": 2}}, "got a dict"),
        ({"costs": ["a", "b"]}, "costs.0. must be a number, got a str"),
        ({"costs": [None, 1]}, "costs.0. must be a number, got a NoneType"),
    ],
)
def test_bad_types_are_named(params, words):
    with pytest.raises(TypeError, match=words):
        check_parameters(GOOD | params)
