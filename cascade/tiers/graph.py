"""What can be read off an ONNX file without a library for it: how many nodes its graph has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["count_nodes"]

_GRAPH, _NODE = 7, 1  # field numbers of ModelProto.graph and GraphProto.node
_BYTES = 2  # the wire type of what has a length


def count_nodes(model: bytes) -> int:
    """Count the nodes of the main graph; 0 where the bytes are not a model.

    >>> count_nodes(b"")
    0
    """
    try:
        graph = next((part for field, part in _fields(memoryview(model)) if field == _GRAPH), None)
        return 0 if graph is None else sum(field == _NODE for field, _ in _fields(graph))
    except (IndexError, ValueError):
        return 0


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, bytes) of the fields that have a length, and skip the others."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _BYTES:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        else:
            at += {1: 8, 5: 4}[kind] if kind in {1, 5} else len(message)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
