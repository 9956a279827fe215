import builtins

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from cascade.errors import ExportError, MissingExtra
from cascade.optimize.export import (
    _failed_step,
    _probabilities_only,
    check_agreement,
    to_onnx,
    unfrozen,
)

X, Y = load_digits(return_X_y=True)
X = X[:300].astype(np.float32) / 16
LABELS = {"int": Y[:300], "str": np.array(list("abcdefghij"))[Y[:300]], "binary": Y[:300] > 4}


def logistic():
    return LogisticRegression(max_iter=200)


def calibrated(y):
    return CalibratedClassifierCV(SVC(), ensemble=False, cv=2)


KINDS = {
    "logistic": lambda y: logistic(),
    "scaled": lambda y: make_pipeline(StandardScaler(), logistic()),
    "forest": lambda y: RandomForestClassifier(8, random_state=0),
    "calibrated": calibrated,
    "frozen": lambda y: FrozenEstimator(logistic().fit(X, y)),
    "frozen inside": lambda y: CalibratedClassifierCV(
        FrozenEstimator(SVC().fit(X, y)), ensemble=False
    ),
    "voting": lambda y: VotingClassifier(
        [("a", logistic()), ("b", make_pipeline(StandardScaler(), logistic()))], voting="soft"
    ),
    "frozen step": lambda y: make_pipeline(FrozenEstimator(StandardScaler().fit(X)), logistic()),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_survive_the_conversion(kind, labels):
    y = LABELS[labels]
    estimator = KINDS[kind](y).fit(X, y)
    session = onnxruntime.InferenceSession(to_onnx(estimator, X.shape[1], tier="small"))
    assert [(one.name, one.type) for one in session.get_outputs()] == [
        ("probabilities", "tensor(float)")
    ]
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("input", [None, 64])]
    (converted,) = session.run(None, {"input": X})
    np.testing.assert_allclose(converted, estimator.predict_proba(X), atol=1e-5)


def test_conversion_is_deterministic():
    estimator = logistic().fit(X, Y[:300])
    assert to_onnx(estimator, 64, tier="a") == to_onnx(estimator, 64, tier="a")


def test_what_has_no_converter_is_named():
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(X, Y[:300])
    with pytest.raises(ExportError, match="'big' does not convert") as caught:
        to_onnx(estimator, 64, tier="big")
    assert (caught.value.tier, caught.value.step) == ("big", "HistGradientBoostingClassifier")


def test_the_failing_step_of_a_pipeline_is_named():
    estimator = make_pipeline(FunctionTransformer(np.log1p), GaussianNB()).fit(X, Y[:300])
    with pytest.raises(ExportError) as caught:
        to_onnx(estimator, 64)
    assert caught.value.step == "FunctionTransformer"


def test_without_the_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("skl2onnx"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r'pip install "cascade-router\[export\]"'):
        to_onnx(logistic(), 64)


def test_thawing_leaves_the_original_alone():
    frozen = FrozenEstimator(SVC().fit(X, Y[:300]))
    outer = CalibratedClassifierCV(frozen, ensemble=False).fit(X, Y[:300])
    thawed = unfrozen(outer)
    assert isinstance(thawed.calibrated_classifiers_[0].estimator, SVC)
    assert outer.calibrated_classifiers_[0].estimator is frozen


def test_a_vote_of_frozen_voters_converts_and_stays_as_it_was():
    voters = [("a", FrozenEstimator(logistic().fit(X, Y[:300]))), ("b", GaussianNB())]
    vote = VotingClassifier(voters, voting="soft").fit(X, Y[:300])
    (converted,) = onnxruntime.InferenceSession(to_onnx(vote, 64)).run(None, {"input": X})
    np.testing.assert_allclose(converted, vote.predict_proba(X), atol=1e-3)
    assert vote.flatten_transform
    assert isinstance(vote.estimators_[0], FrozenEstimator)


def test_a_wrong_conversion_is_refused():
    right = np.tile([0.9, 0.1], (10, 1))
    check_agreement(right + 1e-3, right)
    one_off = right.copy()
    one_off[0] = [0.1, 0.9]
    check_agreement(one_off, right)
    with pytest.raises(ExportError, match="agrees on 0%"):
        check_agreement(right[:, ::-1], right, tier="small")
    with pytest.raises(ExportError, match="returns"):
        check_agreement(right[:, :1], right)


def test_without_a_hint_the_last_step_is_named():
    pipeline = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), SVC()))
    assert _failed_step(pipeline, ValueError("no idea")) == "SVC"
    assert _failed_step(pipeline, ValueError("StandardScaler is odd")) == "StandardScaler"
    assert _failed_step(pipeline, ValueError("no <class 'a.b.Strange'>")) == "Strange"


def test_a_model_without_probabilities_is_refused():
    model = onnx.load_from_string(to_onnx(logistic().fit(X, LABELS["int"]), 64))
    model.graph.output[0].name = "scores"
    with pytest.raises(ExportError, match=r"has the outputs \['scores'\], no 'probabilities'"):
        _probabilities_only(model, "small")
