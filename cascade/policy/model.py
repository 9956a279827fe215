"""The policy: an immutable, validated configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from cascade.policy import constraints as c
from cascade.policy.constraints import field, settings
from cascade.policy.settings import (
    CacheSettings,
    ComplexityRule,
    Escalation,
    FunctionVersion,
    InputSettings,
    LoadSettings,
    TierSpec,
    spec_class,
)
from cascade.types import NEVER, Mode, OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cascade.calibration import Calibration
    from cascade.policy.certificate import Certificate

__all__ = ["Policy"]

_MOST = 100  # tiers: far beyond any ladder, and soon refused
_MODES = ("enforce", "observe", "top_only", "first_only")


def _name(index: int, last: int) -> str | None:
    """Name the points that people speak of; what lies beyond the last certified is brownout."""
    if index > last:
        return "brownout"
    return "cheapest certified" if index == last else "always escalate" if index == 0 else None


@settings
class Policy:
    """The whole configuration of a router.

    >>> policy = Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "pets",
    ...         "deadline": "20ms",
    ...         "tiers": [{"name": "only", "kind": "external"}],
    ...     }
    ... )
    >>> policy.deadline, policy.tiers[0].name
    (0.02, 'only')
    """

    version: int = field(
        c.only(1, "the only format this release reads"), "Of the format.", default=1
    )
    name: str = field(c.text(r"^[A-Za-z0-9_.-]+$", "a name of letters, digits, _ . -"), "Yours.")
    revision: str | None = field(c.text(), "Yours; stands in metrics.", default=None)
    mode: Mode = field(c.choice(_MODES, Mode), "How the router answers.", default=Mode.ENFORCE)
    deadline: float | None = field(c.duration(), "Per request.", default=None)
    max_deadline: float | None = field(c.duration(), "Longer ones are clamped.", default=None)
    tiers: tuple[TierSpec, ...] = field(c.section_list(spec_class, _MOST), "Cheapest first.")
    escalation: Escalation = field(c.section(Escalation), "When to go on.", factory=Escalation)
    complexity: ComplexityRule | None = field(
        c.section(ComplexityRule), "The entry rule.", default=None
    )
    inputs: InputSettings = field(c.section(InputSettings), "Input checks.", factory=InputSettings)
    prepare: FunctionVersion | None = field(
        c.section(FunctionVersion), "Of prepare=.", default=None
    )
    postprocess: FunctionVersion | None = field(
        c.section(FunctionVersion), "Of postprocess=.", default=None
    )
    classes: tuple[Any, ...] | None = field(
        c.label_list(), "In the order of probabilities.", default=None
    )
    cache: CacheSettings | None = field(c.section(CacheSettings), "Absent: no cache.", default=None)
    load: LoadSettings | None = field(
        c.section(LoadSettings), "Absent: load moves nothing.", default=None
    )
    profile: str | None = field(c.text(), "File of measured service times.", default=None)
    golden: str | None = field(c.text(), "File of golden inputs and outputs.", default=None)
    certificate: Certificate | None = attrs.field(default=None, eq=False, repr=False)
    calibrations: Mapping[str, Calibration] = attrs.field(factory=dict, eq=False, repr=False)
    path: Path | None = attrs.field(default=None, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Refuse what a file could not say."""
        from cascade.policy.checks import check

        check(self)

    @property
    def root(self) -> Path | None:
        """The folder of the policy file."""
        return None if self.path is None else self.path.parent

    @property
    def digest(self) -> str:
        """The digest of everything that the policy says."""
        from cascade.policy.digest import policy_digest

        return policy_digest(self)

    @property
    def answer_digest(self) -> str:
        """The digest of what changes answers, and so empties the cache."""
        from cascade.policy.digest import answer_digest

        return answer_digest(self)

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        """The operating points, strictest first."""
        skip = () if self.complexity is None else self.complexity.skip_above
        if self.certificate is not None:
            last = self.certificate.certified - 1
            points: list[OperatingPoint] = []
            for i, p in enumerate(self.certificate.path):
                promised = points[last] if i > last >= 0 else None
                points.append(
                    OperatingPoint(
                        i, p.thresholds, p.skip_above or skip, i <= last, _name(i, last), promised
                    )
                )
            return tuple(points)
        given = self.escalation.thresholds
        never = (NEVER,) * (len(self.tiers) - 1)
        return (OperatingPoint(0, never if given is None else given, skip),)

    @property
    def point(self) -> OperatingPoint:
        """The cheapest certified point; where nothing is certified, the first one there is."""
        points = self.points
        certified = [point for point in points if point.certified]
        return certified[-1] if certified else points[0]

    def certified(self, certificate: Certificate) -> Self:
        """Return this policy with a certificate of its tiers."""
        given: Any = self
        made: Self = attrs.evolve(given, certificate=certificate)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain types; ``from_dict`` reads it back."""
        from cascade.policy.digest import plain

        tree: dict[str, Any] = plain(self)
        return tree

    def to_yaml(self) -> str:
        """Return the policy as YAML."""
        from cascade.policy.loader import dump

        return dump(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, root: str | Path | None = None) -> Self:
        """Read a policy from plain types; with ``root`` the certificate is read from there.

        Raises:
            PolicyError: with every problem in ``.issues``.
        """
        from cascade.policy.loader import build

        path = None if root is None else Path(root) / "policy.yaml"
        return build(cls, data, path=path)

    @classmethod
    def from_yaml(cls, path: str | Path, *, env: Mapping[str, str] | None = None) -> Self:
        """Read a policy file; ``env`` stands in for the environment.

        Raises:
            PolicyError: with every problem of the file, and its place.
        """
        from cascade.policy.loader import load

        return load(cls, Path(path), env)
