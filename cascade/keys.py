"""Cache keys: two requests share one only when they ask the same question.

Small inputs are their own key, compared byte by byte; large ones are digested with a seed of this
process. The models, versions and settings are not in the key: a cache serves one answer digest, and
a router whose answer digest changes gets an empty one.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cascade.protocols import InputSpec

__all__ = ["RECIPE", "KeyOf", "key_maker"]

RECIPE = 1
"""The version of the key recipe; part of the answer digest."""

KeyOf: TypeAlias = "Callable[[Any], Hashable | None]"
"""A cast row → its key; None: this row cannot be keyed, and passes the cache by."""

_EXACT = 4096  # bytes; above, hashing beats keeping and comparing


def key_maker(specs: Sequence[InputSpec], digest: str = "auto") -> KeyOf:
    r"""Compile the key of rows that fit ``specs``; ``digest`` as in the policy's cache settings.

    >>> from cascade.protocols import InputSpec
    >>> key = key_maker([InputSpec("x", "float32", (1,))])
    >>> key(np.zeros(1, dtype="float32"))
    b'\x00\x00\x00\x00'
    >>> anything = key_maker([])
    >>> len({anything(x) for x in (1, 1.0, True, "1", b"1", -0.0, 0.0)})
    7
    """
    hashed = _digester(digest)
    exact = 0 if digest == "blake2b" else _EXACT
    if len(specs) == 1 and specs[0].dtype == "text":
        return _text_key(hashed, exact)
    if len(specs) == 1 and None not in specs[0].shape:
        return _array_key(specs[0], hashed, exact)
    return _any_key(hashed, exact)


def _digester(digest: str) -> Callable[[Any], bytes]:
    secret = os.urandom(16)
    if digest == "blake2b":
        return lambda data: hashlib.blake2b(data, digest_size=16, key=secret).digest()
    import xxhash

    seed = int.from_bytes(secret[:8], "little")
    return lambda data: xxhash.xxh3_128_digest(data, seed)


def _text_key(hashed: Callable[[Any], bytes], exact: int) -> KeyOf:
    def key(text: str) -> Hashable:
        if len(text) <= exact:
            return text
        return hashed(text.encode("utf-8", "surrogatepass"))

    return key


def _array_key(spec: InputSpec, hashed: Callable[[Any], bytes], exact: int) -> KeyOf:
    size = np.dtype(spec.dtype).itemsize
    for axis in spec.shape:
        size *= axis or 0
    if size <= exact:
        return np.ndarray.tobytes
    # ascontiguousarray costs nothing on the rows that the caster made
    return lambda row: hashed(np.ascontiguousarray(row))


def _any_key(hashed: Callable[[Any], bytes], exact: int) -> KeyOf:
    def key(row: Any) -> Hashable | None:
        if type(row) is str and len(row) <= exact:
            return row
        parts: list[bytes] = []
        try:
            if not _flatten(row, parts):
                return None
        except Exception:  # noqa: BLE001  a mapping, or a key in it, runs its own code here
            return None
        data = b"".join(parts)
        return data if len(data) <= exact else (hashed(data),)

    return key


def _flatten(x: Any, parts: list[bytes], depth: int = 0) -> bool:  # noqa: PLR0911  a kind each
    """Append an injective encoding: tag, length, content. False: x has no stable content."""
    if depth > 32:
        return False
    plain = _plain(x)
    if plain is not None:
        parts.append(struct.pack("<cQ", plain[0], len(plain[1])) + plain[1])
        return True
    if type(x) in (np.ndarray, np.memmap) or isinstance(x, np.generic):
        array = np.asarray(x)
        if array.dtype.hasobject or array.dtype.kind == "V":  # fields are not in the bytes
            return False
        tag = b"a" if isinstance(x, np.ndarray) else b"g"
        head, body = f"{array.dtype.str}{array.shape}".encode(), array.tobytes()
        parts.append(struct.pack("<cQQ", tag, len(head), len(body)) + head + body)
        return True
    if isinstance(x, Mapping):
        parts.append(struct.pack("<cQ", b"m", len(x)))
        return all(
            _flatten(k, parts, depth + 1) and _flatten(x[k], parts, depth + 1)
            for k in sorted(x, key=repr)
        )
    if type(x) in (list, tuple):
        parts.append(struct.pack("<cQ", b"l" if type(x) is list else b"t", len(x)))
        return all(_flatten(item, parts, depth + 1) for item in x)
    return False


def _plain(x: Any) -> tuple[bytes, bytes] | None:
    kind = type(x)
    if kind is str:
        return b"s", x.encode("utf-8", "surrogatepass")
    if kind is float:
        return b"f", struct.pack("<d", x)
    if kind is bool or x is None:
        return b"c", repr(x).encode()
    if kind is int:
        return b"i", x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
    return (b"b", x) if kind is bytes else None
