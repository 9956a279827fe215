"""What a field may hold: one declaration for the walker and for the JSON Schema."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import attrs

from cascade.policy.units import (
    DURATION,
    FRACTION,
    SIZE,
    SUCH,
    parse_duration,
    parse_fraction,
    parse_size,
    respelt,
)
from cascade.policy.walk import Odd, dotted, refusal, shown, take
from cascade.types import Issue

__all__ = [
    "Kind", "anything", "boolean", "choice", "count", "duration", "field", "fraction",
    "fraction_list", "integer", "label_list", "name_list", "number", "number_list", "only",
    "section", "section_list", "settings", "size", "text", "text_by_name", "told_apart", "weights",
]  # fmt: skip


T = TypeVar("T")
_PRINTED = r"^[^\u0000-\u001f\u007f\ud800-\udfff]+$"  # no control characters, no half characters
_LONGEST = 1e9  # seconds; beyond, nanoseconds overflow


@attrs.frozen
class Kind:
    """How a scalar or list is read (``parse`` raises ValueError) and how a schema describes it."""

    expected: str
    parse: Callable[[Any], Any]
    schema: Mapping[str, Any]
    item: Any = None  # of a list: each item is read by itself, and has a place of its own
    named: Any = None  # of a mapping by name: likewise each value
    section: Any = None  # a settings class, or a function from a mapping to one
    many: int = 0  # of a list of sections: so many at most


def field(kind: Kind, doc: str, **options: Any) -> Any:
    """Declare an attrs field of this kind; ``doc`` stands in the schema.

    What Python gives to the class is held against the kind as what a file says is, and read alike.
    """
    taken = attrs.Converter(functools.partial(_taken, kind), takes_field=True)
    return attrs.field(metadata={"kind": kind, "doc": doc}, converter=taken, **options)


def _taken(kind: Kind, value: Any, declared: attrs.Attribute[Any]) -> Any:
    if value is declared.default:
        return value
    problems: list[Any] = []
    plain = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
    made = take(kind, plain, (declared.name,), problems)
    if problems:
        issues = [Issue(None, None, None, dotted(path), said) for path, said in problems]
        raise refusal(issues)
    return made


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(field, attrs.field)
)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only settings class."""
    return attrs.frozen(kw_only=True)(cls)


def is_number(value: Any) -> bool:
    """Whether this is a number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(
    value: Any, low: float, high: float, *, whole: bool = False, open_low: bool = False
) -> Any:
    if not is_number(value) or (whole and not isinstance(value, int)):
        raise ValueError
    sound = low < value <= high if open_low else low <= value <= high
    if not math.isfinite(value) or not sound:
        raise ValueError
    return value if whole else float(value)


def number(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False) -> Kind:
    """A finite number between two bounds."""
    bounds: dict[str, Any] = {}
    if low > -math.inf:
        bounds["exclusiveMinimum" if open_low else "minimum"] = low
    if high < math.inf:
        bounds["maximum"] = high
    return Kind(
        _range("a number", low, high, open_low=open_low),
        lambda v: _number(v, low, high, whole=False, open_low=open_low),
        {"type": "number", **bounds},
    )


def _range(what: str, low: float, high: float, *, open_low: bool = False) -> str:
    if low > -math.inf and high < math.inf:
        return f"{what} between {low:,.12g} and {high:,.12g}"
    if low > -math.inf:
        return f"{what} {'above' if open_low else 'of at least'} {low:,.12g}"
    return what


def count() -> Kind:
    """A finite number that stays whole where it is: of things, or of shares of them."""

    def parse(value: Any) -> Any:
        _number(value, -math.inf, math.inf)
        return value

    return attrs.evolve(number(), parse=parse)


def integer(low: int = 0, high: int = 2**53) -> Kind:
    """A whole number between two bounds."""
    return Kind(
        _range("a whole number", low, math.inf if high == 2**53 else high),
        lambda v: _number(v, low, high, whole=True, open_low=False),
        {"type": "integer", "minimum": low, "maximum": high},
    )


def only(value: int, what: str) -> Kind:
    """The one number that can stand there, which is ``what``."""
    one = integer(value, value)
    return attrs.evolve(one, expected=f"{value}, {what}")


def text(pattern: str | None = None, expected: str = "text") -> Kind:
    """A string that is not empty, of a pattern (of the whole of it)."""
    wanted = re.compile(pattern or _PRINTED)

    def parse(value: Any) -> str:
        if not isinstance(value, str) or wanted.fullmatch(value) is None:
            raise ValueError
        return value

    return Kind(expected, parse, {"type": "string", "minLength": 1, "pattern": wanted.pattern})


def choice(options: tuple[str, ...], convert: Callable[[str], Any] = str) -> Kind:
    """One of some words."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str) or value not in options:
            raise ValueError
        return convert(value)

    return Kind(f"one of {', '.join(options)}", parse, {"enum": list(options)})


def _unit(
    expected: str, pattern: re.Pattern[str], parse: Callable[[Any], Any], low: float,
    high: float = math.inf, *, open_low: bool = True,
) -> Kind:  # fmt: skip
    def read(value: Any) -> Any:
        known = pattern.fullmatch(value) if isinstance(value, str) else is_number(value)
        if not known:
            meant = respelt(value, pattern) if isinstance(value, str) else None
            if meant is None:
                raise ValueError
            read(meant)
            raise Odd(f"{shown(value)}; did you mean {meant!r}?")
        parsed = parse(value)
        if not (low < parsed if open_low else low <= parsed) or parsed > high:
            raise ValueError
        return parsed

    bound = {"exclusiveMinimum" if open_low else "minimum": low}
    if high < math.inf:
        bound["maximum"] = high
    one_of = [{"type": "string", "pattern": pattern.pattern}, {"type": "number", **bound}]
    return Kind(expected, read, {"anyOf": one_of})


def duration() -> Kind:
    """A positive duration, in seconds."""
    return _unit(f"a positive {SUCH}", DURATION, parse_duration, 0.0, _LONGEST)


def size() -> Kind:
    """A positive size, in bytes."""
    return _unit("a positive size such as 64MB", SIZE, parse_size, 0)


def fraction() -> Kind:
    """A fraction in [0, 1], or a percentage."""
    expected = "a fraction between 0 and 1, or a percentage"
    return _unit(expected, FRACTION, parse_fraction, 0.0, 1.0, open_low=False)


def _tuple(value: Any, item: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError
    return tuple(item(v) for v in value)


def number_list(low: float = -math.inf, high: float = math.inf) -> Kind:
    """A list of numbers between two bounds."""
    item = number(low, high)
    return Kind(
        f"a list of numbers, each {item.expected.removeprefix('a number ')}",
        lambda v: _tuple(v, item.parse),
        {"type": "array", "items": item.schema},
        item,
    )


def fraction_list() -> Kind:
    """A list of fractions in [0, 1], or percentages."""
    item = fraction()
    schema = {"type": "array", "items": item.schema}
    return Kind("a list of fractions", lambda v: _tuple(v, item.parse), schema, item)


def label_list() -> Kind:
    """A list of at least two different class labels: text, numbers or booleans."""

    def parse(value: Any) -> tuple[Any, ...]:
        labels = _tuple(value, _label)
        if len(labels) < 2:
            raise Odd(f"{len(labels)} of them")
        seen: set[Any] = set()
        for label in labels:
            if told_apart(label) in seen:
                raise Odd(f"{shown(label)} twice")
            seen.add(told_apart(label))
        return labels

    item = {"type": ["string", "number", "boolean"]}
    return Kind(
        "a list of two or more different labels",
        parse,
        {"type": "array", "items": item, "minItems": 2, "uniqueItems": True},
    )


def _label(value: Any) -> Any:
    if not isinstance(value, (str, int, float)) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise Odd(f"{shown(value)} in it")
    return value


def told_apart(label: Any) -> tuple[bool, Any]:
    """Return what two labels share if they are one: 1 and 1.0 are, and True is none of them."""
    return isinstance(label, bool), label


def numbers_by_name() -> Kind:
    """Numbers by name."""
    item = number()

    def parse(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError
        return FrozenMap((k, item.parse(v)) for k, v in value.items())

    schema = {"type": "object", "additionalProperties": item.schema}
    return Kind("numbers by name", parse, schema, named=item)


def text_by_name() -> Kind:
    """Text by name."""

    def parse(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError
        if not all(isinstance(part, str) for pair in value.items() for part in pair):
            raise ValueError
        return dict(value)

    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return Kind("text by name", parse, schema)


def name_list() -> Kind:
    """A list of text."""

    def parse(value: Any) -> tuple[str, ...]:
        names = _tuple(value, lambda name: name)
        if not all(isinstance(name, str) for name in names):
            raise ValueError
        return names

    return Kind("a list of text", parse, {"type": "array", "items": {"type": "string"}})


def anything() -> Kind:
    """Whatever JSON can hold."""
    return Kind("anything", lambda v: v, {})


def weights() -> Kind:
    """A list of numbers, or numbers by feature name."""
    item, by_name = number(), numbers_by_name()

    def parse(value: Any) -> Any:
        if isinstance(value, (Mapping, list, tuple)) and not value:
            raise ValueError
        return by_name.parse(value) if isinstance(value, Mapping) else _tuple(value, item.parse)

    one_of = [
        {"type": "array", "items": item.schema, "minItems": 1},
        {**by_name.schema, "minProperties": 1},
    ]
    expected = "a list of one or more numbers, or numbers by feature name"
    return Kind(expected, parse, {"anyOf": one_of}, item, item)


class FrozenMap(dict[str, float]):
    """A mapping that can stand in a frozen, hashable policy."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def boolean() -> Kind:
    """True or false, and nothing that merely looks like it."""

    def parse(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Kind("true or false", parse, {"type": "boolean"})


def section(cls: Any) -> Kind:
    """A mapping with fields of its own."""
    return Kind("a mapping", lambda v: v, {}, section=cls)


def section_list(cls: Any, most: int) -> Kind:
    """A list of such mappings, of so many at most."""
    return Kind("a list of mappings", lambda v: v, {"maxItems": most}, section=cls, many=most)
