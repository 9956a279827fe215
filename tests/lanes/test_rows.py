"""Rows that go together, and batches of every kind of column."""

from collections.abc import Mapping

import numpy as np
import pytest

from cascade.lanes.rows import groups, join
from cascade.tiers.python import alone


def test_rows_of_named_columns_go_together_where_their_shapes_agree():
    rows = [{"a": np.zeros(2), "n": 1}, {"a": np.zeros(3), "n": 2}, {"a": np.ones(2), "n": 3}]
    assert groups(rows) == [[0, 2], [1]]
    assert groups(rows, {"a": 0.0}) == [[0, 1, 2]]
    assert groups(["x", 1, None]) == [[0, 1, 2]]


def test_columns_are_joined_by_their_kind():
    rows = [{"a": np.full((2, 2), i), "n": i, "t": str(i)} for i in range(3)]
    batch = join(rows)
    assert batch["a"].shape == (3, 2, 2)
    assert batch["a"][:, 0, 0].tolist() == [0, 1, 2]
    assert (batch["n"].tolist(), batch["t"]) == ([0, 1, 2], ["0", "1", "2"])
    whole = np.zeros((2, 2))
    assert join(whole) is whole
    assert join([]) == []


def test_rows_of_two_axes_are_filled_up():
    batch = join([np.ones((1, 2)), np.ones((2, 1))], {"x": -1})
    assert batch.tolist() == [[[1, 1], [-1, -1]], [[1, -1], [1, -1]]]


def test_values_of_several_types_are_no_column():
    values = [0, "a", 0.5, 2**53 + 1, True, 2**63, 2**70, np.float32(0.5), None, "b", -(2**63)]
    found = groups([{"k": value} for value in values])
    assert found == [[0, 3], [1, 9], [2], [4], [5], [6], [7], [8], [10]]
    for places in found:
        batch = join([{"k": values[i]} for i in places])["k"]
        for place, i in enumerate(places):
            same = alone({"k": values[i]})["k"]
            assert type(batch) is type(same)
            assert getattr(batch, "dtype", None) == getattr(same, "dtype", None)
            assert batch[place] == same[0]


class Closed(Mapping):
    """A row that cannot be read any more."""

    def __getitem__(self, name):
        raise OSError("closed")

    def __iter__(self):
        return iter("k")

    def __len__(self):
        return 1


def test_rows_with_masked_values_keep_them():
    masked = [np.ma.array([1, i], mask=[False, True]) for i in range(2)]
    assert groups(masked) == [[0], [1]]
    assert groups([{"a": row} for row in masked]) == [[0], [1]]


def test_a_row_that_cannot_be_looked_at_stands_alone():
    assert groups([{"k": 1}, Closed(), {"k": 2}, Closed()]) == [[0, 2], [1], [3]]


def test_rows_of_unequal_shape_are_not_stacked_without_a_pad():
    rows = [np.zeros(2), np.zeros(3)]
    for unequal, pad in (
        (rows, None), (rows, {"a": 0, "b": 0}),
        ([{"a": row} for row in rows], None), ([{"a": row} for row in rows], {"b": 0}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="unequal shape"):
            join(unequal, pad)
