"""Where things stand in a YAML file: places for messages, and edits that leave the rest alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from cascade.policy.reading import loader
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from yaml.nodes import Node

__all__ = ["Places"]

_BREAK = re.compile("\r\n?|\n")


class Places:
    r"""The nodes of a policy file that has already been found valid, by path.

    >>> text = "name: digits\ntiers:\n  - {name: small, model: small.onnx}  # ours\n"
    >>> places = Places(text, "policy.yaml")
    >>> print(places.issue(("tiers", 0, "model"), "no such file"))
    policy.yaml:3:26: tiers.0.model: no such file
    >>> print(places.put(("tiers", 0), "sha256", "9c", after="model"), end="")
    name: digits
    tiers:
      - {name: small, model: small.onnx, sha256: 9c}  # ours
    """

    def __init__(self, text: str, file: str) -> None:
        self._text = text.removeprefix("\ufeff")  # marks do not count it
        self._lead = text[: len(text) - len(self._text)]
        self._file = file
        self._root: Node | None = yaml.compose(self._text, loader())

    def issue(self, path: tuple[str | int, ...], message: str) -> Issue:
        """Make an issue at the node of ``path``, or at its nearest parent."""
        dotted = ".".join(map(str, path))
        for length in range(len(path), -1, -1):
            if (node := self._find(path[:length])) is not None:
                mark = node.start_mark
                return Issue(self._file, mark.line + 1, mark.column + 1, dotted, message)
        return Issue(self._file, None, None, dotted, message)

    def beside(self, key: str, issues: Iterable[Issue]) -> list[Issue]:
        """Give what is wrong with a file as a whole the place of the key that names the file."""
        return [one if one.line is not None else self.issue((key,), str(one)) for one in issues]

    def where(self, path: tuple[str | int, ...]) -> str | None:
        """Return ``FILE:LINE:COL`` of the value at ``path``; None where the file does not say.

        A word in place of a mapping (``outputs: logits``) stands for the keys below it.
        """
        node = self._find(path)
        if node is None and isinstance(parent := self._find(path[:-1]), ScalarNode):
            node = parent if path[-1] in {"kind", "max", "score"} else None
        if node is None:
            return None
        return f"{self._file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def mapping(self, path: tuple[str | int, ...]) -> list[str]:
        """Return the keys of the mapping at ``path``; none where it is something else."""
        return [key.value for key, _ in self._pairs(path)]

    def put(self, path: tuple[str | int, ...], key: str, value: str, *, after: str) -> str:
        """Return the text with ``key: value`` in the mapping at ``path``; all else stays as it is.

        An existing value is replaced; a new key goes after the key ``after``.
        """
        text, old = self._text, self._find((*path, key))
        if old is not None:
            return self._with(old.start_mark.index, _end(old), value)
        parent, neighbour = self._find(path), self._find((*path, after))
        if not isinstance(parent, MappingNode) or neighbour is None:
            raise KeyError(after)
        end = _end(neighbour)
        if parent.flow_style:
            return self._with(end, end, f", {key}: {value}")
        found = _BREAK.search(text, end) or _BREAK.search(text)
        newline = "\n" if found is None else found[0]
        stop = len(text) if found is None or found.start() < end else found.start()
        indent = " " * parent.start_mark.column
        return self._with(stop, stop, f"{newline}{indent}{key}: {value}")

    def swap(self, path: tuple[str | int, ...], old: str, key: str, value: str) -> str:
        """Return the text with ``key: value`` where the key ``old`` of this mapping stands."""
        pairs = self._pairs(path)
        name, held = next(pair for pair in pairs if pair[0].value == old)
        return self._with(name.start_mark.index, _end(held), f"{key}: {value}")

    def drop(self, path: tuple[str | int, ...], key: str) -> str:
        """Return the text without a key of the mapping at ``path``, which may be left empty."""
        pairs = self._pairs(path)
        at = next(i for i, pair in enumerate(pairs) if pair[0].value == key)
        starts = [name.start_mark.index for name, _ in pairs]
        ends = [_end(value) for _, value in pairs]
        parent = self._find(path)
        if len(pairs) == 1 and parent is not None:
            return self._with(parent.start_mark.index, _end(parent), "{}")
        if not (isinstance(parent, MappingNode) and parent.flow_style):  # whole lines
            found = _BREAK.search(self._text, ends[at])
            start = starts[at] - pairs[at][0].start_mark.column
            return self._with(start, len(self._text) if found is None else found.end(), "")
        if at < len(pairs) - 1:
            return self._with(starts[at], starts[at + 1], "")
        return self._with(ends[at - 1], ends[at], "")

    def _with(self, start: int, end: int, new: str) -> str:
        return self._lead + self._text[:start] + new + self._text[end:]

    def _pairs(self, path: tuple[str | int, ...]) -> list[tuple[Any, Any]]:
        node = self._find(path)
        return node.value if isinstance(node, MappingNode) else []

    def _find(self, path: tuple[str | int, ...]) -> Node | None:
        node = self._root
        for part in path:
            node = _child(node, part)
        return node


def _end(node: Any) -> int:
    """Return where a node ends; the mark of one in block style is where the next one begins."""
    if getattr(node, "flow_style", True) or not node.value:
        index: int = node.end_mark.index
        return index
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _child(node: Node | None, part: str | int) -> Node | None:
    children: dict[str, Node] = {}
    if isinstance(node, SequenceNode):
        children = {str(index): child for index, child in enumerate(node.value)}
    elif isinstance(node, MappingNode):
        children = {key.value: child for key, child in node.value if isinstance(key, ScalarNode)}
    return children.get(str(part))
