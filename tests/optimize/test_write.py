"""Bundles: what is written, that it loads, and that nothing else is touched."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from cascade import CascadeClassifier, ExportError, Policy, PolicyError
from cascade.bundle import load_golden, load_profile

X, Y = load_digits(return_X_y=True)
X = X / 16
FILES = {
    "policy.yaml",
    "policy.schema.json",
    "small.onnx",
    "large.onnx",
    "certificate.json",
    "profile.json",
    "golden.json",
}


def fit(small):
    ladder = [("small", small), ("large", SVC(C=10))]
    clf = CascadeClassifier(ladder, max_loss=0.03, calibration_size=0.5, random_state=0)
    return clf.fit(X[:1400], Y[:1400])


@pytest.fixture(scope="module")
def clf():
    return fit(LogisticRegression(max_iter=500))


@pytest.fixture(scope="module")
def folder(clf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "digits"
    clf.export(folder, deadline=0.02, cache={"entries": 100})
    return folder


def test_holds_all_that_a_router_needs_and_nothing_else(folder):
    assert {file.name for file in folder.iterdir()} == FILES
    assert [file.name for file in folder.parent.iterdir()] == ["digits"]


def test_the_policy_loads_with_its_certificate(clf, folder):
    policy = Policy.from_yaml(folder / "policy.yaml", env={})
    assert (policy.name, policy.deadline) == ("digits", pytest.approx(0.02))
    assert policy.cache.entries == 100
    assert policy.certificate == clf.certificate_
    assert policy.tiers == clf.policy_.tiers
    assert policy.classes == tuple(range(10))
    cheapest = [point for point in policy.points if point.certified][-1]
    assert cheapest.thresholds == clf.thresholds_


def test_every_tier_is_measured(folder):
    profiles = load_profile(Policy.from_yaml(folder / "policy.yaml", env={}))
    assert set(profiles) == {"small", "large"}
    seconds = {name: one.overhead + one.per_row for name, one in profiles.items()}
    assert 0.0 < seconds["small"] < seconds["large"] < 1.0


def test_golden_answers_come_from_no_row_of_the_data(clf, folder):
    golden = load_golden(Policy.from_yaml(folder / "policy.yaml", env={}))
    assert set(golden) == {"small", "large"}
    asked = np.asarray(golden["small"].inputs["input"])
    assert asked.shape == (1, 64)
    assert np.abs(X - asked).max(axis=1).min() > 0.01
    answer = np.asarray(golden["small"].outputs["probabilities"])
    np.testing.assert_allclose(answer, clf._fitted[0].scorer.batch(asked), atol=1e-6)


def test_a_bundle_is_replaced(clf, tmp_path):
    clf.export(tmp_path / "b", name="one")
    clf.export(tmp_path / "b", name="two")
    assert Policy.from_yaml(tmp_path / "b" / "policy.yaml", env={}).name == "two"
    assert {file.name for file in (tmp_path / "b").iterdir()} == FILES


def test_an_empty_folder_is_filled(clf, tmp_path):
    clf.export(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES


def test_anything_else_is_left_alone(clf, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="not a bundle") as caught:
        clf.export(tmp_path)
    assert caught.value.step == "write"
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_policy_of_ones_own_is_no_bundle(clf, tmp_path):
    mine = tmp_path / "policy.yaml"
    for beside in ("policy.yaml", "certificate.json"):
        (tmp_path / beside).write_text("mine")
        with pytest.raises(ExportError, match=r"holds no \w+\.json: it is not a bundle"):
            clf.export(tmp_path)
        assert mine.read_text() == "mine"


def test_a_bad_setting_leaves_nothing_behind(clf, tmp_path):
    for given, said in (
        ({"deadline": "-3ms"}, "deadline: expected a positive duration .*, got '-3ms'"),
        ({"name": "a b"}, "name: expected a name of letters, digits, _ . -, got 'a b'"),
        ({"cache": {"entires": 1}}, r"cache\.entires: unknown key; did you mean 'entries'"),
    ):
        with pytest.raises(PolicyError, match=f"^{said}"):
            clf.export(tmp_path / "b", **given)
        assert list(tmp_path.iterdir()) == []


def test_what_does_not_convert_is_an_error_or_external(tmp_path):
    with pytest.warns(UserWarning, match="does not convert"):
        clf = fit(HistGradientBoostingClassifier(max_iter=5))
    with pytest.raises(ExportError) as caught:
        clf.export(tmp_path / "b")
    assert (caught.value.tier, caught.value.step) == ("small", "HistGradientBoostingClassifier")
    clf.export(tmp_path / "b", on_unsupported="external")
    policy = Policy.from_yaml(tmp_path / "b" / "policy.yaml", env={})
    assert [spec.kind for spec in policy.tiers] == ["external", "onnx"]
    with pytest.raises(ValueError, match="on_unsupported"):
        clf.export(tmp_path / "b", on_unsupported="ignore")


def test_the_certificate_is_json_with_finite_numbers(folder):
    def refuse(word):
        raise AssertionError(word)

    text = (folder / "certificate.json").read_text()
    assert json.loads(text, parse_constant=refuse)["max_loss"] == 0.03
