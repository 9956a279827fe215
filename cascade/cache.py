"""The result cache: LRU with a TTL, bounded by entries and by bytes.

Built on cachetools, which does not lock: the router holds one lock around lookup, store and
flights. Expiry is a comparison against a time the router has already read, because a TTLCache costs
twice as much and changes under a reader's feet.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import attrs
import cachetools
import numpy as np

if TYPE_CHECKING:
    from cascade.types import End

__all__ = ["Entry", "ResultCache", "entry"]

_OVERHEAD = 400  # bytes per entry for the record, the dict slots and the LRU links (measured)
_FOREVER = 2**63 - 1
PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


@attrs.define(eq=False)
class Entry:
    """One accepted answer: what a hit needs, and nothing that a caller could change."""

    value: Any
    confidence: float | None
    tier: int
    end: End
    size: int
    expires: int = _FOREVER
    copied: bool = False


def entry(value: Any, confidence: float | None, tier: int, end: End) -> Entry:
    """Make an entry no caller can change: plain as it is, arrays read-only, or a copy."""
    kind = type(value)
    if kind in PLAIN:
        return Entry(value, confidence, tier, end, sys.getsizeof(value))
    if kind is np.ndarray and not value.dtype.hasobject:
        frozen = value.copy()
        frozen.flags.writeable = False
        return Entry(frozen, confidence, tier, end, frozen.nbytes)
    if _is_plain(value):
        return Entry(value, confidence, tier, end, _deep_size(value))
    return Entry(copy.deepcopy(value), confidence, tier, end, _deep_size(value), copied=True)


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in PLAIN or isinstance(value, np.generic)


def _deep_size(value: Any, depth: int = 0) -> int:
    """Estimate the bytes that a value holds; containers down to a depth that ends every cycle."""
    size = sys.getsizeof(value)
    if isinstance(value, np.ndarray):
        return size + value.nbytes
    if depth < 8:
        if isinstance(value, dict):
            size += sum(
                _deep_size(k, depth + 1) + _deep_size(v, depth + 1) for k, v in value.items()
            )
        elif isinstance(value, (list, tuple, set, frozenset)):
            size += sum(_deep_size(item, depth + 1) for item in value)
    return size


class _Tracked(cachetools.LRUCache[Hashable, Entry]):
    """An LRU cache bounded by entries, as cachetools has it, that also adds up the bytes."""

    def __init__(self, entries: int) -> None:
        super().__init__(entries)
        self.bytes = 0

    def popitem(self) -> tuple[Hashable, Entry]:
        key, dropped = super().popitem()
        self.bytes -= dropped.size
        return key, dropped


class ResultCache:
    """Accepted answers by key; call it under the router's lock.

    >>> from cascade.types import Disposition, End, Reason
    >>> cache = ResultCache(entries=2, size=10_000)
    >>> end = End(Disposition.CACHED, Reason.CACHE, "small")
    >>> cache.put("question", entry("answer", 0.9, 0, end), now=0)
    >>> cache.get("question", now=1).value
    'answer'
    """

    __slots__ = ("_limit", "_lru", "_ttl")

    def __init__(self, entries: int, size: int, ttl: int | None = None) -> None:
        self._lru = _Tracked(entries)
        self._limit = size
        self._ttl = ttl

    def get(self, key: Hashable, now: int) -> Entry | None:
        """Return the live entry of ``key`` at ``now`` (ns), or None."""
        lru = self._lru
        if key not in lru:
            return None
        found = lru[key]
        if found.expires <= now:
            self._drop(key, found)
            return None
        return found

    def put(self, key: Hashable, item: Entry, now: int) -> None:
        """Store an entry, unless it is too large or would replace a dearer tier's answer."""
        lru = self._lru
        if key in lru:
            held = lru[key]
            if held.tier > item.tier and held.expires > now:
                return
            self._drop(key, held)
        if self._ttl is not None:
            item.expires = now + self._ttl
        size = item.size = item.size + _OVERHEAD + sys.getsizeof(key)
        if size > self._limit:
            return
        lru[key] = item
        lru.bytes += size
        while lru.bytes > self._limit:
            lru.popitem()

    def _drop(self, key: Hashable, item: Entry) -> None:
        del self._lru[key]
        self._lru.bytes -= item.size

    def clear(self) -> None:
        """Drop every entry."""
        self._lru.clear()
        self._lru.bytes = 0

    def __len__(self) -> int:
        """Return the number of entries, expired ones that nobody asked for included."""
        return len(self._lru)

    @property
    def size(self) -> int:
        """The tracked bytes of all entries."""
        return self._lru.bytes
