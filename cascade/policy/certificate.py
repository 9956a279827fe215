"""The certificate: proof that a prefix of the path keeps its promise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from cascade.policy import constraints as c
from cascade.policy.beside import read_object
from cascade.policy.constraints import field
from cascade.policy.walk import UNREAD, Draft, Unread, dotted, known, read, refusal
from cascade.types import NEVER, Issue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.policy.walk import Problem

__all__ = ["Certificate", "PathPoint"]

_MOST = 4_000_000  # bytes of a file: tens of thousands of points
_POINTS = 100_000


@attrs.frozen(kw_only=True)
class PathPoint:
    """One tested point: thresholds, losses among n rows, and the p-value of 'the loss exceeds δ'.

    >>> PathPoint(thresholds=(0.9,), losses=3, p_value=0.04).skip_above
    ()
    """

    thresholds: tuple[float, ...] = field(c.number_list(0.0, NEVER), "One per tier below the top.")
    skip_above: tuple[float, ...] = field(c.number_list(), "Of the entry rule.", default=())
    losses: float = field(c.count(), "A whole number, but for graded answers.")
    p_value: float = field(c.number(0.0), "Of 'the loss exceeds max_loss'.")
    escalation: tuple[float, ...] = field(c.number_list(), "Calls of each tier.", default=())
    cost: float | None = field(c.number(), "Of a request.", default=None)


def _wrong(made: Any) -> Iterator[Problem]:
    """Say what a router could not serve by; whether the numbers add up is for ``check``."""
    if not made.path:
        yield ("path",), "expected at least one point"
    if made.certified > len(made.path):
        yield ("certified",), f"{made.certified} of {len(made.path)} points"


def _wrong_points(made: Any) -> Iterator[Problem]:
    below = len(made.tiers) - 1
    for i, point in enumerate(made.path):
        for wrong in (_thresholds, _skips):
            try:
                yield from wrong(point, ("path", i), below)
            except Unread:
                continue


def _wrong_losses(made: Any) -> Iterator[Problem]:
    for i, point in enumerate(made.path if made.loss != "net" else ()):  # of which gains are part
        if (known(point, "losses") or 0) < 0:
            yield ("path", i, "losses"), f"expected a number of at least 0, got {point.losses:g}"


def _thresholds(point: Any, path: tuple[Any, ...], below: int) -> Iterator[Problem]:
    if len(point.thresholds) != below:
        said = f"expected {below} numbers between 0 and {NEVER:g}, got {len(point.thresholds)}"
        yield (*path, "thresholds"), said


def _skips(point: Any, path: tuple[Any, ...], below: int) -> Iterator[Problem]:
    skips = point.skip_above
    if UNREAD not in skips and (len(skips) > below or list(skips) != sorted(skips)):
        yield (*path, "skip_above"), f"expected at most {below} numbers that do not fall"


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

    max_loss: float = field(c.number(0.0, 1.0), "The bound on the loss.")
    alpha: float = field(c.number(0.0, 1.0), "The risk that it does not hold.")
    loss: str = field(c.text(), "What was counted.")
    covers: str = field(c.text(), "adaptive, or fixed_point.")
    n: int = field(c.integer(), "Rows of the test.")
    tiers: tuple[str, ...] = field(c.name_list(), "Cheapest first.")
    path: tuple[PathPoint, ...] = field(c.section_list(PathPoint, _POINTS), "Strictest first.")
    certified: int = field(c.integer(), "So many points keep the promise.")
    digests: Mapping[str, str] = field(
        c.text_by_name(), "Of tiers, data.", factory=dict, hash=False
    )
    seed: int | None = field(c.integer(), "Of the split.", default=None)
    fractions: Any = field(c.anything(), "Of the split.", default=None, hash=False)  # noqa: RUF009
    created: str | None = field(c.text(), "When.", default=None)
    versions: Mapping[str, str] = field(c.text_by_name(), "Made by.", factory=dict, hash=False)
    note: str | None = field(c.anything(), "Yours.", default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON types."""
        return json.loads(json.dumps(attrs.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            PolicyError: a field is missing, unknown or of the wrong type.
        """
        values, problems = _read(data)
        if problems:
            raise refusal(
                [Issue("certificate", None, None, dotted(path), said) for path, said in problems]
            )
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the certificate as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a certificate file.

        Raises:
            PolicyError: the file is missing, or is not a certificate.
        """
        held = read_object(Path(path), "a certificate", _MOST)
        values, problems = _read(held.tree)
        if problems:
            raise held.refusal(problems)
        return cls(**values)


def _read(data: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Return the fields of a certificate, and everything that is wrong with them."""
    problems: list[Problem] = []
    values = read(Certificate, _without_none(data, Certificate), (), problems)
    for rule in (_wrong, _wrong_points, _wrong_losses):
        try:
            problems += list(rule(Draft(values)))
        except Unread:
            continue
    return values, problems


def _without_none(data: Any, cls: type[Any]) -> Any:
    """Leave out what JSON says is nothing, where nothing is what it is by default."""
    if not isinstance(data, Mapping):
        return data
    fields = attrs.fields_dict(cls)
    kept = {k: v for k, v in data.items() if v is not None or _needed(fields.get(k))}
    if cls is Certificate and isinstance(kept.get("path"), (list, tuple)):
        kept["path"] = [_without_none(point, PathPoint) for point in kept["path"]]
    return kept


def _needed(declared: Any) -> bool:
    return declared is None or declared.default is not None
