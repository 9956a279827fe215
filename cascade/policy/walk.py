"""The walker: one plain tree against one settings class, every problem at once."""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from cascade.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cascade.types import Issue

__all__ = [
    "KEY", "SAID", "TOLD", "UNREAD", "Draft", "Odd", "Problem", "Unread", "close", "dotted",
    "fields_of", "hint", "known", "nearest", "read", "refusal", "shown", "slips", "take", "walk",
]  # fmt: skip

Problem: TypeAlias = tuple[tuple[Any, ...], str]
"""Path and message; a path that ends in KEY points at the key, not the value."""

KEY = "\0key"
SAID = ""
"""The message of a problem that the reader of the file has noted already."""

_CLOSE = 0.66  # two thirds of the letters stand in both, in the same order
_LONGEST = 100  # letters of a word that can be a slip of another
_HINTS = 50  # problems that come with a hint: each costs a comparison with all known words
TOLD = 1_000  # problems of one list or mapping
_SHOWN = 200  # letters of a path; a file can hold thousands of problems below one enormous key


class Unread(Exception):
    """What is asked for could not be read, which has been said."""


class Odd(ValueError):
    """Says what a value is that is not of its kind, where more can be said than its type."""


class _Unread:
    def __repr__(self) -> str:
        return "UNREAD"


UNREAD: Any = _Unread()
"""Stands for a value that could not be read, which has been said."""


class Draft:
    """What could be read of a section that holds problems; asking for the rest raises Unread.

    >>> Draft({"low": 1}).low
    1
    """

    def __init__(self, values: Mapping[str, Any], cls: Any = None, tree: Any = ()) -> None:
        self.__dict__.update(values)
        self._cls, self._tree = cls, tree

    def __getattr__(self, name: str) -> Any:
        """Return the default of what the tree, if it is one of ``cls``, does not name."""
        if self._cls is not None and name not in self._tree:
            defaults = _defaults(self._cls)
            if name in defaults:
                return defaults[name]
        raise Unread(name)


def known(section: Any, name: str) -> Any:
    """Return what could be read of a section or its draft, or None."""
    try:
        return getattr(section, name)
    except Unread:
        return None


def fields_of(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    """Return a settings class's declared fields by name."""
    return _fields_of(cls)


@functools.cache
def _fields_of(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    return {f.name: f for f in attrs.fields(cls) if "kind" in f.metadata}


def close(name: Any, known: Iterable[Any]) -> str | None:
    """Return the known word that this is most likely a slip of; case is no great difference.

    >>> close("ONXX", ["onnx", "external"])
    'onnx'
    """
    word = str(name)
    if len(word) > _LONGEST:
        return None
    words = {str(k).casefold(): str(k) for k in known}
    found = difflib.get_close_matches(word.casefold(), words, 1, _CLOSE)
    return words[found[0]] if found else None


def nearest(name: Any, known: Iterable[Any]) -> str:
    """Return the nearest known spelling as a hint, or the list of what is known."""
    names = [str(k) for k in known]
    found = close(name, names)
    return f"did you mean {found!r}?" if found else f"expected one of {', '.join(names)}"


def hint(name: str, known: Any, problems: list[Problem]) -> str:
    """Return ``nearest``, to be put behind a problem, while there are not many."""
    return f"; {nearest(name, known)}" if len(problems) < _HINTS else ""


def walk(cls: Any, tree: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Return an instance of ``cls``; where the tree holds a problem, which is noted, a Draft."""
    before = len(problems)
    if not isinstance(cls, type):  # a choice by the tree's own words, such as a tier's kind
        cls = cls(tree, path, problems)
    if isinstance(tree, cls):
        return tree  # made in Python
    bare = None if isinstance(tree, Mapping) else _bare(cls)
    if bare is not None:
        name, kind = bare
        if take(kind, tree, path, problems) is UNREAD:
            return Draft({})
        tree = {name: tree}
    tree = _meant(cls, tree, path, problems)
    given = _given(cls, tree, path, problems)
    if len(problems) == before:
        return cls(**given)
    tags = {tag: getattr(cls, tag) for tag in getattr(cls, "TAGS", ()) if hasattr(cls, tag)}
    return Draft(tags | given, *((cls, tree) if isinstance(tree, Mapping) else ()))


def read(cls: Any, tree: Any, path: tuple[Any, ...], problems: list[Problem]) -> dict[str, Any]:
    """Return the values of the fields of ``cls``, those that a tree gives and the defaults.

    What holds a problem is left out, so that the rest can be held against each other.
    """
    tree = _meant(cls, tree, path, problems)
    given = _given(cls, tree, path, problems)
    if not isinstance(tree, Mapping):
        return given
    return {k: v for k, v in _defaults(cls).items() if k not in tree} | given


@functools.cache
def _bare(cls: Any) -> tuple[str, Any] | None:
    """Return the field that a word or number in place of a mapping stands for, and its kind."""
    name = getattr(cls, "SHORTHAND", None)
    if name is None:
        return None
    fields = fields_of(cls)
    kind = fields[name].metadata["kind"]
    both = f"{kind.expected}, or {{{', '.join(fields)}}}"
    return name, attrs.evolve(kind, expected=both)


@functools.cache
def _defaults(cls: Any) -> dict[str, Any]:
    made = {}
    for name, declared in fields_of(cls).items():
        value: Any = declared.default
        if value is not attrs.NOTHING:
            made[name] = value.factory() if hasattr(value, "factory") else value
    return made


@functools.cache
def _needed(cls: Any) -> tuple[str, ...]:
    return tuple(k for k, f in fields_of(cls).items() if f.default is attrs.NOTHING)


def _meant(cls: Any, tree: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Note the unknown keys of a tree, and return it without them.

    What such a key is a slip of is not missing but cannot be read.
    """
    if not isinstance(tree, Mapping):
        return tree
    names = dict.fromkeys([*getattr(cls, "TAGS", ()), *fields_of(cls)])
    meant = {key: value for key, value in tree.items() if key in names}
    odd = len(tree) - len(meant)
    for key in itertools.islice((key for key in tree if key not in names), TOLD):
        said, slip = "unknown key", None
        if len(problems) < _HINTS:
            slip, more = _placed(cls, key, names)
            said += f"; {more}"
        problems.append(((*path, key, KEY), said))
        if slip is not None:
            meant.setdefault(slip, UNREAD)
    if odd > TOLD:
        problems.append((path, f"{odd - TOLD} more unknown keys"))
    return meant


def _placed(cls: Any, key: Any, names: Iterable[str]) -> tuple[str | None, str]:
    """Return what an unknown key is a slip of, if it is one, and the hint to put behind it."""
    from cascade.policy.elsewhere import elsewhere  # of all settings, which are read by this

    home = elsewhere(cls, key)
    return (None, home) if home else (close(key, names), nearest(key, names))


def slips(name: str, tree: Mapping[Any, Any], known: Any, problems: list[Problem]) -> bool:
    """Whether one of a tree's first unknown keys is a slip of ``name``, while hints are given."""
    if len(problems) >= _HINTS:
        return False
    unknown = itertools.islice((key for key in tree if key not in known), _HINTS)
    return any(close(key, [name]) is not None for key in unknown)


def _given(cls: Any, tree: Any, path: tuple[Any, ...], problems: list[Problem]) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        problems.append(
            (path, SAID if tree is UNREAD else f"expected a mapping, got {shown(tree)}")
        )
        return {}
    fields = fields_of(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key in fields:
            taken = take(fields[key].metadata["kind"], value, (*path, key), problems)
            if taken is not UNREAD:
                values[key] = taken
    for name in _needed(cls):
        if name not in tree:
            expected = fields[name].metadata["kind"].expected
            problems.append(((*path, name), f"missing; expected {expected}"))
    return values


def take(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Return what a value is read as: UNREAD or a Draft where it holds a problem."""
    if kind.many:
        return _many(kind, value, path, problems)
    if kind.section is not None:
        return walk(kind.section, value, path, problems)
    if value and kind.item is not None and isinstance(value, (list, tuple)):
        return _each(functools.partial(_parsed, kind.item), value, path, problems)
    if value and kind.named is not None and isinstance(value, Mapping):
        before = len(problems)
        _each(functools.partial(_named, kind.named), value, path, problems)
        if len(problems) > before:
            return UNREAD
    return _parsed(kind, value, path, problems)


def _many(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Read a list of sections, and of no more of them than there may be."""
    if not isinstance(value, (list, tuple)):
        return _wrong(kind, value, path, problems)
    made = _each(functools.partial(walk, kind.section), value[: kind.many], path, problems)
    if len(value) <= kind.many:
        return made
    problems.append((path, f"expected at most {kind.many} of them, got {len(value)}"))
    return UNREAD


def _each(
    one: Callable[..., Any], values: Any, path: tuple[Any, ...], problems: list[Problem]
) -> Any:
    """Read the values of a list or mapping, as long as it has not more problems than are read."""
    made: list[Any] = []
    enough = len(problems) + TOLD
    steps = values.items() if isinstance(values, Mapping) else enumerate(values)
    for step, value in steps:
        if len(problems) >= enough:
            more = len(values) - len(made)
            said = f"{more} more values; there are {TOLD} problems before them already"
            problems.append((path, said))
            return UNREAD
        made.append(one(value, (*path, step), problems))
    return tuple(made)


def _named(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    """Read a value whose name may be anything, in Python, where it has to be text."""
    if isinstance(path[-1], str):
        return _parsed(kind, value, path, problems)
    problems.append(((*path, KEY), f"expected a name, got {shown(path[-1])}"))
    return UNREAD


def _parsed(kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem]) -> Any:
    try:
        return kind.parse(value)
    except Odd as odd:
        return _wrong(kind, value, path, problems, str(odd))
    except (ValueError, TypeError, OverflowError):
        return _wrong(kind, value, path, problems)


def _wrong(
    kind: Any, value: Any, path: tuple[Any, ...], problems: list[Problem], got: str | None = None
) -> Any:
    """Note that a value is not of its kind, unless it is known that it could not be read."""
    if _holds_unread(value):
        problems.append((path, SAID))
        return UNREAD
    said = f"expected {kind.expected}, got {got or shown(value)}"
    options = kind.schema.get("enum")
    if options and isinstance(value, str):
        near = hint(value, options, problems)
        said += near if "did you mean" in near else ""  # what is expected has been listed
    problems.append((path, said))
    return UNREAD


def _holds_unread(value: Any) -> bool:
    if isinstance(value, (list, tuple, Mapping)):
        return any(map(_holds_unread, value.values() if isinstance(value, Mapping) else value))
    return value is UNREAD


def refusal(issues: Sequence[Issue]) -> PolicyError:
    """Return the error that lists these problems, but for those that stand for others."""
    told = [issue for issue in issues if issue.message != SAID]
    return PolicyError("\n".join(map(str, told)), told)


def dotted(path: tuple[Any, ...]) -> str:
    r"""Return a path as messages show it: on one line, and not at length.

    >>> dotted(("tiers", 0, "na\nme"))
    'tiers.0.na\\nme'
    """
    steps = path[:-1] if path[-1:] == (KEY,) else path
    text = ".".join(
        [s if type(s) is str and len(s) <= _SHOWN else str(s)[: _SHOWN + 1] for s in steps]
    )
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]}…{text[1 - _SHOWN // 2 :]}"
    return text if text.isprintable() else repr(text)[1:-1]


def shown(value: Any) -> str:
    """Return a value as a message may show it: not at length.

    >>> shown([1, 2]), shown("x")
    ('a list', "'x'")
    """
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if not isinstance(value, str) and isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (str, bytes)):
        value = value[:_LONGEST]  # its text is made of no more than is shown
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= 40 else text[:37] + "..."
