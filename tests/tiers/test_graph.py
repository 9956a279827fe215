import pytest

from cascade.tiers.graph import count_nodes
from tests.benchmarks.models import chain, perceptron


def test_nodes_are_counted(tmp_path):
    assert count_nodes(perceptron(tmp_path / "p.onnx", [4, 8, 3], 0).read_bytes()) == 4
    assert count_nodes(chain(tmp_path / "c.onnx", nodes=300, size=4).read_bytes()) == 301


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40, b"not a model", bytes(100)])
def test_anything_else_has_none(junk):
    assert count_nodes(junk) == 0
