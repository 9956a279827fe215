"""The files beside a policy: models found and verified, profiles and golden inputs read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from cascade.errors import ModelIntegrityError, PolicyError
from cascade.policy.beside import read_file, read_object
from cascade.policy.walk import KEY, close, nearest, shown
from cascade.tiers.graph import external_locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cascade.policy.model import Policy
    from cascade.policy.settings import OnnxSpec
    from cascade.policy.walk import Problem

__all__ = [
    "Golden",
    "Profile",
    "data_files",
    "load_golden",
    "load_profile",
    "read_model",
    "resolve_model",
    "sha256_file",
    "sha256_model",
    "verify_model",
]

T = TypeVar("T")
_NO_ARRAY = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
_MODEL = 2**31  # bytes, the most that the format allows
_PROFILE, _GOLDEN = 1_000_000, 64_000_000  # bytes of their files
_LONGEST = 1e6  # seconds of a call; beyond, nanoseconds overflow where they are added up
_LOOSEST = 1e6  # by which an answer may differ


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
    model = read_file(path, _MODEL)
    return _digest(model, data_files(model, Path(path).resolve()))


def _digest(model: bytes, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(model)
    for file in files:
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_model(path: Path, spec: OnnxSpec) -> tuple[bytes, str]:
    """Return a model's bytes and its digest, whatever the policy says that it is.

    Raises:
        ModelIntegrityError: the file is missing, or it refers to files that are not its own.
    """
    try:
        model = read_file(path, _MODEL)
        return model, _digest(model, data_files(model, path))
    except OSError as error:
        msg = f"tier {spec.name!r}: model {spec.model} cannot be read: {error.strerror}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256) from error
    except ValueError as error:
        msg = f"tier {spec.name!r}: {spec.model}: {error}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256) from None


def verify_model(path: Path, spec: OnnxSpec) -> bytes:
    """Read a model once, and return its bytes if they are those that the policy names.

    Raises:
        ModelIntegrityError: the file is missing, its digest differs, or it refers to files that are
            not its own.
    """
    model, found = read_model(path, spec)
    if spec.sha256 is not None and found != spec.sha256:
        msg = f"tier {spec.name!r}: {spec.model}: sha256 is {found}, the policy says {spec.sha256}"
        raise ModelIntegrityError(msg, tier=spec.name, expected=spec.sha256, found=found)
    return model


def load_profile(policy: Policy) -> dict[str, Profile]:
    """Return the measured profile per tier; empty where the policy names none.

    Raises:
        PolicyError: the file is missing, or is no profile; with every problem, and its place.
    """
    return _by_tier(policy, policy.profile, _PROFILE, "profiles", "profile of tier", _profile)


def load_golden(policy: Policy) -> dict[str, Golden]:
    """Return the golden input per tier; empty where the policy names none.

    Raises:
        PolicyError: the file is missing, or holds no golden inputs; with every problem.
    """
    return _by_tier(policy, policy.golden, _GOLDEN, "golden inputs", "golden input of", _golden)


def _by_tier(
    policy: Policy, name: str | None, most: int, what: str, one: str, make: Callable[[Any], T]
) -> dict[str, T]:
    """Read a JSON object with an entry per tier; what is wrong with one is a _Wrong."""
    if name is None or policy.root is None:
        return {}
    held = read_object(policy.root / name, f"{what} by tier", most)
    tiers = [spec.name for spec in policy.tiers]
    without = [tier for tier in tiers if tier not in held.tree]
    found: dict[str, T] = {}
    problems: list[Problem] = []
    for tier, tree in held.tree.items():
        meant = close(tier, without) if tier not in tiers else None
        if meant is not None:  # of a tier that is no more an entry may stay
            said = f"no such tier in the policy; did you mean {meant!r}?"
            problems.append(((tier, KEY), said))
            continue
        try:
            found[tier] = make(tree)
        except _Wrong as wrong:
            said = f"no {one} {shown(tier)}: {wrong}"
            problems.append(((tier, *wrong.path), said))
    if problems:
        raise held.refusal(problems)
    return found


class _Wrong(ValueError):
    """What is wrong with an entry, and where in it."""

    def __init__(self, said: str, *path: str) -> None:
        super().__init__(said)
        self.path = path


def _fields(tree: Any, needed: tuple[str, ...], others: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _Wrong(f"expected an object, got {shown(tree)}")
    for key in tree:
        if key not in needed and key not in others:
            raise _Wrong(f"unknown key; {nearest(key, [*needed, *others])}", key, KEY)
    for key in needed:
        if key not in tree:
            raise _Wrong("missing", key)
    return tree


def _profile(tree: Any) -> Profile:
    held = _fields(tree, ("overhead", "per_row"), ("residual",))
    return Profile(**{key: _number(number, _LONGEST, key) for key, number in held.items()})


def _number(number: Any, most: float, key: str) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= most:
        raise _Wrong(f"expected a number between 0 and {most:g}, got {shown(number)}", key)
    return float(number)


def _golden(tree: Any) -> Golden:
    held = _fields(tree, ("inputs", "outputs"), ("rtol", "atol"))
    inputs, outputs = _arrays(held, "inputs"), _arrays(held, "outputs")
    sizes = {name: array.shape[:1] for name, array in inputs.items()}
    for name, size in sizes.items():
        if size in {(), (0,)} or size != next(iter(sizes.values())):
            raise _Wrong("expected a batch, as long as the others", "inputs", name)
    rtol = _number(held.get("rtol", 1e-3), _LOOSEST, "rtol")
    atol = _number(held.get("atol", 1e-4), _LOOSEST, "atol")
    return Golden(inputs, outputs, rtol, atol)


def _arrays(held: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(held[key], dict) or not held[key]:
        raise _Wrong("expected arrays by name", key)
    found = {}
    for name, tree in held[key].items():
        try:
            found[name] = _array_from(tree)
        except _NO_ARRAY:
            raise _Wrong("expected an array, or {dtype, data}", key, name) from None
    return found


def _array_from(tree: Any) -> Any:
    """Return an array of numbers in the dtype that it was written in, or of text.

    Text is kept as objects: the width that a dtype names, or that one long text would give to all,
    can be more than there is memory.
    """
    import numpy as np

    data, dtype = (tree["data"], tree["dtype"]) if isinstance(tree, dict) else (tree, None)
    if not isinstance(dtype, (str, type(None))):
        raise TypeError
    array = np.array(data, dtype=object)
    if dtype is None:
        text = any(isinstance(item, str) for item in array.ravel().tolist())
        return array if text else _numeric(np.array(array.tolist()))
    wanted = np.dtype(dtype)
    if wanted.kind in "OUS":
        return array
    return _numeric(array.astype(wanted)) if wanted.kind in "biuf" else _numeric(array)


def _numeric(array: Any) -> Any:
    if array.dtype.kind not in "biuf":
        raise TypeError
    return array
