import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import cascade
from cascade import CascadeClassifier
from cascade.fitting.paths import deciding_tiers
from cascade.fitting.verify import verify_certificate

X, Y = load_digits(return_X_y=True)
X = X / 16


def logistic():
    return LogisticRegression(max_iter=500)


def tiers():
    return [("small", logistic()), ("large", SVC(C=10))]


def fitted(**params):
    params = {"max_loss": 0.03, "random_state": 0, "calibration_size": 0.5, **params}
    return CascadeClassifier(params.pop("tiers", tiers()), **params).fit(X[:1400], Y[:1400])


@pytest.fixture(scope="module")
def clf():
    return fitted()


@pytest.fixture(scope="module")
def three():
    ladder = [("tiny", GaussianNB(var_smoothing=1e-2)), *tiers()]
    return fitted(tiers=ladder, costs=[1.0, 2.0, 50.0])


@pytest.mark.filterwarnings("ignore")  # the checks fit on a few rows: nothing can be certified
@parametrize_with_checks(
    [
        CascadeClassifier(
            [("small", LogisticRegression()), ("large", DecisionTreeClassifier(max_depth=5))],
            max_loss=0.2,
        )
    ]
)
def test_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


# -- what is promised ---------------------------------------------------------------------------


def test_the_certificate_is_sound_and_says_what_it_rests_on(clf):
    cert = clf.certificate_
    assert verify_certificate(cert) == []
    assert (cert.tiers, cert.loss, cert.covers) == (("small", "large"), "gross", "adaptive")
    assert (cert.max_loss, cert.alpha, cert.seed) == (0.03, 0.1, 0)
    assert cert.n == 700 - 233
    assert cert.certified > 1
    assert "exported ONNX models, one row at a time" in cert.note
    assert set(cert.digests) >= {"small", "large", "data"}


def test_three_tiers_are_certified_along_a_learned_path(three):
    cert = three.certificate_
    assert verify_certificate(cert) == []
    assert cert.certified > 1
    assert cert.path[cert.certified - 1].cost < cert.path[0].cost


def test_the_cheapest_certified_point_is_in_force(clf):
    assert clf.thresholds_ == clf.certificate_.path[clf.certificate_.certified - 1].thresholds


def test_disagreement_is_bounded_without_truth_playing_a_part():
    cert = fitted(loss="disagreement").certificate_
    assert cert.loss == "disagreement"
    assert verify_certificate(cert) == []


def test_thresholds_stand_clear_of_every_confidence(clf):
    confidences = clf._fitted[0].answers(X.astype(np.float32))[2]
    held = np.abs(confidences[:, None] - np.array(clf.thresholds_)).min()
    assert held > 0.0


def test_nothing_certified_warns_and_always_escalates():
    with pytest.warns(UserWarning, match=r"about 2302 could suffice .* top tier"):
        clf = fitted(max_loss=0.001)
    assert clf.certificate_.certified == 1
    assert clf.thresholds_ == (2.0,)
    assert (clf.deciding_tiers(X) == 1).all()
    assert (clf.predict(X) == clf.tiers_[1][1].predict(X.astype(np.float32))).mean() > 0.999


# -- what it answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clf", "three"])
def test_routes_by_confidence(name, request):
    clf = request.getfixturevalue(name)
    rows = X[1400:].astype(np.float32)
    answers = [tier.answers(rows) for tier in clf._fitted]
    sure = np.column_stack([confidences for _, _, confidences in answers[:-1]])
    expected = deciding_tiers(sure, clf.thresholds_)
    assert (clf.deciding_tiers(rows) == expected).all()
    assert set(expected) >= {0, len(answers) - 1}
    probabilities = np.stack([own for own, _, _ in answers])[expected, np.arange(len(rows))]
    assert (clf.predict_proba(rows) == probabilities).all()
    assert (clf.predict(rows) == clf.classes_[probabilities.argmax(axis=1)]).all()


def test_scores_are_those_of_the_exported_models_at_batch_one(clf):
    import onnxruntime

    tier = clf._fitted[0]
    session = onnxruntime.InferenceSession(tier.scorer.model)
    rows = X[:20].astype(np.float32)
    single = [session.run(None, {"input": rows[at : at + 1]})[0] for at in range(20)]
    assert (tier.scorer.probabilities(rows) == np.concatenate(single)).all()


def test_confidence_is_what_serving_reads(clf):
    from cascade.confidence import row_reader

    tier = clf._fitted[0]
    read = row_reader("probabilities", "max_probability", tier.temperature)
    raw = tier.scorer.probabilities(X[:50].astype(np.float32))
    _, values, confidences = tier.answers(X[:50].astype(np.float32))
    for row, value, confidence in zip(raw.tolist(), values, confidences, strict=True):
        assert read(row) == (value, pytest.approx(confidence, abs=1e-6))


def test_labels_of_any_kind():
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "n"])
    clf = CascadeClassifier(tiers(), max_loss=0.05, random_state=0).fit(X, names[Y])
    assert (clf.predict(X) == names[Y]).mean() > 0.95
    assert clf.policy_.classes == tuple(sorted(names.tolist()))


def test_the_policy_says_what_was_fitted(clf):
    small, large = clf.policy_.tiers
    assert (small.kind, small.model, len(small.sha256)) == ("onnx", "small.onnx", 64)
    assert small.outputs.kind == large.outputs.kind == "probabilities"
    assert small.confidence.temperature == clf._fitted[0].temperature != 1.0
    assert clf.policy_.classes == tuple(range(10))


# -- what it takes ------------------------------------------------------------------------------


def test_same_seed_same_cascade(clf):
    again = fitted()
    assert again.thresholds_ == clf.thresholds_
    assert (again.predict_proba(X) == clf.predict_proba(X)).all()


def test_pickles_after_use(clf):
    before = clf.predict_proba(X[:20])
    assert (pickle.loads(pickle.dumps(clf)).predict_proba(X[:20]) == before).all()


def test_tiers_are_parameters_by_name():
    clf = CascadeClassifier(tiers())
    assert clf.get_params()["small__max_iter"] == 500
    clf.set_params(large__C=3.0, small=GaussianNB())
    assert clf.tiers[1][1].C == 3.0
    assert isinstance(clone(clf).tiers[0][1], GaussianNB)


def test_can_be_searched():
    search = GridSearchCV(
        CascadeClassifier(tiers(), max_loss=0.2, random_state=0), {"small__C": [0.1, 1.0]}, cv=2
    )
    assert search.fit(X[:600], Y[:600]).best_score_ > 0.8


def test_frozen_tiers_are_taken_as_they_are():
    small, large = logistic().fit(X[:700], Y[:700]), SVC(C=10).fit(X[:700], Y[:700])
    coefficients = small.coef_.copy()
    frozen = [("small", FrozenEstimator(small)), ("large", FrozenEstimator(large))]
    clf = CascadeClassifier(frozen, max_loss=0.03, random_state=0).fit(X[700:], Y[700:])
    assert clf.certificate_.n == len(X[700:]) - len(X[700:]) // 3
    assert (small.coef_ == coefficients).all()
    assert clf.tiers_[0][1].estimator is small
    assert clf.certificate_.certified > 1
    assert clf.policy_.tiers[1].kind == "onnx"


def test_classes_in_another_order_are_put_in_order():
    class Backwards(LogisticRegression):
        """Names its classes from the last to the first."""

        def fit(self, X, y):
            super().fit(X, y)
            self.classes_, self.coef_ = self.classes_[::-1], self.coef_[::-1]
            self.intercept_ = self.intercept_[::-1]
            return self

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of one's own has no converter
        clf = fitted(tiers=[("small", Backwards(max_iter=500)), ("large", SVC(C=10))])
    assert clf.score(X, Y) > 0.95
    assert clf.policy_.tiers[0].classes == tuple(range(9, -1, -1))
    assert clf.policy_.tiers[1].classes is None


def test_what_does_not_convert_warns_and_still_works():
    ladder = [("small", HistGradientBoostingClassifier(max_iter=5)), ("large", SVC(C=10))]
    with pytest.warns(UserWarning, match="'small' does not convert to ONNX: HistGradient"):
        clf = fitted(tiers=ladder)
    assert "scikit-learn's float32 probabilities: small" in clf.certificate_.note
    assert clf.policy_.tiers[0].kind == "external"
    assert clf.policy_.tiers[0].version
    assert clf.score(X, Y) > 0.9


def test_pipelines_are_tiers():
    clf = fitted(tiers=[("small", make_pipeline(StandardScaler(), logistic())), tiers()[1]])
    assert [spec.kind for spec in clf.policy_.tiers] == ["onnx", "onnx"]


def test_parameters_are_checked_when_it_is_fitted():
    for params in ({"max_loss": "1%"}, {"tiers": [("a", GaussianNB), ("b", GaussianNB())]}):
        clf = CascadeClassifier(**{"tiers": tiers()} | params)
        assert params["max_loss" if "max_loss" in params else "tiers"] in clf.get_params().values()
        assert repr(clf)
        with pytest.raises(TypeError, match=r"max_loss must be|tier 'a': expected"):
            clf.fit(X, Y)


def test_a_frozen_tier_that_knows_other_classes():
    foreign = FrozenEstimator(logistic().fit(X[Y < 5], Y[Y < 5]))
    with pytest.raises(ValueError, match=r"'small' knows .*; it can never answer 5, 6, 7, 8, 9$"):
        fitted(tiers=[("small", foreign), ("large", SVC())])


def test_what_its_tiers_answer_is_a_recording_to_fit_from(clf):
    held = clf.record(X[1400:], Y[1400:])
    assert held.names == ("small", "large")
    assert held.right().mean() > 0.9
    deciding = deciding_tiers(held.tiers[0].confidence[:, None], clf.thresholds_)
    assert deciding.tolist() == clf.deciding_tiers(X[1400:]).tolist()
    found = cascade.fit(held, max_loss=0.03)
    assert found.certificate.tiers == ("small", "large")
