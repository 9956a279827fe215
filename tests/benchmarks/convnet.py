"""A small convolutional model of our own making: filters by k-means, a head by scikit-learn.

Two layers of filters are the centres of patches (Coates & Ng, 'Learning Feature Representations
with K-Means', 2012), each normalised; what they find is pooled and handed to a logistic regression.
No framework is needed, and the weights stay under 1 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["convnet"]

SIDE = 28
PATCHES = 8_000


def convnet(X: Array, y: Array, first: int = 48, second: int = 144, seed: int = 0) -> bytes:
    """Return an ONNX model: 'input' (n, 784) float32 to 'probabilities' (n, classes)."""
    weights = {"w1": _filters(X.reshape(-1, 1, SIDE, SIDE), first, 5, seed)}
    weights["b1"] = np.full(first, -0.3, np.float32)
    maps = _run(_model(weights, "maps"), X)
    weights["w2"] = _filters(maps, second, 5, seed)
    weights["b2"] = np.full(second, -0.2, np.float32)
    features = _run(_model(weights, "features"), X)
    scaler = StandardScaler().fit(features)
    scale = np.maximum(scaler.scale_, 1e-3)
    head = LogisticRegression(C=0.003, max_iter=300).fit((features - scaler.mean_) / scale, y)
    w3 = (head.coef_ / scale).T
    weights["w3"] = w3.astype(np.float32)
    weights["b3"] = (head.intercept_ - scaler.mean_ @ w3).astype(np.float32)
    return _model(weights, "probabilities")


def _filters(maps: Array, count: int, size: int, seed: int) -> Array:
    """Cluster normalised patches of (n, channels, h, w); return (count, channels, size, size)."""
    random = np.random.default_rng(seed)
    n, channels, height, width = maps.shape
    rows = random.integers(0, n, PATCHES)
    tops, lefts = (random.integers(0, side - size, PATCHES) for side in (height, width))
    patches = np.stack([
        maps[i, :, t : t + size, s : s + size].ravel()
        for i, t, s in zip(rows, tops, lefts, strict=True)
    ])  # fmt: skip
    patches = patches - patches.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(patches, axis=1, keepdims=True)
    patches = (patches / np.maximum(norms, 1e-6))[norms[:, 0] > np.quantile(norms, 0.3)]
    found = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=2048).fit(patches)
    centres = found.cluster_centers_
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-6)
    return centres.reshape(count, channels, size, size).astype(np.float32)


def _model(weights: dict[str, Array], output: str) -> bytes:
    """Build the graph up to ``output``."""
    shape = np.array([-1, 1, SIDE, SIDE], np.int64)
    peaks = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["image"]),
        helper.make_node("Conv", ["image", "w1", "b1"], ["z1"], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["z1"], ["a1"]),
        helper.make_node("MaxPool", ["a1"], ["maps"], **peaks),
        helper.make_node("Conv", ["maps", "w2", "b2"], ["z2"], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["z2"], ["a2"]),
        helper.make_node("AveragePool", ["a2"], ["pool"], kernel_shape=[8, 8], strides=[5, 5]),
        helper.make_node("Flatten", ["pool"], ["features"]),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    last = next(i for i, node in enumerate(nodes) if output in node.output)
    kept = nodes[: last + 1]
    used = {name for node in kept for name in node.input}
    shapes = {"maps": [None, None, None, None], "features": [None, None]}
    columns = weights["b3"].size if "b3" in weights else None
    graph = helper.make_graph(
        kept,
        "convnet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, SIDE * SIDE])],
        [helper.make_tensor_value_info(
            output, TensorProto.FLOAT, shapes.get(output, [None, columns]))],
        [numpy_helper.from_array(a, name) for name, a in {"shape": shape, **weights}.items()
         if name in used],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(made.SerializeToString())


def _run(model: bytes, X: Array) -> Array:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": part})[0] for part in np.array_split(X, 50)])
