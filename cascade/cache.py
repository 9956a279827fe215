"""The result cache: LRU with a TTL, bounded by entries and by bytes.

One ordered dict holds the entries in the order of their use: a lookup and a store are one call in C
each. It is not locked here: the router holds one lock around lookup, store and flights, and looks
without it first, since a call in C is one step. Where the interpreter has no global lock to make it
one, the dict has a lock of its own. Expiry is a comparison against a time the router has already
read.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections import OrderedDict
from sys import getsizeof
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.errors import TierOutputError
from cascade.holdings import holds_nan, survey

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cascade.types import Finish

__all__ = ["Entry", "FairCache", "ResultCache", "entry"]

_OVERHEAD = 400  # bytes per entry for the record, its slots and links, under eviction (measured)
_FOREVER = 2**63 - 1
_MOMENT = 10_000_000  # ns within which a second hit does not change the order
PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
# What getsizeof says of bytes beside their length, and of whole numbers up to a limit: the call is
# a twentieth of what a request costs.
BYTES, INT, DIGIT = getsizeof(b""), getsizeof(1), 1 << (sys.int_info.bits_per_digit - 1)


@attrs.define(eq=False)
class Entry:
    """One accepted answer: what a hit needs, and nothing that a caller could change."""

    value: Any
    confidence: float | None
    finish: Finish  # how a request ends that finds this
    size: int
    expires: int = _FOREVER
    fresh: int = 0  # until when it may be served without being moved to the end of the queue

    def out(self) -> Any:
        """Return the value for a caller."""
        return self.value


class ArrayEntry(Entry):
    """An entry whose value is an array over bytes, which cannot be made writable again."""

    def out(self) -> Any:
        """Return a view of one's own: its shape and type can be assigned to."""
        return self.value.view()


class CopiedEntry(Entry):
    """An entry whose value a caller could change, and so gets a copy of."""

    def out(self) -> Any:
        """Return a copy of the value.

        Raises:
            TierOutputError: the value's own code, which has copied it before, fails to.
        """
        try:
            return copy.deepcopy(self.value)
        except Exception as error:
            tier = self.finish.tier
            msg = f"tier {tier!r}: its answer from the cache cannot be copied"
            raise TierOutputError(msg, tier=tier) from error


def entry(value: Any, confidence: float | None, finish: Finish) -> Entry | None:
    """Make an entry no caller can change: plain as it is, arrays read-only, or a copy.

    None where there can be none: what cannot be copied, holds a NaN, or more than can be counted.
    """
    kind = type(value)
    if kind in PLAIN:
        return Entry(value, confidence, finish, getsizeof(value))
    if kind is np.ndarray and not value.dtype.hasobject:
        if holds_nan(value):
            return None
        data = value.tobytes()
        frozen: Any = np.ndarray(value.shape, value.dtype, data)
        return ArrayEntry(frozen, confidence, finish, getsizeof(frozen) + getsizeof(data))
    made = Entry
    try:
        found = survey(value)
        if found is not None and not found[1]:
            value, made = copy.deepcopy(value), CopiedEntry
            found = survey(value)  # it need not hold what the other did
    except Exception:  # noqa: BLE001  the value's own code runs here; the answer stands without it
        return None
    return None if found is None else made(value, confidence, finish, found[0])


class Guarded(OrderedDict[Any, Any]):
    """An ordered dict for an interpreter without a global lock: each call is one step."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # the base may call what is here
        super().__init__()

    def get(self, key: Any, default: Any = None) -> Any:
        """Look without the router's lock, while another thread may hold that and write."""
        with self.lock:
            return super().get(key, default)

    def __contains__(self, key: Any) -> bool:
        with self.lock:
            return super().__contains__(key)

    def __setitem__(self, key: Any, item: Any) -> None:
        with self.lock:
            super().__setitem__(key, item)

    def move_to_end(self, key: Any, last: bool = True) -> None:  # noqa: FBT001, FBT002  the base's
        """Make it the last."""
        with self.lock:
            super().move_to_end(key, last)

    def pop(self, key: Any) -> Any:  # type: ignore[override]  # of one that is there
        """Take one out."""
        with self.lock:
            return super().pop(key)

    def popitem(self, last: bool = True) -> Any:  # noqa: FBT001, FBT002  the base's
        """Take out the last, or the first."""
        with self.lock:
            return super().popitem(last)

    def clear(self) -> None:
        """Take out all."""
        with self.lock:
            super().clear()


def ordered() -> OrderedDict[Any, Any]:
    """Return what holds the entries: a dict as it is where the interpreter has a global lock."""
    has_lock = getattr(sys, "_is_gil_enabled", None)
    return OrderedDict() if has_lock is None or has_lock() else Guarded()


class ResultCache:
    """Accepted answers by key; call it under the router's lock.

    ``entries`` is for a look without a touch, and without the lock: an entry that is still
    ``fresh`` can be served as it is. They stand in the order of their use.

    >>> from cascade.types import Disposition, Finish, Reason
    >>> cache = ResultCache(entries=2, size=10_000)
    >>> hit = Finish(Disposition.CACHED, Reason.CACHE, "small", rank=0)
    >>> cache.put("question", entry("answer", 0.9, hit), now=0)
    >>> cache.get("question", now=1).value
    'answer'
    """

    __slots__ = ("_limit", "_most", "_ttl", "entries", "size")

    def __init__(self, entries: int, size: int, ttl: int | None = None) -> None:
        self.entries: OrderedDict[Hashable, Entry] = ordered()
        self.size = 0  # the tracked bytes of all entries
        self._most = entries
        self._limit = size
        self._ttl = _FOREVER if ttl is None else ttl

    def get(self, key: Hashable, now: int) -> Entry | None:
        """Return the live entry of ``key`` at ``now`` (ns), or None."""
        found = self.entries.get(key)
        return None if found is None else self.use(key, found, now)

    def use(self, key: Hashable, found: Entry, now: int) -> Entry | None:
        """Return an entry that was looked up, as the last one used; None when it has expired."""
        if found.expires <= now:
            self._drop(key)
            return None
        found.fresh = min(found.expires, now + _MOMENT)
        self.entries.move_to_end(key)
        return found

    def put(self, key: Hashable, item: Entry, now: int) -> None:
        """Store an entry, unless it is a NaN, too large, or would replace a dearer tier's."""
        if type(item.value) is float and item.value != item.value:
            return
        entries = self.entries
        held = entries.get(key)
        if held is not None:
            if held.finish.rank > item.finish.rank and held.expires > now:
                return
            self._drop(key)
        item.expires = now + self._ttl
        own = len(key) + BYTES if type(key) is bytes else getsizeof(key)
        size = item.size + _OVERHEAD + own
        if type(key) is tuple:  # a tenant's
            size += sum(map(getsizeof, key))
        if size > self._limit:
            return
        while self.size + size > self._limit or len(entries) >= self._most:
            self._evict()
        item.size = size
        entries[key] = item
        self.size += size

    def _evict(self) -> None:
        """Drop what was used longest ago."""
        self.size -= self.entries.popitem(last=False)[1].size

    def _drop(self, key: Hashable) -> None:
        self.size -= self.entries.pop(key).size

    def clear(self) -> None:
        """Drop every entry."""
        self.entries.clear()
        self.size = 0

    def __len__(self) -> int:
        """Return the number of entries, expired ones that nobody asked for included."""
        return len(self.entries)


class FairCache(ResultCache):
    """A cache of which one tenant fills at most a share, and so cannot drive out the others.

    A tenant's entries are those whose key is a pair with its name; entries of no tenant have no
    such limit.

    >>> from cascade.types import Disposition, Finish, Reason
    >>> cache = FairCache(entries=4, size=10_000, share=0.5)
    >>> hit = Finish(Disposition.CACHED, Reason.CACHE, "small", rank=0)
    >>> for key in [("b", 0), ("a", 1), ("a", 2), ("a", 3)]:
    ...     cache.put(key, entry("answer", 0.9, hit), now=0)
    >>> list(cache.entries)
    [('b', 0), ('a', 2), ('a', 3)]
    """

    __slots__ = ("_most_of_one", "_owned", "_share")

    def __init__(self, entries: int, size: int, ttl: int | None = None, share: float = 1.0) -> None:
        super().__init__(entries, size, ttl)
        self._most_of_one, self._share = max(1, int(entries * share)), size * share
        self._owned: dict[Hashable, _Own] = {}

    def use(self, key: Hashable, found: Entry, now: int) -> Entry | None:
        """Return an entry that was looked up, as the last one used; None when it has expired."""
        live = super().use(key, found, now)
        if live is not None and (tenant := _tenant(key)) is not None:
            self._owned[tenant].keys.move_to_end(key)
        return live

    def put(self, key: Hashable, item: Entry, now: int) -> None:
        """Store an entry, and drop the oldest of its tenant's that are beyond the share."""
        super().put(key, item, now)
        tenant = _tenant(key)
        if tenant is None or self.entries.get(key) is not item:
            return
        own = self._owned.setdefault(tenant, _Own())
        own.keys[key] = None
        own.size += item.size
        while own.size > self._share or len(own.keys) > self._most_of_one:
            self._drop(next(iter(own.keys)))

    def _evict(self) -> None:
        self._drop(next(iter(self.entries)))

    def _drop(self, key: Hashable) -> None:
        size = self.entries[key].size
        super()._drop(key)
        tenant = _tenant(key)
        if tenant is not None:
            own = self._owned[tenant]
            del own.keys[key]
            own.size -= size
            if not own.keys:
                del self._owned[tenant]

    def clear(self) -> None:
        """Drop every entry."""
        super().clear()
        self._owned.clear()


@attrs.define(eq=False)
class _Own:
    """One tenant's entries, in the order of their use."""

    keys: OrderedDict[Hashable, None] = attrs.field(factory=OrderedDict)
    size: int = 0


def _tenant(key: Hashable) -> Hashable:
    return key[0] if type(key) is tuple and len(key) == 2 else None
