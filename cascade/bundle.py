"""The files beside a policy: models found and verified, profiles and golden inputs read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from cascade.errors import ModelIntegrityError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cascade.policy.model import OnnxSpec, Policy

__all__ = [
    "Golden",
    "Profile",
    "load_golden",
    "load_profile",
    "resolve_model",
    "sha256_file",
    "verify_model",
]

T = TypeVar("T")


@attrs.frozen
class Profile:
    """A tier's measured time in seconds: ``overhead + per_row · n + residual`` (p95)."""

    overhead: float
    per_row: float
    residual: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return the profile as JSON types."""
        return attrs.asdict(self)


@attrs.frozen
class Golden:
    """A question with a known answer: batches by name, and how far an answer may differ."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    rtol: float = 1e-3
    atol: float = 1e-4

    def to_dict(self) -> dict[str, Any]:
        """Return the golden input as JSON types."""
        return {
            "inputs": {name: _array_to(a) for name, a in self.inputs.items()},
            "outputs": {name: _array_to(a) for name, a in self.outputs.items()},
            "rtol": self.rtol,
            "atol": self.atol,
        }


def _array_to(array: Any) -> Any:
    import numpy as np

    array = np.asarray(array)
    return {"dtype": str(array.dtype), "data": array.tolist()}


def _array_from(tree: Any) -> Any:
    import numpy as np

    if isinstance(tree, dict):
        return np.array(tree["data"], dtype=tree["dtype"])
    return np.asarray(tree)


def sha256_file(path: str | Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_model(
    policy: Policy, spec: OnnxSpec, models: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Find a model file under ``models``, ``CASCADE_MODELS`` or the policy's folder.

    Raises:
        PolicyError: there is no folder to look in, or the file lies outside it without a digest.
    """
    environment = os.environ if env is None else env
    root = models or environment.get("CASCADE_MODELS") or policy.root
    if root is None:
        if not Path(spec.model).is_absolute():
            raise PolicyError(f"tier {spec.name!r}: where is {spec.model}? give models=FOLDER")
        root = Path(spec.model).parent
    base = Path(root).resolve()
    path = (base / spec.model).resolve()
    if not path.is_relative_to(base) and spec.sha256 is None:
        raise PolicyError(
            f"tier {spec.name!r}: {spec.model} lies outside {base.name}/ and needs sha256:"
        )
    return path


def verify_model(path: Path, spec: OnnxSpec) -> bytes:
    """Read a model once, and return its bytes if they are those that the policy names.

    Raises:
        ModelIntegrityError: the file is missing, or its digest differs.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        msg = f"tier {spec.name!r}: model {spec.model} cannot be read: {error.strerror}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256) from error
    found = hashlib.sha256(model).hexdigest()
    if spec.sha256 is not None and found != spec.sha256:
        msg = f"tier {spec.name!r}: {spec.model}: sha256 is {found}, the policy says {spec.sha256}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256, found=found)
    return model


def _load(policy: Policy, name: str | None) -> dict[str, Any]:
    if name is None or policy.root is None:
        return {}
    path = policy.root / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: cannot be read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise PolicyError(f"{path}: expected a JSON object by tier")
    return found


def load_profile(policy: Policy) -> dict[str, Profile]:
    """Return the measured profile per tier; empty where the policy names none."""
    return {name: Profile(**tree) for name, tree in _load(policy, policy.profile).items()}


def load_golden(policy: Policy) -> dict[str, Golden]:
    """Return the golden input per tier; empty where the policy names none."""
    found = {}
    for name, tree in _load(policy, policy.golden).items():
        inputs = {k: _array_from(v) for k, v in tree["inputs"].items()}
        outputs = {k: _array_from(v) for k, v in tree["outputs"].items()}
        found[name] = Golden(inputs, outputs, tree.get("rtol", 1e-3), tree.get("atol", 1e-4))
    return found
