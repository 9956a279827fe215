"""What a policy can name beyond what is built in: lazy entry points of installed packages.

Nothing is imported until a policy names it. A package declares a tier kind so::

    [project.entry-points."cascade.tiers"]
    remote = "acme.cascade:RemoteKind"
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

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

    >>> plugin(TIERS, "no such kind") is None
    True
    """
    entry = _found(group).get(name)
    return None if entry is None else entry.load()
