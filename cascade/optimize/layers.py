"""Hidden layers of dense neurons as ONNX holds them, and a model with fewer of these neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from scipy.linalg import qr

from cascade.optimize.fetching import fetch
from cascade.optimize.lazily import require_onnx

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["Layer", "hidden_layers", "with_neurons"]

_ELEMENTWISE = {
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Sigmoid", "HardSigmoid", "Tanh",
    "Softplus", "Softsign", "HardSwish", "Mish", "ThresholdedRelu", "Identity", "Dropout", "Cast",
}  # fmt: skip
_RIDGE = 1e-3


@attrs.frozen
class Dense:
    """A product with constant weights: a Gemm, or a MatMul with or without an Add.

    ``weight`` and ``bias`` name initialisers; the weight is (out, in) where ``turned``.
    """

    weight: str
    bias: str | None
    turned: bool
    output: str


@attrs.frozen
class Layer:
    """A hidden layer: the product that makes it, the tensor of its neurons, and the next product.

    ``size`` is the number of neurons.
    """

    into: Dense
    neurons: str
    out: Dense
    size: int


def hidden_layers(model: bytes) -> list[Layer]:
    """Find dense products that feed another one through elementwise functions alone.

    Raises:
        MissingExtra: onnx is not installed.
    """
    graph = require_onnx().load_from_string(model).graph
    held = {one.name: tuple(one.dims) for one in graph.initializer}
    uses: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        into = _dense(node, held, uses)
        if into is None:
            continue
        neurons = _after(into.output, uses)
        next_nodes = uses.get(neurons, [])
        out = _dense(next_nodes[0], held, uses) if len(next_nodes) == 1 else None
        shared = [into.weight, into.bias, *((out.weight, out.bias) if out else ())]
        if out is not None and all(len(uses[name]) == 1 for name in shared if name):
            size = held[into.weight][0 if into.turned else 1]
            found.append(Layer(into, neurons, out, size))
    return found


def _dense(node: Any, held: dict[str, Any], uses: dict[str, list[Any]]) -> Dense | None:
    if node.op_type not in {"Gemm", "MatMul"} or len(held.get(node.input[1], ())) != 2:
        return None
    output, bias, turned = node.output[0], None, False
    if node.op_type == "Gemm":
        given = {a.name: a.i if a.type == 2 else a.f for a in node.attribute}  # 2: an integer
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
        bias = node.input[2] if len(node.input) > 2 else None
        if not plain or given.get("transA") or (bias and bias not in held):
            return None
        turned = bool(given.get("transB"))
    else:
        after = uses.get(output, [])
        if len(after) == 1 and after[0].op_type == "Add":
            bias = next((name for name in after[0].input if name in held), None)
            output = after[0].output[0] if bias else output
    return Dense(node.input[1], bias, turned, output)


def _after(tensor: str, uses: dict[str, list[Any]]) -> str:
    """Follow elementwise functions to the tensor that they end in."""
    while len(after := uses.get(tensor, [])) == 1 and after[0].op_type in _ELEMENTWISE:
        tensor = after[0].output[0]
    return tensor


def with_neurons(model: bytes, share: float, feeds: dict[str, Array]) -> bytes:
    """Return the model with this share of the neurons of each hidden layer.

    ``feeds`` are rows, (n, …) by input name, that tell which neurons matter and what the next layer
    computes; one layer after the other, each on what those before it have become.
    """
    for index, layer in enumerate(hidden_layers(model)):
        keep = max(1, round(share * layer.size))
        model = _shrunk(model, hidden_layers(model)[index], keep, feeds)
    return model


def _shrunk(model: bytes, layer: Layer, keep: int, feeds: dict[str, Array]) -> bytes:
    onnx = require_onnx()
    loaded = onnx.load_from_string(model)
    held = {one.name: one for one in loaded.graph.initializer}
    arrays = {name: onnx.numpy_helper.to_array(one) for name, one in held.items()}
    neurons = _values(loaded, layer.neurons, feeds)
    out = arrays[layer.out.weight].T if layer.out.turned else arrays[layer.out.weight]
    kept = _chosen(neurons, out, keep)
    fitted, shift = _refitted(neurons, out, kept, free=layer.out.bias is not None)
    changed = {
        layer.into.weight: _columns(arrays[layer.into.weight], kept, turned=layer.into.turned),
        layer.out.weight: fitted.T if layer.out.turned else fitted,
    }
    if layer.into.bias is not None:
        changed[layer.into.bias] = arrays[layer.into.bias][..., kept]
    if layer.out.bias is not None:
        changed[layer.out.bias] = arrays[layer.out.bias] + shift
    for name, array in changed.items():
        dtype = arrays[name].dtype
        made = onnx.numpy_helper.from_array(np.ascontiguousarray(array, dtype=dtype), name)
        held[name].CopyFrom(made)
    del loaded.graph.value_info[:]  # the shapes inside have changed
    return bytes(loaded.SerializeToString(deterministic=True))


def _chosen(neurons: Array, out: Array, keep: int) -> Array:
    """Choose the neurons that say most beyond those chosen before them, by a pivoted QR.

    Each counts by what the next layer makes of it. Of two that say the same, one is enough.
    """
    spread = (neurons - neurons.mean(axis=0)) * np.linalg.norm(out, axis=1)
    _, order = qr(spread.astype(np.float64), mode="r", pivoting=True)
    return np.sort(order[:keep])


def _columns(weight: Array, kept: Array, *, turned: bool) -> Array:
    return np.asarray(weight[kept] if turned else weight[:, kept])


def _refitted(neurons: Array, out: Array, kept: Array, *, free: bool) -> tuple[Array, Array]:
    """Fit weights of the kept neurons, and a shift of the bias, to what all of them gave.

    Ridge regression towards the weights as they are: rows may be fewer than neurons.
    """
    lost = np.setdiff1d(np.arange(neurons.shape[1]), kept)
    own, gone = neurons[:, kept].astype(np.float64), neurons[:, lost].astype(np.float64) @ out[lost]
    middle = own.mean(axis=0) if free else np.zeros(len(kept))
    missing = gone.mean(axis=0) if free else np.zeros(out.shape[1])
    centred = own - middle
    gram = centred.T @ centred
    gram += _RIDGE * (np.trace(gram) / len(kept) + 1e-12) * np.eye(len(kept))
    extra = np.linalg.solve(gram, centred.T @ (gone - missing))
    return out[kept] + extra, missing - middle @ extra


def _values(loaded: Any, tensor: str, feeds: dict[str, Array]) -> Array:
    onnx = require_onnx()
    loaded = type(loaded).FromString(loaded.SerializeToString())
    del loaded.graph.output[:]
    loaded.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    return fetch(loaded.SerializeToString(), tensor, feeds)
