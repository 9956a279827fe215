"""When two answers are the same."""

import pytest

from cascade.fitting import same


@pytest.mark.parametrize(
    ("rule", "a", "b", "expected"),
    [
        ("strip", " x", "x ", True), ("strip", "x", "X", False),
        ("casefold", " Straße", "STRASSE ", True), ("casefold", "x", "y", False),
        ("json", '{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}', True), ("json", "[1]", "[2]", False),
        ("json", "no json", "no json", True), ("json", 5, 5, True),
        ("number:1e-6", "1.0", 1.0000001, True), ("number:1e-6", 1.0, 1.1, False),
        ("number", "x", "x", True), ("number", "x", "y", False), ("number", 1, 1.0, True),
    ],
)  # fmt: skip
def test_rules(rule, a, b, expected):
    assert same.same_as(rule)(a, b) is expected


def test_a_function_is_its_own_rule():
    assert same.same_as(max) is max
    assert same.same_as(None) is None


@pytest.mark.parametrize("rule", ["", "alike", "number:x", "number:-1", "number:nan"])
def test_what_is_no_rule(rule):
    with pytest.raises(ValueError, match="same: expected one of"):
        same.same_as(rule)
