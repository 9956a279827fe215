"""What may be written where a policy wants a time, a size, a share or a number between bounds."""

import math

import pytest

from cascade.policy import constraints as c
from cascade.policy.units import parse_duration, parse_fraction, parse_size
from cascade.policy.walk import nearest, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5ns", 5e-9), ("5us", 5e-6), ("5µs", 5e-6), ("5ms", 5e-3), ("5s", 5.0), ("5m", 300.0),
        ("5h", 18_000.0), ("1.5 s", 1.5), ("1_500ms", 1.5),
        ("instant", 0.1), ("reaction", 0.2), ("conversation", 1.0),
    ],
)  # fmt: skip
def test_times(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3B", 3), ("3kB", 3_000), ("3KB", 3_000), ("3MB", 3_000_000), ("3GB", 3_000_000_000),
        ("3KiB", 3_072), ("3MiB", 3_145_728), ("3GiB", 3_221_225_472), ("0.5 kB", 500),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["5", "ms", "-5ms", "5 ", "5  ms", "5mS", "5ms5", "", "5e3ms", True]
)
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_shares():
    assert [parse_fraction(x) for x in ("0%", "12.5 %", 0.3)] == [0.0, 0.125, 0.3]
    with pytest.raises(ValueError, match="expected a percentage"):
        parse_fraction("half")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (c.number(0.0, 1.0), [0, 1, 0.5], [-1e-9, 1 + 1e-9, math.nan, math.inf, True, "0.5"]),
        (c.number(0.0, 1.0, open_low=True), [1e-9, 1], [0, 0.0]),
        (c.number(0.0), [0, 1e300], [-1]),
        (c.number(), [-1e300, 0, 1e300], [-math.inf, math.inf]),
        (c.integer(), [0, 2**53], [-1, 2**53 + 1, 1.0, True]),
        (c.integer(2, 4), [2, 4], [1, 5]),
        (c.fraction(), [0, 1, "0%", "100%"], [1.001, "100.1%", -0.1, True]),
        (c.duration(), [1e-9, 1e9], [0, 0.0, 1e9 + 1, "0s", True]),
        (c.size(), [1, "1B", 0.6], [0, "0B", True]),
        (c.boolean(), [True, False], [0, 1, "true", None]),
        (c.label_list(), [[True, 1], ["a", "b"], [0, 1]], [[1, 1.0], ["a"], [True, True], "ab"]),
    ],
    ids=lambda value: value.expected[:30] if isinstance(value, c.Kind) else "",
)
def test_bounds_belong_to_what_they_bound(kind, good, bad):
    for value in good:
        kind.parse(value)
    for value in bad:
        with pytest.raises(ValueError):
            kind.parse(value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (c.number(), "a number"),
        (c.number(0.5), "a number of at least 0.5"),
        (c.number(0.5, open_low=True), "a number above 0.5"),
        (c.number(0.0, 1.0), "a number between 0 and 1"),
        (c.integer(), "a whole number of at least 0"),
        (c.integer(1, 8), "a whole number between 1 and 8"),
        (c.only(1, "the only one"), "1, the only one"),
    ],
)
def test_bounds_are_said(kind, expected):
    assert kind.expected == expected


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (c.number(), {"type": "number"}),
        (c.number(0.5), {"type": "number", "minimum": 0.5}),
        (c.number(0.5, 2.0), {"type": "number", "minimum": 0.5, "maximum": 2.0}),
        (c.number(0.5, open_low=True), {"type": "number", "exclusiveMinimum": 0.5}),
        (c.integer(1), {"type": "integer", "minimum": 1, "maximum": 2**53}),
        (c.fraction().schema["anyOf"][1], {"type": "number", "minimum": 0.0, "maximum": 1.0}),
        (c.size().schema["anyOf"][1], {"type": "number", "exclusiveMinimum": 0}),
    ],
)
def test_the_schema_has_the_same_bounds(kind, schema):
    assert (kind.schema if isinstance(kind, c.Kind) else kind) == schema


def test_policies_are_hashable_and_frozen():
    settings = c.settings(type("Settings", (), {"__annotations__": {"a": int}, "a": 1}))
    with pytest.raises(AttributeError):
        settings().a = 2
    with pytest.raises(TypeError):
        settings(2)


def test_a_hint_is_one_name_and_long_words_get_none():
    known = ["deadline", "max_deadline", "dead_line"]
    assert nearest("deadlin", known) == "did you mean 'deadline'?"
    assert nearest("zzz", known) == "expected one of deadline, max_deadline, dead_line"
    word = "a" * 99
    assert "did you mean" in nearest(word + "b", [word + "c"])  # a hundred letters
    assert "did you mean" not in nearest(word + "bb", [word + "cc"])


def test_values_are_shown_at_a_readable_length():
    assert shown("x" * 38) == repr("x" * 38)
    assert shown("x" * 39) == "'" + "x" * 36 + "..."
