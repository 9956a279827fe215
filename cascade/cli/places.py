"""Where things stand in a YAML file: places for messages, and edits that leave the rest alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
        node = self._find(path)
        return [key.value for key, _ in node.value] if isinstance(node, MappingNode) else []

    def put(self, path: tuple[str | int, ...], key: str, value: str, *, after: str) -> str:
        """Return the text with ``key: value`` in the mapping at ``path``; all else stays as it is.

        An existing value is replaced; a new key goes after the key ``after``.
        """
        return self._lead + self._put(path, key, value, after)

    def _put(self, path: tuple[str | int, ...], key: str, value: str, after: str) -> str:
        text = self._text
        if (node := self._find((*path, key))) is not None:
            return text[: node.start_mark.index] + value + text[node.end_mark.index :]
        parent, neighbour = self._find(path), self._find((*path, after))
        if not isinstance(parent, MappingNode) or neighbour is None:
            raise KeyError(after)
        end = neighbour.end_mark.index
        if parent.flow_style:
            return f"{text[:end]}, {key}: {value}{text[end:]}"
        found = _BREAK.search(text, end) or _BREAK.search(text)
        newline = "\n" if found is None else found[0]
        stop = len(text) if found is None or found.start() < end else found.start()
        indent = " " * parent.start_mark.column
        return f"{text[:stop]}{newline}{indent}{key}: {value}{text[stop:]}"

    def _find(self, path: tuple[str | int, ...]) -> Node | None:
        node = self._root
        for part in path:
            node = _child(node, part)
        return node


def _child(node: Node | None, part: str | int) -> Node | None:
    children: dict[str, Node] = {}
    if isinstance(node, SequenceNode):
        children = {str(index): child for index, child in enumerate(node.value)}
    elif isinstance(node, MappingNode):
        children = {key.value: child for key, child in node.value if isinstance(key, ScalarNode)}
    return children.get(str(part))
