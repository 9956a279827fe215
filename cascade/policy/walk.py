"""The walker: one plain tree against one settings class, every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

__all__ = ["Problem", "fields_of", "nearest", "shown", "walk"]

Problem: TypeAlias = tuple[tuple[Any, ...], str]
"""Path and message; a path that ends in KEY points at the key, not the value."""

KEY = "\0key"
_LONGEST = 100  # letters of a word that can be a slip of another
_HINTS = 100  # problems that come with a hint: each costs a comparison with all known words
_PROSE = ("text", "a mapping")


def fields_of(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    """Return a settings class's declared fields by name."""
    return {f.name: f for f in attrs.fields(cls) if "kind" in f.metadata}


def nearest(name: str, known: Any) -> str:
    """Return the nearest known spelling as a hint, or the list of what is known."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, 1) if len(str(name)) <= _LONGEST else []
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(names)}"


def walk(cls: Any, tree: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Return an instance of ``cls``, or None where the tree holds a problem, which is noted."""
    if not isinstance(cls, type):  # a choice by the tree's own words, such as a tier's kind
        cls = cls(tree, path, problems)
        if cls is None:
            return None
    shorthand = getattr(cls, "SHORTHAND", None)
    if isinstance(tree, (str, int)) and shorthand is not None:
        tree = {shorthand: tree}
    if not isinstance(tree, Mapping):
        problems.append((path, f"expected a mapping, got {shown(tree)}"))
        return None
    before = len(problems)
    values = _values(cls, tree, path, problems)
    return cls(**values) if len(problems) == before else None


def _values(
    cls: Any, tree: Mapping[Any, Any], path: tuple[Any, ...], problems: list[Problem]
) -> dict[str, Any]:
    known = fields_of(cls)
    tags = getattr(cls, "TAGS", ())
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key in tags:
            continue
        if key not in known:
            hint = f"; {nearest(key, [*tags, *known])}" if len(problems) < _HINTS else ""
            problems.append(((*path, key, KEY), f"unknown key{hint}"))
        else:
            values[key] = _read(known[key].metadata["kind"], value, (*path, key), problems)
    for name, declared in known.items():
        if declared.default is attrs.NOTHING and name not in tree:
            problems.append(
                ((*path, name), f"missing; expected {declared.metadata['kind'].expected}")
            )
    return values


def _read(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    if kind.section is not None and kind.many:
        if not isinstance(value, (list, tuple)):
            problems.append((path, f"expected {kind.expected}, got {shown(value)}"))
            return None
        return tuple(walk(kind.section, v, (*path, i), problems) for i, v in enumerate(value))
    if kind.section is not None:
        return walk(kind.section, value, path, problems)
    if kind.item is not None and isinstance(value, (list, tuple)):
        item = kind.item
        return tuple([_parsed(item, v, (*path, i), problems) for i, v in enumerate(value)])
    return _parsed(kind, value, path, problems)


def _parsed(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    try:
        return kind.parse(value)
    except (ValueError, TypeError, OverflowError):
        hint = ""
        options = kind.schema.get("enum")
        if options and isinstance(value, str) and len(value) <= _LONGEST:
            close = difflib.get_close_matches(value, options, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
        problems.append((path, f"expected {kind.expected}, got {shown(value)}{hint}"))
        return None


def shown(value: Any) -> str:
    """Return a value as a message may show it: not at length.

    >>> shown([1, 2]), shown("x")
    ('a list', "'x'")
    """
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)):
        return "a list"
    if not isinstance(value, str) and isinstance(value, Mapping):
        return "a mapping"
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= 40 else text[:37] + "..."


Section: TypeAlias = Callable[[Any, tuple[Any, ...], list[Problem]], Any]
