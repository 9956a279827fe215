"""From the bytes of a policy file to plain types, with the place of every value.

libyaml's events are read one by one, so that what may not stand in a policy is refused where it
begins, before anything is built from it: anchors and aliases (a few lines of them hold billions of
values), tags, merge keys, several documents, and whatever is too large or too deep. What a bare
word means is decided here, by YAML 1.2's core schema. The parser in Python, where libyaml is not
there, reads what both take alike; each refuses a few things that the other takes (tabs, comments
and directives in odd places), and has words of its own for what is no YAML.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from cascade.errors import PolicyError
from cascade.policy.walk import KEY, TOLD, UNREAD, dotted
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Callable

    import yaml

__all__ = ["Places", "bare", "loader", "parse", "places_of", "quoted"]

Places: TypeAlias = "dict[tuple[Any, ...], tuple[int, int]]"
"""Path → line and column; a path that ends in KEY is the place of the key."""

_MAX_BYTES, _MAX_DEPTH, _MAX_NODES = 64 * 1024, 20, 10_000
_MAX_BESIDE = 100_000  # nodes of a file beside a policy, to find the place of a problem in it
_MAX_DIGITS, _MAX_LENGTH = 20, 40  # of a whole number; of any other: Python writes up to 24
# Nor line breaks that are none to YAML 1.2 and most editors, nor a byte order mark that is not at
# the start, and seen by nobody; a text may hold them as escapes.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_BREAK = re.compile("\r\n?|\n")

# The words and numbers of YAML 1.2's core schema; underscores in numbers as YAML 1.1 had them.
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_FIRST = frozenset("+-.0123456789")  # of every number
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|(\.)(?:nan|NaN|NAN)")


def parse(raw: bytes, name: str) -> tuple[Any, Places, list[Issue]]:
    """Return plain data, the place of every path, and the problems that left something to read.

    Raises:
        PolicyError: this is no policy file at all; the issue says where it stops being one.

    >>> parse(b"deadline: 20ms", "policy.yaml")[0]
    {'deadline': '20ms'}
    """
    text = _decode(raw, name)
    tree = _read(text, name, _MAX_NODES)
    if not tree.nodes:
        raise _refused(name, 1, 1, "empty; expected a policy")
    return tree.root, tree.places, tree.issues


def quoted(value: Any) -> str:
    r"""Return plain data as JSON that a policy may hold: what YAML does not print, as escapes.

    >>> print(quoted(["naïve", "a\u2028b"]))
    ["naïve", "a\u2028b"]
    """
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda odd: f"\\u{ord(odd[0]):04x}", text)


def places_of(text: str, name: str) -> Places:
    """Return where the values of a JSON text stand, as far as it is YAML too.

    >>> places_of('{"a": [1, true]}', "a.json")["a", 1]
    (1, 11)
    """
    try:
        return _read(text, name, _MAX_BESIDE).places
    except PolicyError:
        return {}


def _read(text: str, name: str, most: int) -> _Tree:
    """Read the one document of a text, of so many nodes at most."""
    import yaml

    tree = _Tree(name, _place(text), most)
    takers: dict[Any, Callable[[Any], None]] = {
        yaml.ScalarEvent: tree.scalar,
        yaml.MappingStartEvent: tree.mapping,
        yaml.SequenceStartEvent: tree.sequence,
        yaml.MappingEndEvent: tree.end,
        yaml.SequenceEndEvent: tree.end,
        yaml.AliasEvent: tree.alias,
        yaml.DocumentStartEvent: tree.document,
    }
    events = loader()(text)
    try:
        for event in iter(events.get_event, None):
            take = takers.get(type(event))
            if take is not None:
                take(event)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(name, text, error) from None
    except PolicyError:
        raise
    except (ValueError, OverflowError) as error:  # the parser in Python, of some escapes
        raise _refused(name, events.line + 1, events.column + 1, "not YAML") from error
    return tree


def loader() -> Any:
    """Return the parser in C, or where there is none the slower one that reads the same."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refused(name: str, line: int, column: int, what: str) -> PolicyError:
    issue = Issue(name, line, column, "", what)
    return PolicyError(str(issue), [issue])


def _no_yaml(name: str, text: str, error: yaml.MarkedYAMLError) -> PolicyError:
    """Say where text stops being YAML; of what never ends, where it begins."""
    mark, begun = error.problem_mark, error.context_mark
    if mark is None or mark.index >= len(text):
        mark, begun = begun or mark, None
    line, column = _place(text)
    if mark is not None and mark.index < len(text):
        line, column = mark.line + 1, mark.column + 1
        if text[mark.index] == "\t":
            return _refused(name, line, column, "not YAML: a tab; YAML is indented by spaces")
    said = f"not YAML: {error.problem}"
    if begun is not None and error.context:
        said += f" ({error.context} that begins at {begun.line + 1}:{begun.column + 1})"
    return _refused(name, line, column, said)


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
    lines = _BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


class _Frame:
    """A list or mapping that is being read; one without a path is read and forgotten."""

    __slots__ = ("again", "kept", "key", "named", "path", "value")

    def __init__(self, value: Any, path: tuple[Any, ...] | None) -> None:
        self.value, self.path = value, path
        self.named = type(value) is list  # a mapping's values come in turn with their keys
        self.key: Any = None
        self.kept = True  # of a mapping: whether the value of its key is
        self.again = 0  # of a mapping: how many of its keys are refused


class _Tree:
    """Builds plain types of events, and notes where each value and key stands."""

    def __init__(self, name: str, end: tuple[int, int], most: int) -> None:
        self.root: Any = None
        self.nodes = 0
        self.places: Places = {}
        self.issues: list[Issue] = []
        self._name, self._end, self._most = name, end, most
        self._frame: _Frame | None = None  # the innermost
        self._around: list[_Frame | None] = []
        self._documents = 0

    def scalar(self, event: Any) -> None:
        """Take a key, or a value without parts."""
        at, value, wrong = self._at(event), event.value, None
        frame = self._frame
        if frame is not None and not frame.named:
            self._key(frame, value, at)
            return
        if event.implicit[0] and (value in _WORDS or value[0] in _FIRST):  # else it is text
            if not value and at > self._end:
                at = self._end  # what is left out seems to stand before the next token
            try:
                value = bare(value)
            except ValueError as error:
                value, wrong = UNREAD, str(error)
        path = self._put(frame, value, at)
        if wrong is not None:
            self._note(path, at, wrong)

    def mapping(self, event: Any) -> None:
        """Begin a mapping."""
        self._begin({}, self._at(event))

    def sequence(self, event: Any) -> None:
        """Begin a list."""
        self._begin([], self._at(event))

    def end(self, event: Any) -> None:  # noqa: ARG002  as the others
        """End a mapping or list."""
        frame, self._frame = self._frame, self._around.pop()
        if frame is not None and frame.path is not None and frame.again > TOLD:
            more = f"{frame.again - TOLD} more duplicate keys"
            self._note(frame.path, self.places[frame.path], more)

    def alias(self, event: Any) -> None:
        """Refuse an alias."""
        self._refuse(event, "anchors and aliases are refused")

    def document(self, event: Any) -> None:
        """Begin a document, which must be the first."""
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, "one document expected")

    def _at(self, event: Any) -> tuple[int, int]:
        """Return where a node stands, if it may."""
        self.nodes += 1
        if event.anchor is not None:
            self._refuse(event, "anchors and aliases are refused")
        if event.tag is not None:
            self._refuse(event, "tags are refused")
        if self.nodes > self._most:
            self._refuse(event, f"too large: more than {self._most:,} keys and values")
        mark = event.start_mark
        return mark.line + 1, mark.column + 1

    def _refuse(self, event: Any, what: str) -> None:
        mark = event.start_mark
        raise _refused(self._name, mark.line + 1, mark.column + 1, what)

    def _begin(self, container: Any, at: tuple[int, int]) -> None:
        frame = self._frame
        if frame is not None and not frame.named:
            raise _refused(self._name, *at, "a key is expected to be text")
        if len(self._around) >= _MAX_DEPTH:
            raise _refused(self._name, *at, f"nested too deeply: more than {_MAX_DEPTH} levels")
        path = self._put(frame, container, at)
        self._around.append(frame)
        self._frame = _Frame(container, path)

    def _key(self, frame: _Frame, key: str, at: tuple[int, int]) -> None:
        frame.key, frame.named, frame.kept = key, True, True
        if frame.path is None:
            return
        if key == "<<" or key in frame.value:
            frame.kept = False
            frame.again += 1
            if frame.again <= TOLD:
                wrong = "merge keys are refused" if key == "<<" else "duplicate key"
                self._note((*frame.path, key), at, wrong)
        else:
            self.places[*frame.path, key, KEY] = at

    def _put(self, frame: _Frame | None, value: Any, at: tuple[int, int]) -> tuple[Any, ...] | None:
        """Put a value where it belongs, and return its path; None: it is forgotten.

        A container is filled by the events to come.
        """
        path: tuple[Any, ...] | None = ()
        if frame is None:
            self.root = value
        elif type(frame.value) is list:
            path = None if frame.path is None else (*frame.path, len(frame.value))
            frame.value.append(value)
        elif frame.path is not None and frame.kept:
            path = (*frame.path, frame.key)
            frame.value[frame.key], frame.named = value, False
        else:
            path, frame.named = None, False
        if path is not None:
            self.places[path] = at
        return path

    def _note(self, path: tuple[Any, ...] | None, at: tuple[int, int], what: str) -> None:
        if path is not None:
            self.issues.append(Issue(self._name, *at, dotted(path), what))


def bare(text: str) -> Any:
    """Return what a bare word or number stands for.

    Raises:
        ValueError: a number of more digits than any setting has.

    >>> bare("0.5"), bare("20ms"), bare("true")
    (0.5, '20ms', True)
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _MAX_DIGITS and text.isdecimal() and text.isascii():
        return int(text)  # most numbers are such
    whole = _WHOLE.fullmatch(text) or _BASED.fullmatch(text)
    if whole or _REAL.fullmatch(text):
        most = _MAX_DIGITS if whole else _MAX_LENGTH
        if sum(map(str.isalnum, text)) > most:
            raise ValueError(f"expected a number of at most {most} digits; text goes in quotes")
        digits = text.replace("_", "")
        return int(digits, 0 if digits[1:2] in {"x", "o"} else 10) if whole else float(digits)
    odd = _ODD.fullmatch(text)
    if odd is not None:
        return float("nan") if odd[2] else float(f"{odd[1]}inf")
    return text
