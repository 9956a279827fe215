import pickle
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, make_circles, make_classification
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
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


def test_a_frozen_tier_that_was_not_fitted():
    with pytest.raises(NotFittedError, match="tier 'small': the frozen estimator is not fitted"):
        fitted(tiers=[("small", FrozenEstimator(logistic())), ("large", SVC())])


# -- tiers that are not as others are --------------------------------------------------------------


def two_circles(n=3_000):
    X, y = make_circles(n, noise=0.05, factor=0.5, random_state=0)
    kept = (y == 1) | (np.arange(n) % 3 == 0)
    return X[kept].astype(np.float32), 1 - y[kept]


def test_a_forest_of_two_classes_keeps_the_promise_and_serves(tmp_path):
    """What its model says of the other class is 1 - p in float32: at times below zero."""
    X, y = two_circles()
    half = len(X) // 2
    ladder = [("small", LogisticRegression()), ("large", RandomForestClassifier(10))]
    clf = CascadeClassifier(ladder, max_loss=0.05, random_state=0).fit(X[:half], y[:half])
    rest, truth = X[half:], y[half:]
    assert clf._fitted[1].scorer.probabilities(rest).min() < 0.0
    top = clf.tiers_[1][1].predict(rest)
    assert ((top == truth) & (clf.predict(rest) != truth)).mean() < 0.08  # 0.05 by the promise
    assert clf.record(rest, truth).n == len(rest)
    clf.export(tmp_path / "bundle", deadline="1s")
    with cascade.Router.from_yaml(tmp_path / "bundle" / "policy.yaml") as router:
        many = router.route_many(rest, at_least="large")
        assert set(many.dispositions.tolist()) == {"accepted"}
        alone = [router.route(x, at_least="large").value for x in rest[:100]]
        assert alone == many.values[:100].tolist()
        routed = [router.route(x) for x in rest]
    assert [outcome.value for outcome in routed] == clf.predict(rest).tolist()
    deciding = [("small", "large")[at] for at in clf.deciding_tiers(rest)]
    assert [outcome.tier for outcome in routed] == deciding


class Moody(LogisticRegression):
    """Has no answer to some rows: those with a first feature of 1."""

    def predict_proba(self, X):
        found = super().predict_proba(X)
        found[np.asarray(X)[:, 0] == 1.0] = np.nan
        return found


def test_a_top_tier_without_an_answer_is_not_taken_to_say_the_first_class():
    X = np.random.default_rng(0).normal(size=(2_000, 2)).astype(np.float32)
    X[::4, 0] = 1.0
    y = (X[:, 1] < 0).astype(int)
    ladder = [("small", FrozenEstimator(LogisticRegression().fit(X, y))),
              ("large", FrozenEstimator(Moody().fit(X, y)))]  # fmt: skip
    clf = CascadeClassifier(ladder, loss="disagreement", max_loss=0.05, random_state=0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        clf.fit(X, y)
    assert any("'large': no probabilities on 3" in str(one.message) for one in told)
    assert clf.thresholds_[0] > 1.0  # nobody can agree with it on a quarter of the rows
    with pytest.raises(ValueError, match=r"'large': no probabilities on 500 of 2,000 rows"):
        clf.record(X, y)


@pytest.mark.parametrize("last", [SVC(), LinearSVC(), RidgeClassifier()])
def test_pipelines_without_probabilities_convert_for_two_classes_too(last):
    X, y = load_breast_cancer(return_X_y=True)
    ladder = [("small", make_pipeline(StandardScaler(), GaussianNB())),
              ("large", make_pipeline(StandardScaler(), last))]  # fmt: skip
    clf = CascadeClassifier(ladder, max_loss=0.1, random_state=0).fit(X, y)
    assert [spec.kind for spec in clf.policy_.tiers] == ["onnx", "onnx"]


def test_a_search_converts_as_what_it_found():
    X, y = load_breast_cancer(return_X_y=True)
    found = GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 10]}, cv=2)
    clf = CascadeClassifier(
        [("small", make_pipeline(StandardScaler(), GaussianNB())), ("large", found)],
        max_loss=0.1, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert [spec.kind for spec in clf.policy_.tiers] == ["onnx", "onnx"]


def test_a_stack_is_a_classifier_before_it_is_fitted():
    stack = StackingClassifier([("a", logistic()), ("b", DecisionTreeClassifier(max_depth=4))])
    clf = fitted(tiers=[("small", GaussianNB(var_smoothing=1e-2)), ("large", stack)])
    assert isinstance(clf.tiers_[1][1], StackingClassifier)


def test_a_top_tier_whose_answer_is_not_its_most_probable_class_is_told():
    X, y = make_classification(1_500, 12, n_informative=8, weights=[0.9], random_state=0)
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="recall", cv=3)
    with pytest.warns(UserWarning, match=r"'large': predict\(\) is not the most probable class on"):
        CascadeClassifier([("small", GaussianNB()), ("large", tuned)], max_loss=0.1).fit(X, y)


def test_a_rare_class_has_the_rows_that_calibration_takes():
    X, y = make_classification(600, 8, n_informative=6, n_classes=3, random_state=0)
    y[:4] = 9
    clf = CascadeClassifier([("a", GaussianNB()), ("b", SVC())], max_loss=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows may certify nothing
        for seed in range(8):
            assert clf.set_params(random_state=seed).fit(X, y).classes_.tolist() == [0, 1, 2, 9]
    y[1:4] = 0
    with pytest.raises(ValueError, match="tier 'b': class 9 has one training row"):
        clf.fit(X, y)


def test_rare_classes_that_training_needs_count_as_lost():
    """Else they would be tested less often than they come: 300 labels of one row or two."""
    rng = np.random.default_rng(0)
    y = np.concatenate([np.zeros(900, int), np.arange(1, 301)])
    X = rng.normal(size=(len(y), 3)).astype(np.float32)
    ladder = [("small", FrozenEstimator(DecisionTreeClassifier(max_depth=1).fit(X, y))),
              ("large", DecisionTreeClassifier())]  # fmt: skip
    clf = CascadeClassifier(ladder, max_loss=0.1, calibration_size=0.8, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, y)
    counted = int(re.search(r"(\d+) rows of rare classes", clf.certificate_.note)[1])
    assert counted > 100
    assert clf.certificate_.n == 640  # two thirds of 80 % of 1,200, those among them
    assert clf.certificate_.path[-1].losses >= counted
    assert verify_certificate(clf.certificate_) == []


WORDS = ["a good day", "a bad day"] * 50


def check_hint(tier, rows):
    clf = CascadeClassifier([("small", tier), ("large", GaussianNB())], max_loss=0.2)
    with pytest.raises((TypeError, ValueError)) as caught:
        clf.fit(rows, [0, 1] * 50)
    assert "before the cascade" in caught.value.__notes__[0]
    assert "prepare=" in caught.value.__notes__[0]


def test_text_and_sparse_rows_get_a_hint():
    check_hint(make_pipeline(TfidfVectorizer(), logistic()), WORDS)
    check_hint(logistic(), TfidfVectorizer().fit_transform(WORDS))


def test_tiers_that_go_by_the_names_of_columns_get_a_hint():
    rows = pytest.importorskip("pandas").DataFrame({"a": np.arange(100.0), "b": np.ones(100)})
    tier = make_pipeline(ColumnTransformer([("s", StandardScaler(), ["a"])]), logistic())
    check_hint(tier, rows)
    check_hint(FrozenEstimator(tier.fit(rows, [0, 1] * 50)), rows)


def test_other_bad_rows_get_no_hint():
    with pytest.raises(ValueError, match="NaN") as caught:
        CascadeClassifier(tiers()).fit(np.full((10, 2), np.nan), [0, 1] * 5)
    assert not hasattr(caught.value, "__notes__")
