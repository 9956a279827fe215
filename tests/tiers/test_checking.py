"""What an author is told of his tier before it serves."""

import asyncio

import numpy as np
import pytest

import cascade
from cascade import InputTypeError, InputValueError, Prediction
from cascade.testing import check_tier, scripted

ROWS = ["a", "bb", "ccc"]
NAN = float("nan")


class Odd:
    """Compares with nothing as one would expect."""

    def __eq__(self, other):
        raise ValueError("ambiguous")

    def __hash__(self):
        return 1


class Says:
    """Predicts what a function makes of the batch."""

    def __init__(self, answer):
        self.predict = lambda batch, context: answer(batch)


class Estimator:
    def fit(self): ...
    def get_params(self): ...
    def predict(self, X): ...


def alone_fails(xs):
    if len(xs) == 1:
        raise KeyError(xs[0])
    return [(x, 0.9) for x in xs]


def fails_later():
    calls = []

    def answer(xs):
        calls.append(xs)
        if len(calls) > 4:
            raise OSError("gone")
        return [(x, 0.9) for x in xs]

    return answer


def pairs(function):
    return cascade.tier(function, returns="pairs")


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (pairs(alone_fails), r"row 0: alone: it raised KeyError.*\n- row 1: alone: it raised"),
        (pairs(fails_later()), "asked twice: it raised OSError: gone"),
        (pairs(lambda xs: [(NAN, 0.9) for _ in xs]), "row 2: the value is NaN"),
        (pairs(lambda xs: [(iter(xs), 0.9) for _ in xs]), "row 0: the value is a list_iterator"),
        (pairs(lambda xs: [(x, "0.9") for x in xs]), "confidence: expected a number, got str"),
        (pairs(lambda xs: [(x, 0.9 if x == "a" else NAN) for x in xs]), r"number in \[0, 1\]"),
        (Says(lambda xs: Prediction(xs, costs=[1.0])), "costs: expected a finite number"),
        (Says(lambda xs: Prediction(iter(xs))), "values: expected 3 of them"),
        (Estimator(), "wrap it: cascade.tier"),
        (scripted(error=ValueError("no"), asynchronous=True), "it raised ValueError: no"),
        (scripted({}, default=("x", 2.0), asynchronous=True), "confidences: expected a number"),
    ],
)
def test_an_author_is_told_every_fault(tier, words):
    with pytest.raises(AssertionError, match=f"(?s)not ready to serve:\n.*{words}"):
        check_tier(tier, ROWS)


def test_a_tier_that_changes_a_row_alone_is_told():
    def doubles(rows):
        if len(rows) == 1:
            rows *= 2
        return [("x", 0.9) for _ in rows]

    with pytest.raises(AssertionError, match="row 1: alone: it changed its input"):
        check_tier(pairs(doubles), np.ones((2, 3)))


def test_a_tier_that_is_awaited_is_checked_too():
    async def echo(xs):
        await asyncio.sleep(0)
        return list(xs)

    async def by_company(x):
        await asyncio.sleep(0)
        return x, 0.9

    check_tier(echo, ROWS)
    check_tier(cascade.tier(by_company, returns="pairs", rows="one"), ROWS)
    check_tier(scripted(default=("x", 0.9), asynchronous=True), ROWS)

    async def inside():
        check_tier(echo, ROWS)

    with pytest.raises(AssertionError, match="check it where no event loop runs"):
        asyncio.run(inside())


def test_values_that_cannot_be_compared_are_no_crash():
    odd = Odd()
    check_tier(cascade.tier(lambda xs: [odd for _ in xs]), ROWS)
    with pytest.raises(AssertionError, match="another value alone"):
        check_tier(cascade.tier(lambda xs: [Odd() for _ in xs]), ROWS)


def test_a_batch_of_columns_is_checked_row_by_row():
    columns = {"a": np.arange(3.0), "b": ["x", "y", "z"]}
    check_tier(cascade.tier(lambda row: row["b"], rows="one"), columns)
    with pytest.raises(AssertionError, match="it changed its input"):
        check_tier(cascade.tier(lambda rows: [rows["a"].sort() or 1] * len(rows["b"])), columns | {
            "a": np.array([2.0, 1.0, 0.0])
        })  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "error"), [("text", InputTypeError), (5, InputTypeError), ([], InputValueError)]
)
def test_what_is_no_batch_is_said_to_be_none(batch, error):
    with pytest.raises(error, match="batch: expected"):
        check_tier(len, batch)
