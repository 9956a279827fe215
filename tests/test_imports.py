"""What is imported when: nothing heavy at import, no scikit-learn while serving."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnxruntime", "sklearn", "scipy", "ruamel", "matplotlib")


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_cascade_imports_nothing_heavy():
    run(
        "import sys, cascade; cascade.errors if hasattr(cascade, 'errors') else 0;"
        f"assert not [m for m in {HEAVY!r} if m in sys.modules]"
    )


def test_reading_a_policy_needs_no_model_library():
    run(
        "import sys; from cascade import Policy;"
        "tiers = [{'name': 'a', 'kind': 'external'}];"
        "Policy.from_dict({'version': 1, 'name': 'p', 'tiers': tiers});"
        "assert not [m for m in ('onnxruntime', 'sklearn', 'scipy') if m in sys.modules]"
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    from cascade import CascadeClassifier

    X, y = load_digits(return_X_y=True)
    ladder = [
        ("small", DecisionTreeClassifier(max_depth=6)),
        ("large", LogisticRegression(max_iter=3000)),
    ]
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    clf = CascadeClassifier(ladder, max_loss=0.05, random_state=0).fit(X / 16, y)
    clf.export(folder, deadline="1s")
    return folder, clf, X / 16


def test_a_bundle_is_served_without_scikit_learn(bundle):
    folder = bundle[0]
    run(
        "import sys, numpy as np; from cascade import Router\n"
        f"with Router.from_yaml({str(folder / 'policy.yaml')!r}) as router:\n"
        "    row = np.zeros(64, dtype=np.float32)\n"
        "    router.route(row); router.route_many(row[None].repeat(5, 0)); router.statistics()\n"
        "assert not [m for m in ('sklearn', 'scipy', 'skl2onnx', 'onnx') if m in sys.modules]"
    )


def test_router_and_classifier_agree(bundle):
    """On 2,000 rows: the same tier and label, except within 1e-5 of a threshold."""
    import numpy as np

    from cascade import Router

    folder, clf, X = bundle
    random = np.random.default_rng(0)
    rows = X[random.integers(0, len(X), 2000)] + random.normal(0, 0.05, (2000, 64))
    rows = rows.astype(np.float32)
    with Router.from_yaml(folder / "policy.yaml") as router:
        outcomes = [router.route(row) for row in rows]
        many = router.route_many(rows)
    names = [name for name, _ in clf.tiers]
    tiers = np.array([names.index(outcome.tier) for outcome in outcomes])
    labels = np.array([outcome.value for outcome in outcomes])
    first = np.array([outcome.steps[0].confidence for outcome in outcomes])
    close = np.abs(first - clf.thresholds_[0]) < 1e-5
    print(f"{close.sum()} of 2,000 rows within 1e-5 of the threshold")
    assert close.mean() < 0.01
    assert (tiers == clf.deciding_tiers(rows))[~close].all()
    assert (labels == clf.predict(rows))[~close].all()
    assert (many.values == labels)[~close].all()
    assert (np.array([names.index(tier) for tier in many.tiers]) == tiers)[~close].all()
    assert 0 < tiers.mean() < 1
