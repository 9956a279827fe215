"""The files beside a policy: models found and verified, profiles and golden inputs read."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from cascade.errors import ModelIntegrityError, PolicyError
from cascade.tiers.graph import external_locations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cascade.policy.model import Policy
    from cascade.policy.settings import OnnxSpec

__all__ = [
    "Golden",
    "Profile",
    "data_files",
    "load_golden",
    "load_profile",
    "resolve_model",
    "sha256_file",
    "sha256_model",
    "verify_model",
]

T = TypeVar("T")
_NO_FILE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


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


def data_files(model: bytes, path: Path) -> tuple[Path, ...]:
    """Return the files beside ``path`` that hold the tensors which ``model`` does not.

    Raises:
        ValueError: a reference is absolute, leaves the model's folder, passes through a link, or
            names no file; the message says which.
    """
    found = []
    for location in external_locations(model):
        shown = ascii(location.decode("utf-8", "replace"))
        windows = PureWindowsPath(location.decode("utf-8", "replace"))
        name = Path(os.fsdecode(location))
        if name.is_absolute() or windows.drive or windows.root:
            raise ValueError(f"external data {shown} is absolute")
        if ".." in name.parts or ".." in windows.parts:
            raise ValueError(f"external data {shown} leaves the model's folder")
        at = path.parent
        for part in name.parts:
            at /= part
            if "\0" not in part and at.is_symlink():
                raise ValueError(f"external data {shown} passes through a link")
        if b"\0" in location or not at.is_file():
            raise ValueError(f"external data {shown} is no file in the model's folder")
        found.append(at)
    return tuple(found)


def sha256_model(path: str | Path) -> str:
    """Return a model's digest: of its file, followed by those that hold its external data.

    Raises:
        ValueError: a reference to external data that is refused.
    """
    model = Path(path).read_bytes()
    return _digest(model, data_files(model, Path(path).resolve()))


def _digest(model: bytes, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(model)
    for file in files:
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def verify_model(path: Path, spec: OnnxSpec) -> bytes:
    """Read a model once, and return its bytes if they are those that the policy names.

    Raises:
        ModelIntegrityError: the file is missing, its digest differs, or it refers to files that are
            not its own.
    """
    try:
        model = path.read_bytes()
        files = data_files(model, path)
        found = _digest(model, files)
    except OSError as error:
        msg = f"tier {spec.name!r}: model {spec.model} cannot be read: {error.strerror}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256) from error
    except ValueError as error:
        msg = f"tier {spec.name!r}: {spec.model}: {error}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256) from None
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
    except (OSError, ValueError, RecursionError) as error:
        raise PolicyError(f"{path}: cannot be read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise PolicyError(f"{path}: expected a JSON object by tier")
    return found


def load_profile(policy: Policy) -> dict[str, Profile]:
    """Return the measured profile per tier; empty where the policy names none.

    Raises:
        PolicyError: the file is missing, or is no profile.
    """
    found = {}
    for name, tree in _load(policy, policy.profile).items():
        try:
            found[name] = Profile(**{key: _seconds(number) for key, number in tree.items()})
        except _NO_FILE as error:
            raise PolicyError(f"{policy.profile}: no profile of tier {name!r}: {error}") from error
    return found


def _seconds(number: Any) -> float:
    seconds = float(number)
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"expected seconds, got {seconds}")
    return seconds


def load_golden(policy: Policy) -> dict[str, Golden]:
    """Return the golden input per tier; empty where the policy names none.

    Raises:
        PolicyError: the file is missing, or holds no golden inputs.
    """
    found = {}
    for name, tree in _load(policy, policy.golden).items():
        try:
            found[name] = _golden(tree)
        except _NO_FILE as error:
            raise PolicyError(f"{policy.golden}: no golden input of {name!r}: {error}") from error
    return found


def _golden(tree: Any) -> Golden:
    inputs = {k: _array_from(v) for k, v in tree["inputs"].items()}
    outputs = {k: _array_from(v) for k, v in tree["outputs"].items()}
    if not inputs or not outputs or any(a.ndim == 0 for a in inputs.values()):
        raise ValueError("expected inputs and outputs, each a batch")
    rtol, atol = _seconds(tree.get("rtol", 1e-3)), _seconds(tree.get("atol", 1e-4))
    return Golden(inputs, outputs, rtol, atol)
