"""Small models that can be made smaller, made here."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIDE = 8


def rows(n, seed=0):
    """Blobs in four quarters of an image of 8 by 8: (n, 64) and the quarter (n,)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, n)
    images = random.uniform(0.0, 0.3, (n, SIDE, SIDE)).astype(np.float32)
    for image, quarter in zip(images, truth, strict=True):
        top, left = 4 * (quarter // 2), 4 * (quarter % 2)
        image[top : top + 4, left : left + 4] += 0.5
    return images.reshape(n, -1), truth


def build(nodes, weights, columns=4):
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, SIDE * SIDE])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def quarters():
    """What the quarters of an image hold, as weights (64, 4)."""
    weights = np.zeros((SIDE, SIDE, 4), np.float32)
    for quarter in range(4):
        top, left = 4 * (quarter // 2), 4 * (quarter % 2)
        weights[top : top + 4, left : left + 4, quarter] = 1.0
    return weights.reshape(-1, 4)


def perceptron(hidden=32, seed=0, *, gemm=False, doubt=0.0):
    """A layer of neurons, four of which matter; 'gemm' spells products with turned weights.

    At a 'doubt' of 8 it cannot tell the last quarter from the others, and says so.
    """
    random = np.random.default_rng(seed)
    first = random.normal(0.0, 0.01, (64, hidden)).astype(np.float32)
    first[:, :4] = quarters()
    second = random.normal(0.0, 0.01, (hidden, 4)).astype(np.float32)
    second[:4] = np.eye(4)
    weights = {"w1": first, "b1": np.full(hidden, 0.1, np.float32), "w2": second}
    weights["b2"] = np.array([0.0, 0.0, 0.0, -doubt], np.float32)
    if gemm:
        weights |= {"w1": first.T.copy(), "w2": second.T.copy()}
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["z"], transB=1),
            helper.make_node("Relu", ["z"], ["a"]),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["l"], transB=1),
        ]
    else:
        nodes = [
            helper.make_node("MatMul", ["x", "w1"], ["m1"]),
            helper.make_node("Add", ["m1", "b1"], ["z"]),
            helper.make_node("Relu", ["z"], ["a"]),
            helper.make_node("MatMul", ["a", "w2"], ["m2"]),
            helper.make_node("Add", ["m2", "b2"], ["l"]),
        ]
    return build([*nodes, helper.make_node("Softmax", ["l"], ["p"], axis=1)], weights)


def convolution(filters=4):
    """Averages of neighbours, pooled by quarters."""
    weights = {
        "shape": np.array([-1, 1, SIDE, SIDE], np.int64),
        "w": np.full((filters, 1, 3, 3), 1 / 9, np.float32),
        "head": np.repeat(np.eye(4, dtype=np.float32), filters, axis=0).reshape(4, filters, 4)
        .transpose(1, 0, 2).reshape(-1, 4).copy() * 8,
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("Conv", ["image", "w"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("AveragePool", ["a"], ["q"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["l"]),
        helper.make_node("Softmax", ["l"], ["p"], axis=1),
    ]
    return build(nodes, weights)
