import onnx
import pytest
from onnx import TensorProto, helper

from cascade.tiers.graph import count_nodes, external_locations, made_by
from tests.benchmarks.models import chain, perceptron


def test_nodes_are_counted(tmp_path):
    assert count_nodes(perceptron(tmp_path / "p.onnx", [4, 8, 3], 0).read_bytes()) == 4
    assert count_nodes(chain(tmp_path / "c.onnx", nodes=300, size=4).read_bytes()) == 301


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40, b"not a model", bytes(100)])
def test_anything_else_has_none(junk):
    assert count_nodes(junk) == 0


def test_the_operator_that_makes_an_output_is_named():
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Split", ["y"], ["a", "b"]),
    ]
    raw = onnx.ModelProto(graph=onnx.GraphProto(node=nodes)).SerializeToString()
    assert [made_by(raw, name) for name in "yabx"] == ["Relu", "Split", "Split", None]
    assert made_by(b"\x3a\x02\x0a\xff", "b") is None


# -- files made to be slow -------------------------------------------------------------------------

SAID = b"location"  # else nobody looks


@pytest.mark.parametrize("byte", [b"\xff", b"\x80"])
def test_a_number_that_does_not_end_is_left_where_it_is_none(byte):
    endless = byte * 3_000_000  # read to its end it would take minutes
    assert external_locations(endless + SAID) == []
    assert count_nodes(endless) == 0
    assert made_by(endless, "p") is None


def nested(levels):
    tensor = TensorProto(name="t", data_type=1, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/secret")
    graph = onnx.GraphProto(initializer=[tensor]).SerializeToString()
    for _ in range(levels):
        for field in (6, 5, 1):  # the graph of an attribute of a node of a graph
            graph = bytes([field << 3 | 2]) + size(len(graph)) + graph
    return b"\x3a" + size(len(graph)) + graph


def size(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + size(n >> 7)


def test_messages_are_followed_as_deep_as_a_model_can_have_them():
    assert external_locations(nested(30)) == [b"/secret"]
    assert external_locations(nested(300)) == [b"/secret"]
    with pytest.raises(ValueError, match="nested too deep"):
        external_locations(nested(3_000))
