"""Where a key belongs that stands where it is not known."""

from __future__ import annotations

import functools
from typing import Any

from cascade.policy.model import Policy
from cascade.policy.settings import KINDS, TierSpec, any_kind, spec_class
from cascade.policy.walk import fields_of

__all__ = ["elsewhere"]

_VAGUE = {"kind", "max", "min", "name", "version"}  # could stand anywhere, and mean something else
_MOST = 2  # homes that are named; a key that has more is no hint


def elsewhere(cls: Any, key: Any) -> str | None:
    """Return where a key belongs that this section of a policy does not have, in words.

    >>> elsewhere(Policy, "ttl"), elsewhere(Policy, "what")
    ('belongs under cache:', None)
    """
    sections, homes = _homes()
    if cls not in sections or not isinstance(key, str) or not 1 <= len(homes.get(key, ())) <= _MOST:
        return None
    return f"belongs {' or '.join(homes[key])}"


@functools.cache
def _homes() -> tuple[set[Any], dict[str, list[str]]]:
    """Return the sections of a policy, and the places of each key."""
    sections: set[Any] = {any_kind(), TierSpec, *KINDS.values()}
    homes: dict[str, list[str]] = {}

    def note(key: str, home: str) -> None:
        if key not in _VAGUE:
            homes.setdefault(key, []).append(home)

    def visit(cls: Any, home: str, below: str) -> None:
        sections.add(cls)
        for key, declared in fields_of(cls).items():
            note(key, home)
            inner = declared.metadata["kind"].section
            if inner is spec_class:
                visit(TierSpec, "under tiers:", "tiers.N.")
            elif inner is not None:
                visit(inner, f"under {below}{key}:", f"{below}{key}.")

    visit(Policy, "at the top level", "")
    common = fields_of(TierSpec)
    for word, kind in KINDS.items():
        for key in fields_of(kind).keys() - common.keys():
            note(key, f"under tiers: of kind {word}")
    return sections, homes
