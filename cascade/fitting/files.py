"""Write a fit down: beside the user's own policy, or as a policy of external tiers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from cascade.bundle import read_model, resolve_model
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.files import all_or_none, replace_file
from cascade.policy import OnnxSpec, Policy
from cascade.policy.digest import tier_digest
from cascade.policy.loader import load
from cascade.policy.places import Places
from cascade.policy.reading import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.fitting.result import Fit
    from cascade.policy import Certificate, TierSpec

__all__ = ["merged", "save"]

CERTIFICATE, CALIBRATION = "certificate.json", "calibration.json"


def save(fit: Fit, folder: str | Path) -> Path:
    """Write policy.yaml, certificate.json and, if there is one, calibration.json: all or none."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "policy.yaml"
    lines = [f"# {line}" for line in fit.report().splitlines()]
    with _together(path):
        _write_tables(fit, target)
        fit.certificate.save(target / CERTIFICATE)
        replace_file(path.resolve(), "\n".join([*lines, fit.policy.to_yaml()]).encode())
    return path


def merged(fit: Fit, path: Path) -> tuple[str, str]:
    """Put a fit into the user's own policy file: escalation, confidence and the models' digests.

    Returns the text before and after; all else, comments and order stay. The certificate and the
    tables are written beside it. It is then certified with the models and settings of that file.
    What fails leaves all files as they were.
    """
    before = path.read_bytes().decode("utf-8")
    policy = load(Policy, path, {}, absent_ok=True, stale_ok=True)
    text = _promised(before)
    for index, spec in enumerate(policy.tiers):
        text = _scored(fit, text, index, spec)
        text = _pinned(policy, text, index, spec)
    with _together(path):
        _write_tables(fit, path.parent)
        fit.certificate.save(path.parent / CERTIFICATE)  # to be read with the policy
        replace_file(path.resolve(), text.encode())
        _certificate(fit, load(Policy, path, {}, stale_ok=True)).save(path.parent / CERTIFICATE)
    return before, text


@contextlib.contextmanager
def _together(path: Path) -> Iterator[None]:
    """Write all files and read them as a router would; what fails leaves them as they were."""
    with all_or_none([path.parent / CALIBRATION, path.parent / CERTIFICATE, path.resolve()]):
        yield
        Policy.from_yaml(path, env={})


def _promised(text: str) -> str:
    """Have a policy's escalation name the certificate, in the place of its thresholds."""
    places, where = Places(text, ""), ("escalation",)
    held = places.mapping(where)
    if "thresholds" in held:
        return places.swap(where, "thresholds", "certificate", CERTIFICATE)
    if held:
        return places.put(where, "certificate", CERTIFICATE, after=held[0])
    return places.put((), "escalation", f"{{certificate: {CERTIFICATE}}}", after="tiers")


def _scored(fit: Fit, text: str, index: int, spec: TierSpec) -> str:
    """Have a tier's score and calibration be those that were fitted; the temperature stays."""
    where = ("tiers", index, "confidence")
    held = Places(text, "").mapping(where)
    changes = _changes(fit, spec)
    if "calibration" in held and "calibration" not in changes:
        return Places(text, "").drop(where, "calibration")
    if held:
        for key, value in changes.items():
            text = Places(text, "").put(where, key, value, after=held[0])
    elif changes:
        score = spec.confidence.score
        both = changes if score == "auto" else {"score": score, **changes}
        inner = ", ".join(f"{key}: {value}" for key, value in both.items())
        text = Places(text, "").put(("tiers", index), "confidence", f"{{{inner}}}", after="kind")
    return text


def _changes(fit: Fit, spec: TierSpec) -> dict[str, str]:
    """Return what changes in a tier's ``confidence``.

    Raises:
        PolicyError: confidences were fitted, and the policy goes by margins.
    """
    scores = {one.name: one.confidence.score for one in fit.policy.tiers[:-1]}
    fitted, score = scores.get(spec.name), spec.confidence.score
    if fitted not in {None, "margin"} and score == "margin":
        raise PolicyError(
            f"tier {spec.name!r}: the policy goes by margins, and confidences were fitted; fit "
            "margins (--score margin), or name the score of the recording's confidences in the "
            "policy"
        )
    changed = {"score": "margin"} if fitted == "margin" and score != "margin" else {}
    tables = {"calibration": CALIBRATION} if spec.name in fit.policy.calibrations else {}
    return changed | tables


def _pinned(policy: Policy, text: str, index: int, spec: TierSpec) -> str:
    """Say which model is certified: the one that is there now."""
    if not isinstance(spec, OnnxSpec):
        return text
    try:
        found = read_model(resolve_model(policy, spec), spec)[1]
    except ModelIntegrityError:  # it is elsewhere, and the recording was made there
        return text
    if found == spec.sha256:
        return text
    return Places(text, "").put(("tiers", index), "sha256", quoted(found), after="model")


def _certificate(fit: Fit, policy: Policy) -> Certificate:
    """Return the certificate for the models, scores and tables of this very policy."""
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    digests["data"] = fit.certificate.digests["data"]
    return attrs.evolve(fit.certificate, digests=digests)


def _write_tables(fit: Fit, folder: Path) -> None:
    tables = {name: table.to_dict() for name, table in fit.policy.calibrations.items()}
    if tables:
        replace_file(folder / CALIBRATION, (json.dumps(tables, indent=1) + "\n").encode())
