"""What a policy can name beyond what is built in: lazy entry points of installed packages.

Nothing is imported until a policy names it. A package declares a tier kind so::

    [project.entry-points."cascade.tiers"]
    remote = "acme.cascade:RemoteKind"
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

from cascade.errors import PolicyError

__all__ = ["TIERS", "plugin", "plugin_names"]

TIERS = "cascade.tiers"
"""The group of tier kinds; each entry is a :class:`cascade.protocols.TierKind`."""


@cache
def _found(group: str) -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def plugin_names(group: str) -> list[str]:
    """Name what is installed, importing nothing.

    >>> plugin_names("cascade.no_such_group")
    []
    """
    return sorted(_found(group))


def plugin(group: str, name: str) -> Any | None:
    """Import what an installed package offers under ``name``; None where none does.

    Raises:
        PolicyError: it cannot be imported.

    >>> plugin(TIERS, "no such kind") is None
    True
    """
    entry = _found(group).get(name)
    if entry is None:
        return None
    try:
        return entry.load()
    except Exception as error:
        said = f"{entry.value} cannot be imported: {type(error).__name__}: {error}"
        raise PolicyError(f"{_whose(entry)}: {said}") from error


def _whose(entry: metadata.EntryPoint) -> str:
    package = "an installed package" if entry.dist is None else f"package {entry.dist.name!r}"
    return f"{package} brings {entry.name!r} along"
