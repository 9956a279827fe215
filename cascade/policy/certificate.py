"""The certificate: proof that a prefix of the path keeps its promise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from cascade.errors import PolicyError
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Certificate", "PathPoint"]


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


@attrs.frozen(kw_only=True)
class PathPoint:
    """One tested point: thresholds, losses among n rows, and the p-value of 'the loss exceeds δ'.

    >>> PathPoint(thresholds=(0.9,), losses=3, p_value=0.04).skip_above
    ()
    """

    thresholds: tuple[float, ...] = attrs.field(converter=_floats)
    skip_above: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    losses: float  # a whole number, but for graded answers
    p_value: float
    escalation: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    cost: float | None = None


def _wrong(made: Any) -> Iterator[str]:
    """Say what a router could not serve by; whether the numbers add up is for ``check``."""
    for name, value in (("max_loss", made.max_loss), ("alpha", made.alpha)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            yield f"{name}: expected a number between 0 and 1, got {value!r}"
    for name, count in (("n", made.n), ("certified", made.certified)):
        if type(count) is not int or count < 0:
            yield f"{name}: expected a whole number, got {count!r}"
    if not made.path:
        yield "path: expected at least one point"
    if made.certified > len(made.path):
        yield f"certified: {made.certified} of {len(made.path)} points"
    if not isinstance(made.loss, str) or not isinstance(made.covers, str):
        yield "loss, covers: expected text"
    if not isinstance(made.digests, Mapping):
        yield "digests: expected digests by tier name"
    below = len(made.tiers) - 1
    for i, point in enumerate(made.path):
        yield from _wrong_point(point, f"path.{i}", below)


def _wrong_point(point: Any, path: str, below: int) -> Iterator[str]:
    for name, number in (("losses", point.losses), ("p_value", point.p_value)):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
            yield f"{path}.{name}: expected a number of at least 0"
    if len(point.thresholds) != below or not all(0 <= t <= NEVER for t in point.thresholds):
        yield f"{path}.thresholds: expected {below} numbers between 0 and {NEVER:g}"
    if len(point.skip_above) > below or list(point.skip_above) != sorted(point.skip_above):
        yield f"{path}.skip_above: expected at most {below} numbers that do not fall"


def _names(values: Any) -> tuple[str, ...]:
    return tuple(values)


def _path(points: Any) -> tuple[PathPoint, ...]:
    return tuple(p if isinstance(p, PathPoint) else PathPoint(**p) for p in points)


@attrs.frozen(kw_only=True)
class Certificate:
    """Accuracy loss against the top tier ≤ ``max_loss``, with confidence 1 − ``alpha``.

    The first ``certified`` points of ``path``, strictest first, keep the promise (fixed-sequence
    testing; Angelopoulos et al., 'Learn then Test', arXiv 2110.01052). ``digests`` are those of the
    tiers, by name, and of the data.

    >>> point = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0)
    >>> proof = Certificate(
    ...     max_loss=0.01,
    ...     alpha=0.1,
    ...     loss="gross",
    ...     covers="adaptive",
    ...     n=500,
    ...     tiers=("small", "large"),
    ...     path=(point,),
    ...     certified=1,
    ... )
    >>> Certificate.from_dict(proof.to_dict()) == proof
    True
    """

    max_loss: float
    alpha: float
    loss: str
    covers: str
    n: int
    tiers: tuple[str, ...] = attrs.field(converter=_names)
    path: tuple[PathPoint, ...] = attrs.field(converter=_path)
    certified: int
    digests: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    seed: int | None = None
    fractions: Any = attrs.field(default=None, hash=False)
    created: str | None = None
    versions: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON types."""
        return json.loads(json.dumps(attrs.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            PolicyError: a field is missing, unknown or of the wrong type.
        """
        try:
            made = cls(**data)
            wrong = next(_wrong(made), None)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PolicyError(f"certificate: {error}") from error
        if wrong is not None:
            raise PolicyError(f"certificate: {wrong}")
        return made

    def save(self, path: str | Path) -> None:
        """Write the certificate as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a certificate file.

        Raises:
            PolicyError: the file is missing, or is not a certificate.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise PolicyError(f"{path}: not a readable certificate: {error}") from error
        if not isinstance(data, dict):
            raise PolicyError(f"{path}: not a certificate: expected a JSON object")
        return cls.from_dict(data)
