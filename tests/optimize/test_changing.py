"""One tier changed: models that take text, one row at a time, or answer with vectors."""

import numpy as np
import onnx
import pytest
from onnx import helper

from cascade import Policy
from cascade.optimize.changing import change_tier
from cascade.optimize.data import Data
from tests.optimize.models import perceptron, rows
from tests.tiers.test_onnx import FLOAT, STRING, model

WORDS = ["red", "green", "blue"]


def policy(folder, **tier):
    made = {"name": "it", "kind": "onnx", "model": "m.onnx", **tier}
    tree = {"version": 1, "name": "p", "deadline": "1s", "tiers": [made]}
    return Policy.from_dict(tree, root=folder)


def worded(path):
    """A hidden layer behind words that stand for numbers."""
    weights = np.eye(6, dtype=np.float32)
    nodes = [
        helper.make_node("LabelEncoder", ["t"], ["n"], domain="ai.onnx.ml", keys_strings=WORDS,
                         values_floats=[1.0, 2.0, 3.0], default_float=0.0),
        helper.make_node("Tile", ["n", "times"], ["x"]),
        helper.make_node("MatMul", ["x", "w1"], ["m"]),
        helper.make_node("Relu", ["m"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["logits"]),
    ]  # fmt: skip
    held = [("times", np.array([1, 6])), ("w1", weights), ("w2", weights[:, :2].copy())]
    model(path, nodes, [("t", STRING, [None, 1])], [("logits", FLOAT, [None, 2])], held)


@pytest.mark.parametrize("way", ["quantize", "prune"])
def test_variants_of_a_model_of_texts_are_made(tmp_path, way):
    worded(tmp_path / "m.onnx")
    data = Data({"": np.array(WORDS * 30)})
    found = change_tier(policy(tmp_path), "it", data, way)
    verdicts = {one.name: one.verdict for one in found.candidates}
    assert len(verdicts) > 5
    assert not [verdict for verdict in verdicts.values() if "cannot be made" in verdict]


def test_neurons_of_a_model_of_one_row_at_a_time_are_ranked(tmp_path):
    loaded = onnx.load_from_string(perceptron())
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "m.onnx").write_bytes(loaded.SerializeToString())
    X, y = rows(200)
    found = change_tier(policy(tmp_path), "it", Data({"": X}, y), "prune", max_loss=0.05)
    assert [one.name for one in found.candidates if "cannot be made" in one.verdict] == []


def test_answers_that_are_vectors_have_no_gate(tmp_path):
    (tmp_path / "m.onnx").write_bytes(perceptron())
    found = change_tier(policy(tmp_path, outputs="value"), "it", Data({"": rows(100)[0]}), "prune")
    assert found.kept is None
    assert "its answers are vectors" in found.candidates[0].verdict
