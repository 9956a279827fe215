"""Write a fit down: beside the user's own policy, or as a policy of external tiers."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cascade.bundle import read_model, resolve_model
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.files import all_or_none, replace_file
from cascade.policy import OnnxSpec, Policy
from cascade.policy.digest import tier_digest
from cascade.policy.loader import load
from cascade.policy.reading import untabbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.fitting.result import Fit
    from cascade.policy import Certificate

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
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes, yaml.width = True, 4096
    before = path.read_bytes().decode("utf-8")
    if "\n- " not in before:
        yaml.indent(mapping=2, sequence=4, offset=2)
    tree: Any = yaml.load(untabbed(before))
    _put(fit, tree)
    _pin(load(Policy, path, {}, absent_ok=True, stale_ok=True), tree)
    stream = io.StringIO(newline="\r\n" if "\r\n" in before else "\n")
    yaml.dump(tree, stream)
    with _together(path):
        _write_tables(fit, path.parent)
        fit.certificate.save(path.parent / CERTIFICATE)  # to be read with the policy
        replace_file(path.resolve(), stream.getvalue().encode())
        _certificate(fit, load(Policy, path, {}, stale_ok=True)).save(path.parent / CERTIFICATE)
    return before, stream.getvalue()


@contextlib.contextmanager
def _together(path: Path) -> Iterator[None]:
    """Write all files and read them as a router would; what fails leaves them as they were."""
    with all_or_none([path.parent / CALIBRATION, path.parent / CERTIFICATE, path.resolve()]):
        yield
        Policy.from_yaml(path, env={})


def _put(fit: Fit, tree: Any) -> None:
    escalation = tree.setdefault("escalation", {})
    escalation.pop("thresholds", None)
    escalation["certificate"] = CERTIFICATE
    scores = {spec.name: spec.confidence.score for spec in fit.policy.tiers[:-1]}
    for spec in tree["tiers"]:
        name, held = spec["name"], spec.get("confidence", {})
        settings = held if hasattr(held, "items") else {"score": held}
        settings.pop("calibration", None)
        if name in fit.policy.calibrations:
            settings["calibration"] = CALIBRATION
        _score(name, settings, scores.get(name))
        if settings and (settings is held or settings != {"score": held}):
            spec["confidence"] = settings


def _score(tier: str, settings: Any, fitted: str | None) -> None:
    """Have a tier's score be the one that was fitted.

    Raises:
        PolicyError: confidences were fitted, and the policy goes by margins.
    """
    if fitted == "margin":
        settings["score"] = "margin"
    elif fitted is not None and settings.get("score") == "margin":
        raise PolicyError(
            f"tier {tier!r}: the policy goes by margins, and confidences were fitted; fit margins "
            "(--score margin), or name the score of the recording's confidences in the policy"
        )


def _pin(policy: Policy, tree: Any) -> None:
    """Say which models are certified: those that are there now."""
    for spec, settings in zip(policy.tiers, tree["tiers"], strict=True):
        if not isinstance(spec, OnnxSpec):
            continue
        try:
            found = read_model(resolve_model(policy, spec), spec)[1]
        except ModelIntegrityError:  # it is elsewhere, and the recording was made there
            continue
        if "sha256" in settings:
            settings["sha256"] = found
        else:
            settings.insert(list(settings).index("model") + 1, "sha256", found)


def _certificate(fit: Fit, policy: Policy) -> Certificate:
    """Return the certificate for the models, scores and tables of this very policy."""
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    digests["data"] = fit.certificate.digests["data"]
    return attrs.evolve(fit.certificate, digests=digests)


def _write_tables(fit: Fit, folder: Path) -> None:
    tables = {name: table.to_dict() for name, table in fit.policy.calibrations.items()}
    if tables:
        replace_file(folder / CALIBRATION, (json.dumps(tables, indent=1) + "\n").encode())
