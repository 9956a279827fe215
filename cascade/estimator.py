"""A cascade of scikit-learn classifiers: fit, certify, predict, export."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

import cascade
from cascade.fitting.certify import cannot_certify, certificate_of, fixed_sequence_test
from cascade.fitting.losses import loss_table
from cascade.fitting.paths import learned_path, two_tier_path
from cascade.fitting.recording import Recording
from cascade.fitting.split import LEARN_SHARE, hold_out, learn_and_test
from cascade.optimize.fitted import FittedTier, plain_labels
from cascade.optimize.training import (
    fit_tier,
    is_frozen,
    known_classes,
    of_numbers,
    synthetic_rows,
    warn_of_other_answers,
)
from cascade.parameters import check_parameters, has_method, pairs
from cascade.policy import Escalation, Policy
from cascade.policy.digest import tier_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from cascade.fitting.recording import Costs

    Array = npt.NDArray[Any]

__all__ = ["CascadeClassifier"]

_UNCONVERTED = "certified on scikit-learn's own numbers; exports only as an external tier"
_STRICT = "every row goes to the top tier"
_REFUSED = "serving refuses these, and asks a tier above"


class CascadeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that asks the cheapest of several classifiers first, and knows when to ask on.

    Fitting trains the tiers on one part of the rows. On the held-out rest a temperature is fitted
    per tier (a third of it), and the thresholds are certified (the other two thirds): the share of
    rows on which the cascade loses against its top tier is at most ``max_loss``, with confidence
    ``1 - alpha`` over the draw of these rows. The test is exact at every sample size:
    fixed-sequence testing with binomial p-values (Angelopoulos et al., 'Learn then Test', arXiv
    2110.01052). Tiers are scored as they will be served: converted to ONNX where they convert,
    float32, row by row.

    Args:
        tiers: (name, classifier) pairs, cheapest first. One without ``predict_proba`` is wrapped in
            ``CalibratedClassifierCV(ensemble=False)``. One in ``FrozenEstimator`` is taken as it
            is; when all are, all rows are held out.
        max_loss: the largest share of rows that may be lost against the top tier, in (0, 1).
        alpha: the risk that the certificate is wrong, in (0, 1).
        loss: ``"gross"``, the top tier is right and the cascade wrong, or ``"disagreement"``, they
            differ.
        calibration_size: the share of rows held out, in (0, 1).
        costs: of a call per tier, in any unit; measured in seconds when None. Three tiers and more
            are weighed by them.
        random_state: seeds the splits, and the tiers that have no seed of their own.

    Attributes:
        classes_: the labels, (n_classes,).
        tiers_: (name, fitted classifier) pairs.
        certificate_: what the thresholds promise, a :class:`cascade.Certificate`.
        policy_: what a router would serve, a :class:`cascade.Policy`.
        thresholds_: the threshold of each tier below the top at the cheapest certified point.
        n_features_in_: the number of features.

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.svm import SVC
    >>> X, y = load_digits(return_X_y=True)
    >>> tiers = [("small", LogisticRegression(max_iter=3000)), ("large", SVC())]
    >>> clf = CascadeClassifier(tiers, max_loss=0.05, random_state=0).fit(X / 16, y)
    >>> clf.certificate_.max_loss, clf.predict(X[:3] / 16).tolist()
    (0.05, [0, 1, 2])
    """

    def __init__(
        self,
        tiers: Sequence[tuple[str, Any]],
        *,
        max_loss: float = 0.01,
        alpha: float = 0.1,
        loss: str = "gross",
        calibration_size: float = 0.3,
        costs: Costs | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.tiers = tiers
        self.max_loss = max_loss
        self.alpha = alpha
        self.loss = loss
        self.calibration_size = calibration_size
        self.costs = costs
        self.random_state = random_state

    # -- parameters of tiers, by name --------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002  scikit-learn's
        """Return the parameters; ``deep`` adds each tier by its name, and its own parameters."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            for name, tier in pairs(self.tiers):
                params[name] = tier
                if not hasattr(tier, "get_params") or isinstance(tier, type):
                    continue  # fit will say
                own = tier.get_params(deep=True)
                params |= {f"{name}__{key}": value for key, value in own.items()}
        return params

    def set_params(self, **params: Any) -> CascadeClassifier:
        """Set parameters; a tier's name replaces it, ``name__key`` sets one of its own."""
        if "tiers" in params:
            self.tiers = params.pop("tiers")
        names = dict(pairs(self.tiers))
        replaced = {name: params.pop(name) for name in list(params) if name in names}
        if replaced:
            self.tiers = [(name, replaced.get(name, tier)) for name, tier in self.tiers]
        super().set_params(**params)
        return self

    # -- fitting -----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> CascadeClassifier:
        """Train, calibrate and certify on X (n, features) and y (n,).

        Where nothing can be certified it warns, with the number of rows that could suffice, and
        always escalates.

        Raises:
            TypeError, ValueError: a parameter is not what it should be, or the data cannot be
                fitted to.
        """
        check_parameters(self.get_params(deep=False))
        with of_numbers():
            X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        rng = check_random_state(self.random_state)
        pairs = self._seeded(rng)
        self.classes_, codes = self._encode(y, pairs)
        learned = all(isinstance(tier, FrozenEstimator) for _, tier in pairs)
        least = 1 if all(has_method(tier, "predict_proba") for _, tier in pairs) else 2
        share = 1.0 if learned else self.calibration_size
        train, held, moved = hold_out(codes, share, rng, least)
        parts = learn_and_test(len(held), rng)
        lost = int(moved[parts[1]].sum())  # rows of the test that the tiers are trained on
        learn, test = (held[part[~moved[part]]] for part in parts)
        compared = X[held] if len(held) else X
        with of_numbers():
            own = [fit_tier(*pair, X, y, learn if is_frozen(pair[1]) else train) for pair in pairs]
            self.tiers_ = [(name, tier) for (name, _), tier in zip(pairs, own, strict=True)]
            converted = [FittedTier.convert(*pair, self.classes_, compared) for pair in self.tiers_]
        self._fitted = converted
        for tier in self._fitted:
            if tier.error is not None:
                warnings.warn(f"{tier.error}; {_UNCONVERTED}", stacklevel=2)
            tier.learn(X[learn], codes[learn])
        warn_of_other_answers(self._fitted[-1], compared)
        self._synthetic = synthetic_rows(compared, rng)
        self._certify((X, codes), learn, test, lost)
        return self

    def _certify(self, data: tuple[Array, Array], learn: Array, test: Array, lost: int) -> None:
        """Test the thresholds on rows that neither tiers nor temperatures have seen.

        Beside them so many are counted as lost: rows of the test that had to be trained on.
        """
        X, codes = data
        costs = [tier.seconds for tier in self._fitted] if self.costs is None else [*self.costs]
        confidences, losses = self._table(X[test], codes[test], tell=True)
        if len(self._fitted) == 2:
            path = two_tier_path(confidences)
        else:
            seen = self._table(X[learn], codes[learn])
            path = learned_path(*seen, costs, self.max_loss, self.alpha)
        tested = fixed_sequence_test(
            path, *_with_lost(confidences, losses, lost), max_loss=self.max_loss, alpha=self.alpha
        )
        problem = cannot_certify(tested)
        if problem is not None:
            share = len(test) / len(X)
            warnings.warn(
                f"{problem} ({share:.0%} of the rows given are tested); {_STRICT}", stacklevel=3
            )
        names = [tier.name for tier in self._fitted]
        self.policy_ = Policy(
            name="cascade",
            tiers=tuple(tier.spec() for tier in self._fitted),
            escalation=Escalation(certificate="certificate.json"),
            classes=plain_labels(self.classes_),
        )
        self.certificate_ = certificate_of(
            tested,
            names,
            loss=self.loss,
            costs=costs,
            digests=self._digests(X[test], codes[test]),
            seed=self.random_state if isinstance(self.random_state, int) else None,
            fractions={"learn": LEARN_SHARE, "test": 1.0 - LEARN_SHARE},
            created=dt.datetime.now(dt.UTC).date().isoformat(),
            versions=_versions(),
            note=_note(self._fitted, lost),
        )
        self.thresholds_ = self.certificate_.path[self.certificate_.certified - 1].thresholds

    def _digests(self, X: Array, codes: Array) -> dict[str, str]:
        digests = {spec.name: tier_digest(self.policy_, spec) for spec in self.policy_.tiers}
        data = hashlib.blake2b(digest_size=16)
        for part in (X, codes):
            data.update(np.ascontiguousarray(part).data)
        return {**digests, "data": data.hexdigest()}

    def _table(self, X: Array, codes: Array, *, tell: bool = False) -> tuple[Array, Array]:
        """Return confidences and losses of the tiers below the top, (n, K-1) each."""
        answers = [tier.answers(X)[1:] for tier in self._fitted]
        for tier, (_, sure) in zip(self._fitted, answers, strict=True):
            if tell and (faults := int(np.isnan(sure).sum())):
                warnings.warn(f"{_faulty(tier.name, faults, len(X))}; {_REFUSED}", stacklevel=4)
        losses = loss_table(self.loss, [values for values, _ in answers], codes)
        return np.column_stack([sure for _, sure in answers[:-1]]), losses

    # -- using it ----------------------------------------------------------------------------------

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the labels of X (n, features): the answers of the tiers that decide, (n,)."""
        probabilities, _ = self._route(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return (n, n_classes): the calibrated probabilities of the tier that decides each row."""
        return self._route(X)[0]

    def deciding_tiers(self, X: npt.ArrayLike) -> Array:
        """Return (n,): the index in ``tiers`` of the tier whose answer is taken for each row."""
        return self._route(X)[1]

    def _route(self, X: npt.ArrayLike) -> tuple[Array, Array]:
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float32, reset=False)
        answer = np.zeros((len(rows), len(self.classes_)))
        deciding = np.full(len(rows), len(self._fitted) - 1)
        left = np.arange(len(rows))
        for index, tier in enumerate(self._fitted):
            threshold = (*self.thresholds_, 0.0)[index]
            if threshold > 1.0 or not len(left):
                continue
            probabilities, _, confidences = tier.answers(rows[left])
            top = index == len(self.thresholds_)
            sure = np.full(len(left), fill_value=True) if top else confidences >= threshold
            answer[left[sure]], deciding[left[sure]] = probabilities[sure], index
            left = left[~sure]
        return answer, deciding

    def record(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Recording:
        """Return what every tier answers to X (n, features), with the truth y (n,).

        For :func:`cascade.fit`, on rows that no tier was trained on.

        Raises:
            ValueError: a tier has no answer to some rows.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float32, reset=False)
        columns: dict[str, Any] = {"truth": np.asarray(y)}
        for tier in self._fitted:
            _, codes, confidences = tier.answers(rows)
            if faults := int(np.isnan(confidences).sum()):
                what = _faulty(tier.name, faults, len(rows))
                raise ValueError(f"{what}; a recording has an answer to each")
            columns[f"{tier.name}.value"] = self.classes_[codes]
            columns[f"{tier.name}.confidence"] = confidences
            columns[f"{tier.name}.seconds"] = np.full(len(rows), tier.seconds)
        return Recording.from_columns(columns)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        deadline: str | float | None = None,
        cache: Mapping[str, Any] | None = None,
        on_unsupported: str = "raise",
    ) -> None:
        """Write a bundle that ``Router.from_yaml(path / "policy.yaml")`` serves.

        It holds ``policy.yaml``, one ONNX model per tier, ``certificate.json``, ``profile.json``
        (each tier measured now, on this machine) and ``golden.json`` (an input and its answer per
        tier, replayed at load; the input is drawn, no row of the data leaves). All files are
        written beside ``path`` and moved there when they are complete; an existing folder is
        replaced file by file, and only if it is empty or a bundle.

        Args:
            path: the folder.
            name: of the policy; the folder's name when None.
            deadline: of a request, in seconds or as ``"20ms"``.
            cache: the policy's ``cache`` block, such as ``{"entries": 10_000}``; none when None.
            on_unsupported: ``"raise"``, or ``"external"``: a tier that does not convert becomes one
                to bind in ``Router.from_yaml(..., tiers={name: f})``.

        Raises:
            ExportError: a tier does not convert, or the folder is something else.
            MissingExtra: the extra ``export`` is not installed.
            PolicyError: ``name``, ``deadline`` or ``cache`` is not what a policy takes.
        """
        check_is_fitted(self)
        if on_unsupported not in {"raise", "external"}:
            raise ValueError(
                f"on_unsupported must be 'raise' or 'external', got {on_unsupported!r}"
            )
        for tier in self._fitted:
            if tier.error is not None and on_unsupported == "raise":
                raise tier.error
        from cascade.optimize.write import write_bundle

        extras = {"deadline": deadline, "cache": cache}
        write_bundle(
            Path(path), self._fitted, self.policy_, self.certificate_, self._synthetic,
            name=name, extras={key: value for key, value in extras.items() if value is not None},
        )  # fmt: skip

    # -- small parts of fitting --------------------------------------------------------------------

    def _seeded(self, rng: np.random.RandomState) -> list[tuple[str, Any]]:
        """Clone the tiers, wrap those without probabilities, seed those without a seed."""
        pairs = []
        for name, tier in self.tiers:
            own = clone(tier)
            if not is_frozen(own) and self.random_state is not None:
                params = own.get_params(deep=True)
                seeds = [key for key in sorted(params) if re.search(r"(^|__)random_state$", key)]
                unset = {key: rng.randint(2**31 - 1) for key in seeds if params[key] is None}
                own.set_params(**unset)
            pairs.append((name, own))
        return pairs

    def _encode(self, y: Array, pairs: list[tuple[str, Any]]) -> tuple[Array, Array]:
        """Return the classes and y as indices; frozen tiers may know classes that y lacks."""
        frozen = [known_classes(*pair) for pair in pairs if is_frozen(pair[1])]
        classes = np.unique(np.concatenate([y, *frozen]) if len(frozen) == len(pairs) else y)
        if len(classes) < 2:
            raise ValueError(f"at least 2 classes are needed, the data has one class: {classes}")
        return classes, np.searchsorted(classes, y)


def _faulty(tier: str, faults: int, n: int) -> str:
    return f"tier {tier!r}: no probabilities on {faults:,} of {n:,} rows (NaN, or not summing to 1)"


def _with_lost(confidences: Array, losses: Array, lost: int) -> tuple[Array, Array]:
    """Add rows that every tier would answer, and wrongly: no worse could be true of them."""
    shape = lost, confidences.shape[1]
    return np.vstack([confidences, np.ones(shape)]), np.vstack([losses, np.ones(shape, bool)])


def _note(fitted: list[FittedTier], lost: int) -> str:
    unconverted = [tier.name for tier in fitted if tier.error is not None]
    note = "scored on the exported ONNX models, one row at a time"
    if unconverted:
        note = f"scored on scikit-learn's float32 probabilities: {', '.join(unconverted)}"
    if lost:
        note += f"; {lost} rows of rare classes, which training needs, are counted as lost"
    return note


def _versions() -> dict[str, str]:
    return {
        "cascade": cascade.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
