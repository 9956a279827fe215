"""What can be read off an ONNX file without a library for it: its nodes, the files it refers to.

The walk takes a message for what ONNX Runtime takes it for, or for more: a field that occurs twice
is read twice, and what stands inside an unknown group is read as if it stood beside it. Where the
bytes end too soon, or a number does not end, the walk ends: ONNX Runtime refuses such a model. Each
byte is looked at once, so that a file made to be slow is as fast as any other of its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["count_nodes", "external_locations", "made_by"]

_GRAPH, _NODE = 7, 1  # field numbers of ModelProto.graph and GraphProto.node
_OUTPUT, _OPERATOR = 2, 4  # of NodeProto.output and NodeProto.op_type
_LONGEST = 10  # bytes of a number
_LEAST = 10  # bytes of a message in which a location can stand
_DEEPEST = 1_000  # messages within messages; ONNX Runtime takes a hundred
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


def made_by(model: bytes, output: str) -> str | None:
    """Name the operator that makes an output of the main graph; None: there is none.

    >>> made_by(b"", "p")
    """
    name, found = output.encode(), None
    try:
        for field, graph in _fields(memoryview(model)):
            for inner, node in _fields(graph) if field == _GRAPH else ():
                parts = list(_fields(node)) if inner == _NODE else []
                if any(field == _OUTPUT and part == name for field, part in parts):
                    found = next((part for field, part in parts if field == _OPERATOR), None)
    except (IndexError, ValueError):
        return None
    return None if found is None else bytes(found).decode("utf-8", "replace")


def external_locations(model: bytes) -> list[bytes]:
    """Return the names of the files that hold a model's tensors, as the model says them.

    Raises:
        ValueError: messages are nested deeper than in any model that could be loaded.

    >>> external_locations(b"")
    []
    """
    if b"location" not in model:  # which most models say nowhere
        return []
    found: set[bytes] = set()
    open_ = [("model", _fields(memoryview(model)))]
    while open_:  # no recursion: Python's own ends first
        kind, fields = open_[-1]
        inside, part = _next(kind, fields)
        if part is None:
            open_.pop()
        elif inside == "entry":
            found.update(map(bytes, _location(part)))
        elif len(open_) == _DEEPEST:
            raise ValueError("messages are nested too deep for a model")
        else:
            open_.append((inside, _fields(part)))
    return sorted(found)


def _next(kind: str, fields: Iterator[tuple[int, memoryview]]) -> tuple[str, memoryview | None]:
    """Return the next field of a message that can hold a tensor, and what it is."""
    known = _INSIDE[kind]
    try:
        for field, part in fields:
            inside = known.get(field)
            if inside is not None and len(part) >= _LEAST:
                return inside, part
    except (IndexError, ValueError):
        pass
    return "", None


def _location(entry: memoryview) -> list[memoryview]:
    """Return the value of an entry of TensorProto.external_data if its key is ``location``."""
    try:
        fields = list(_fields(entry))
    except (IndexError, ValueError):
        return []
    if not any(field == 1 and bytes(part) == b"location" for field, part in fields):
        return []
    return [part for field, part in fields if field == 2]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, bytes) of the fields that have a length, and skip the others."""
    at, end = 0, len(message)
    while at < end:
        key, at = message[at], at + 1
        if key > 127:
            key, at = _varint(message, at - 1)
        kind = key & 7
        if kind == _BYTES:
            size, at = message[at], at + 1
            if size > 127:
                size, at = _varint(message, at - 1)
            yield (key & 0xFFFFFFFF) >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        else:
            at += _PAYLOAD.get(kind, 0)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST):
        byte = message[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number that does not end")
