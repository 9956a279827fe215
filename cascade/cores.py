"""How many cores this process may use: affinity, the container's quota, its sibling workers."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

from cascade.errors import PolicyError
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Cores", "find_cores", "quota"]


@attrs.frozen
class Cores:
    """The cores of the machine, and what is left of them for this process.

    ``affinity`` is what the scheduler allows, ``quota`` the CPU time per second that the control
    group grants (None: no limit), ``workers`` the sibling processes that share both, ``cap`` is
    ``CASCADE_CORES``. ``usable`` is at least 1.

    >>> Cores(affinity=8, quota=3.5, workers=2, cap=None).usable
    1
    >>> Cores(affinity=8, quota=None, workers=2, cap=None).usable
    4
    """

    affinity: int
    quota: float | None = None
    workers: int = 1
    cap: int | None = None

    @property
    def usable(self) -> int:
        """Whole cores for this process."""
        share = min(self.affinity, math.inf if self.quota is None else self.quota) / self.workers
        return max(1, math.floor(min(share, math.inf if self.cap is None else self.cap)))

    def to_dict(self) -> dict[str, float | None]:
        """Return the facts and what follows from them."""
        return {**attrs.asdict(self), "usable": self.usable}


def find_cores(env: Mapping[str, str] | None = None) -> Cores:
    """Read the facts from the system and from ``WEB_CONCURRENCY`` and ``CASCADE_CORES``.

    Raises:
        PolicyError: ``CASCADE_CORES`` is no whole number above 0. The other variable is not ours,
            and ignored where it makes no sense.
    """
    env = os.environ if env is None else env
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return Cores(
        affinity=affinity,
        quota=quota(),
        workers=_positive(env.get("WEB_CONCURRENCY")) or 1,
        cap=_cap(env.get("CASCADE_CORES")),
    )


def _cap(text: str | None) -> int | None:
    cap = _positive(text)
    if text is not None and cap is None:
        issue = Issue(
            "CASCADE_CORES", None, None, "", f"expected a whole number above 0, got {text[:40]!r}"
        )
        raise PolicyError(str(issue), [issue])
    return cap


def _positive(text: str | None) -> int | None:
    known = text is not None and text.strip().isdecimal() and len(text) < 10
    return (int(text or 0) or None) if known else None


def quota(
    root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the tightest CPU quota of the control groups above this process, in cores."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    limits = [limit for folder in _groups(root, lines) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path, lines: list[str]) -> Iterator[Path]:
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        for part in (PurePosixPath(name), *PurePosixPath(name).parents):
            yield base / str(part).lstrip("/")


def _limit(folder: Path) -> float | None:
    """Read one group: ``cpu.max`` (version 2), else the pair of version 1."""
    try:
        if (unified := folder / "cpu.max").is_file():
            granted, period = unified.read_text(encoding="ascii").split()
        else:
            granted = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return int(granted) / int(period) if granted not in {"max", "-1"} else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
