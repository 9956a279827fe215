"""Serve the policy of a bundle; make the bundle first where there is none.

``python examples/onnx_policy/serve.py [FOLDER]``: there the bundle is made, with requests for it,
and from the next time on served. Making it needs ``pip install -e ".[export]"``; serving it needs
neither that nor scikit-learn's models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cascade import Router


def make(bundle: Path) -> None:
    """Train two tiers on the digits that come with scikit-learn, certify, export."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    from cascade import CascadeClassifier

    X, y = load_digits(return_X_y=True)
    X, asked, y, truth = X[:1500], X[1500:], y[:1500], y[1500:]
    ladder = [("small", LogisticRegression(max_iter=2000)), ("large", SVC())]
    classifier = CascadeClassifier(ladder, max_loss=0.02, alpha=0.1, random_state=0)
    classifier.fit(X, y).export(bundle)
    np.savez(bundle / "requests.npz", rows=asked.astype("float32"), truth=truth)


def main(bundle: Path) -> None:
    """Answer held-out requests one by one, and show where they ended."""
    if not (bundle / "policy.yaml").is_file():
        make(bundle)
    if not (bundle / "requests.npz").is_file():
        sys.exit(f"{bundle}: expected a bundle that this example made; it has no requests.npz")
    requests = np.load(bundle / "requests.npz")
    with Router.from_yaml(bundle / "policy.yaml") as router:
        outcomes = [router.route(row, deadline=1.0) for row in requests["rows"]]
        print(outcomes[0].explain())
    right = np.mean([each.value for each in outcomes] == requests["truth"])
    small = np.mean([each.tier == "small" for each in outcomes])
    where = f"{small:.1%} answered by the small tier, {1 - small:.1%} by the large one"
    print(f"{len(outcomes)} requests: {right:.1%} right, {where}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "bundle")
