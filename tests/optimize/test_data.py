import numpy as np
import pytest

from cascade import InputValueError
from cascade.optimize.data import Data, load_data, split


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_reads_rows_and_truth(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    assert load_data(tmp_path / "x.npy").truth is None
    found = load_data(saved(tmp_path / "x.npz", X=np.ones((3, 2)), y=np.array([0, 1, 2])))
    assert (found.n, found.truth.tolist()) == (3, [0, 1, 2])


def test_reads_an_array_per_input(tmp_path):
    found = load_data(saved(tmp_path / "x.npz", ids=np.ones((3, 2)), mask=np.zeros((3, 2))))
    assert {name: row.tolist() for name, row in found.row(4).items()} == {
        "ids": [1, 1],
        "mask": [0, 0],
    }
    assert set(found.batch(2, 2)) == {"ids", "mask"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, "as many rows in each.* got X 3, y 2"),
        ({"X": np.ones((3, 2)), "y": np.ones((3, 1))}, "y: expected labels.* 2 axes"),
        ({"X": np.ones((3, 2)), "y": np.array([1, np.nan, 0])}, "y: 1 of 3 rows have no label"),
        ({"X": np.ones((3, 2)), "y": np.array(["a", "", ""])}, "y: 2 of 3 rows have no label"),
        ({"X": np.ones((3, 2)), "Y": np.ones(3)}, "beside Y"),
        ({"y": np.ones(3)}, "it has no rows"),
        ({"X": np.ones((0, 2))}, "expected rows, got the shape"),
        ({"X": np.array([{}], dtype=object)}, "not a file of plain arrays"),
    ],
)
def test_refuses_what_does_not_fit(tmp_path, arrays, said):
    with pytest.raises(InputValueError, match=said):
        load_data(saved(tmp_path / "x.npz", **arrays))


def test_refuses_other_files(tmp_path):
    with pytest.raises(InputValueError, match=r"expected a \.npy or \.npz"):
        load_data(tmp_path / "x.csv")
    with pytest.raises(InputValueError, match="cannot be read: No such file"):
        load_data(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"some text")
    with pytest.raises(InputValueError, match="plain arrays: it holds something else"):
        load_data(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"PK not a zip")
    with pytest.raises(InputValueError, match="not a file of plain arrays"):
        load_data(tmp_path / "x.npz")
    whole = saved(tmp_path / "x.npz", X=np.ones((300, 4))).read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])  # a copy that was cut off
    with pytest.raises(InputValueError, match="not a file of plain arrays: File is not a zip file"):
        load_data(tmp_path / "x.npz")


def test_parts_are_disjoint_and_the_same_for_the_same_seed():
    data = Data({"": np.arange(100)[:, None]}, np.arange(100))
    parts, again, other = split(data), split(data), split(data, seed=1)
    rows = [set(part.truth) for part in (parts.learn, parts.choose, parts.certify)]
    assert [len(part) for part in rows] == [25, 37, 38]
    assert len(set.union(*rows)) == 100
    assert set(again.learn.truth) == rows[0] != set(other.learn.truth)
