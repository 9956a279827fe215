"""What can be read off an ONNX file without a library for it: its nodes, the files it refers to.

The walk takes a message for what ONNX Runtime takes it for, or for more: a field that occurs twice
is read twice, and what stands inside an unknown group is read as if it stood beside it. Where the
bytes end too soon the walk ends, and ONNX Runtime refuses the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["count_nodes", "external_locations"]

_GRAPH, _NODE = 7, 1  # field numbers of ModelProto.graph and GraphProto.node
_BYTES = 2  # the wire type of what has a length
_PAYLOAD = {1: 8, 5: 4}  # bytes by wire type; groups (3, 4) have none of their own

# Message → the fields of it that can hold a tensor, by number, and what they are.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


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


def external_locations(model: bytes) -> list[bytes]:
    """Return the names of the files that hold a model's tensors, as the model says them.

    >>> external_locations(b"")
    []
    """
    found = set()
    left = [("model", memoryview(model))]
    while left:  # no recursion: graphs can be nested as deep as one likes
        kind, message = left.pop()
        try:
            for field, part in _fields(message):
                inside = _INSIDE[kind].get(field)
                if inside == "entry":
                    found.update(_location(part))
                elif inside is not None:
                    left.append((inside, part))
        except IndexError:
            continue
    return sorted(found)


def _location(entry: memoryview) -> list[bytes]:
    """Return the value of an entry of TensorProto.external_data if its key is ``location``."""
    fields = [(field, bytes(part)) for field, part in _fields(entry)]
    if (1, b"location") not in fields:
        return []
    return [part for field, part in fields if field == 2]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, bytes) of the fields that have a length, and skip the others."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _BYTES:
            size, at = _varint(message, at)
            yield (key & 0xFFFFFFFF) >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        else:
            at += _PAYLOAD.get(kind, 0)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
