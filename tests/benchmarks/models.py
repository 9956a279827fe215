"""Small ONNX models with weights of our own making: the yardstick's, and a larger one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

if TYPE_CHECKING:
    from pathlib import Path


def perceptron(path: Path, sizes: list[int], seed: int) -> Path:
    """Write a perceptron with ReLU between its layers and softmax at its end."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for i, (a, b) in enumerate(pairwise(sizes)):
        scaled = (random.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        weights += [
            numpy_helper.from_array(scaled, f"w{i}"),
            numpy_helper.from_array(np.zeros(b, dtype=np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"]))
        last = f"h{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            last = f"r{i}"
    nodes.append(helper.make_node("Softmax", [last], ["p"], axis=1))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, sizes[0]])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, sizes[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(path))
    return path


def chain(path: Path, nodes: int = 4_000, size: int = 256) -> Path:
    """Write a model that is a long chain of small products: it can be stopped between any two."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(size, size)))[0].astype(np.float32)
    steps = [
        helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"])
        for i in range(nodes)
    ]
    steps.append(helper.make_node("Softmax", [f"h{nodes}"], ["p"], axis=1))
    graph = helper.make_graph(
        steps,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, size])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, size])],
        [numpy_helper.from_array(turn, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(path))
    return path
