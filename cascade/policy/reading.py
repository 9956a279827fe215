"""From the bytes of a policy file to plain types, with the place of every value.

The parser's events are read one by one, so that what may not stand in a policy is refused where it
begins, before anything is built from it: anchors and aliases (a few lines of them hold billions of
values), tags, merge keys, several documents, and whatever is too large or too deep.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from cascade.errors import PolicyError
from cascade.policy.walk import KEY
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ITEM", "Places", "Run", "parse"]

Places: TypeAlias = "dict[tuple[Any, ...], tuple[int, int]]"
"""Path → line and column; a path that ends in KEY is the place of the key."""

_MAX_BYTES, _MAX_DEPTH = 64 * 1024, 20
_MAX_LISTED = 10_000  # bare words and numbers in lists, which are read by the run
_MAX_SINGLE = 1_500  # all else: keys, values and collections, which are read one by one
_MAX_DIGITS, _MAX_LENGTH = 20, 40  # of a whole number; of any other: Python writes up to 24
_TOO_LARGE = "nested too deeply, or too large"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The words and numbers of YAML 1.2's core schema; underscores in numbers as YAML 1.1 had them.
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|(\.)(?:nan|NaN|NAN)")

# A bare word or number, or several words: what may stand in a list and be read by the run.
_WORD = r"[-+.]?[A-Za-z0-9_][A-Za-z0-9_.+-]*+"
ITEM = rf"{_WORD}(?: {_WORD})*+"
_ITEMS = re.compile(rf"(?:- +)?({ITEM})")


class Run(str):
    """The text of several items of a list, as it stands in the file."""

    __slots__ = ()

    def items(self) -> Iterator[tuple[str, int, int]]:
        r"""Yield each item with its place: lines below the first one, and its column there.

        Columns on the first line count from where the run begins.

        >>> list(Run("1, two,\n  3").items())
        [('1', 0, 0), ('two', 0, 3), ('3', 1, 2)]
        """
        for lines, text in enumerate(self.split("\n")):
            for found in _ITEMS.finditer(text):
                yield found[1], lines, found.start(1)


def parse(raw: bytes, name: str) -> tuple[Any, Places, list[Issue]]:
    """Return plain data, the place of every path, and the problems that left something to read.

    Raises:
        PolicyError: this is no policy file at all; the issue says where it stops being one.

    >>> parse(b"deadline: 20ms", "policy.yaml")[0]
    {'deadline': '20ms'}
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    from cascade.policy.scanning import PolicyScanner

    text = _decode(raw, name)
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = PolicyScanner
    tree = _Tree(name)
    try:
        for event in _checked(yaml.parse(io.StringIO(text)), name):
            tree.take(event)
    except PolicyError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        raise _refused(name, line, column, f"not YAML: {error.problem}") from None
    except Exception as error:  # of bad escapes and directives the parser raises what it likes
        at = yaml.reader.get_mark()
        raise _refused(name, at.line + 1, at.column + 1, "not YAML") from error
    if not tree.begun:
        raise _refused(name, 1, 1, "empty; expected a policy")
    return tree.root, tree.places, tree.issues


def _refused(name: str, line: int, column: int, what: str) -> PolicyError:
    issue = Issue(name, line, column, "", what)
    return PolicyError(str(issue), [issue])


def _decode(raw: bytes, name: str) -> str:
    if len(raw) > _MAX_BYTES:
        raise _refused(name, 1, 1, f"{len(raw)} bytes; expected at most {_MAX_BYTES}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        raise _refused(name, *_place(before), "not UTF-8") from None
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        what = "a NUL byte" if odd[0] == "\0" else f"the character U+{ord(odd[0]):04X}"
        raise _refused(name, *_place(text[: odd.start()]), f"holds {what}")
    return text


def _place(before: str) -> tuple[int, int]:
    """Return line and column of what stands behind ``before``."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _checked(events: Iterator[Any], name: str) -> Iterator[Any]:
    """Pass events on, and refuse what may not stand in a policy."""
    depth = single = documents = 0
    for event in events:
        kind = type(event).__name__
        begins = kind in {"MappingStartEvent", "SequenceStartEvent"}
        documents += kind == "DocumentStartEvent"
        single += begins or kind == "ScalarEvent"
        depth += begins - (kind in {"MappingEndEvent", "SequenceEndEvent"})
        wrong = None
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            wrong = "anchors and aliases are refused"
        elif getattr(event, "tag", None) or getattr(event, "ctag", None):
            wrong = "tags are refused"
        elif documents > 1:
            wrong = "one document expected"
        elif depth > _MAX_DEPTH or single > _MAX_SINGLE:
            wrong = _TOO_LARGE
        if wrong is not None:
            mark = event.start_mark
            raise _refused(name, mark.line + 1, mark.column + 1, wrong)
        yield event


@attrs.define
class _Frame:
    """A list or mapping that is being read; one without a path is read and forgotten."""

    value: Any
    path: tuple[Any, ...] | None
    key: str | None = None  # of a mapping: whose value comes next
    kept: bool = True  # of a mapping: whether that value is


class _Tree:
    """Builds plain types of events, and notes where each value and key stands."""

    def __init__(self, name: str) -> None:
        self.root: Any = None
        self.begun = False
        self.places: Places = {}
        self.issues: list[Issue] = []
        self._name = name
        self._frames: list[_Frame] = []
        self._listed = 0

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        if isinstance(getattr(event, "value", None), Run):
            self._extend(event)
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            self._frames.pop()
        elif kind == "ScalarEvent":
            frame = self._frames[-1] if self._frames else None
            if frame is not None and type(frame.value) is dict and frame.key is None:
                self._key(frame, event)
            else:
                self._put(event, None)
        elif kind == "MappingStartEvent":
            self._put(event, {})
        elif kind == "SequenceStartEvent":
            self._put(event, [])

    def _key(self, frame: _Frame, event: Any) -> None:
        frame.key, frame.kept = event.value, frame.path is not None
        if frame.path is None:
            return
        at = (event.start_mark.line + 1, event.start_mark.column + 1)
        wrong = None
        if frame.key == "<<":
            wrong = "merge keys are refused"
        elif frame.key in frame.value:
            wrong = "duplicate key"
        if wrong is None:
            self.places[*frame.path, frame.key, KEY] = at
        else:
            frame.kept = False
            self._note(at, (*frame.path, frame.key), wrong)

    def _put(self, event: Any, container: Any) -> None:
        """Put a value where it belongs; a container is filled by the events to come."""
        at = (event.start_mark.line + 1, event.start_mark.column + 1)
        path = self._path(at, container)
        if path is not None:
            self.places[path] = at
        value = container
        if container is None:
            value = self._scalar(event.value, at, path, quoted=not event.implicit[0])
        if not self._frames:
            self.root, self.begun = value, True
        else:
            frame = self._frames[-1]
            if type(frame.value) is list:
                frame.value.append(value)
            elif frame.kept:
                frame.value[frame.key] = value
            frame.key = None
        if container is not None:
            self._frames.append(_Frame(container, path))

    def _path(self, at: tuple[int, int], container: Any) -> tuple[Any, ...] | None:
        if not self._frames:
            return ()
        frame = self._frames[-1]
        if type(frame.value) is list:
            return None if frame.path is None else (*frame.path, len(frame.value))
        if frame.key is None and container is not None:
            raise _refused(self._name, *at, "a key is expected to be text")
        return (*frame.path, frame.key) if frame.path is not None and frame.kept else None

    def _extend(self, event: Any) -> None:
        """Put the items of a run into the list that it stands in."""
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        into, places = self._frames[-1].value, self.places
        for text, below, offset in event.value.items():
            at = (line + below, offset + (1 if below else column))
            path = self._path(at, None)
            if path is not None:
                places[path] = at
            self._listed += 1
            if self._listed > _MAX_LISTED:
                raise _refused(self._name, *at, _TOO_LARGE)
            into.append(self._scalar(text, at, path, quoted=False))

    def _scalar(
        self, text: str, at: tuple[int, int], path: tuple[Any, ...] | None, *, quoted: bool
    ) -> Any:
        if quoted:
            return text
        try:
            return _plain(text)
        except ValueError as error:
            if path is not None:
                self._note(at, path, str(error))
            return None

    def _note(self, at: tuple[int, int], path: tuple[Any, ...], what: str) -> None:
        self.issues.append(Issue(self._name, *at, ".".join(map(str, path)), what))


def _plain(text: str) -> Any:
    """Return what a bare word stands for."""
    if text in _WORDS:
        return _WORDS[text]
    whole = _WHOLE.fullmatch(text) or _BASED.fullmatch(text)
    if whole or _REAL.fullmatch(text):
        most = _MAX_DIGITS if whole else _MAX_LENGTH
        if sum(ch.isalnum() for ch in text) > most:
            raise ValueError(f"expected a number of at most {most} digits")
        bare = text.replace("_", "")
        return int(bare, 0 if bare[1:2] in {"x", "o"} else 10) if whole else float(bare)
    odd = _ODD.fullmatch(text)
    if odd is not None:
        return float("nan") if odd[2] else float(f"{odd[1]}inf")
    return text
