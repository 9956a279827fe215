"""Prune a model so that it is really smaller: fewer trees, or fewer neurons of hidden layers.

Zeros that stay in a matrix gain nothing on a CPU, so whole trees and whole neurons go. Trees are
taken in the order in which they help most (greedy selection from a library of models; Caruana et
al., ICML 2004). Neurons that say least beyond the others go first, and the next layer's weights are
fitted again, by least squares, to what it computed before.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cascade.optimize.layers import hidden_layers, with_neurons
from cascade.optimize.lazily import first_line, quiet, require_onnx
from cascade.optimize.slimming import Variant
from cascade.optimize.trees import Forest

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["KEPT", "pruned", "why_not_prune"]

KEPT = (0.75, 0.5, 0.35, 0.25, 0.15)
"""The shares of trees or neurons that are tried."""


def why_not_prune(model: bytes) -> str | None:
    """Say why a model cannot be pruned; None when it can.

    Raises:
        MissingExtra: the extra ``quantize`` is not installed.
    """
    forest = Forest.find(model)
    if forest is not None:
        return None if len(forest.ids) > 1 else "it is one tree"
    if hidden_layers(model):
        return None
    nodes = require_onnx().load_from_string(model).graph.node
    ops = Counter(node.op_type for node in nodes)
    ensembles = {op: count for op, count in ops.items() if op.startswith("TreeEnsemble")}
    if ensembles:
        held = ", ".join(f"{count} {op}" for op, count in ensembles.items())
        return (
            f"its trees are in {held}: only those of one TreeEnsembleClassifier can be left out, "
            "where they vote for classes and no other node weighs the votes"
        )
    only = ", ".join(sorted(ops))
    return f"it has neither several trees nor a hidden layer between two dense ones, only {only}"


def pruned(model: bytes, feeds: dict[str, Array], truth: Array | None) -> list[Variant]:
    """Return a variant per share of :data:`KEPT`.

    ``feeds`` are the rows, (n, …) by input name, that trees and neurons are ranked on, ``truth``
    (n,) the index of the right class; without it the model's own answers stand in.

    Raises:
        MissingExtra: the extra ``quantize`` is not installed.
    """
    with quiet():
        forest = Forest.find(model)
        if forest is not None:
            return _fewer_trees(forest, feeds, truth)
        return [_fewer_neurons(model, feeds, share) for share in KEPT]


def _fewer_trees(forest: Forest, feeds: dict[str, Array], truth: Array | None) -> list[Variant]:
    order, all_of_them, stage = forest.ranked(feeds, truth), len(forest.ids), forest.stage
    stages = {max(1, round(share * all_of_them / stage)) for share in KEPT}
    counts = sorted((stage * one for one in stages), reverse=True)
    return [
        Variant(f"{count} of {all_of_them} trees", forest.only(order[:count]))
        for count in counts
        if count < all_of_them
    ]


def _fewer_neurons(model: bytes, feeds: dict[str, Array], share: float) -> Variant:
    name = f"{share:.0%} of the neurons"
    try:
        return Variant(name, with_neurons(model, share, feeds))
    except Exception as error:  # noqa: BLE001  one share that fails leaves the others
        return Variant(name, None, f"cannot be made: {first_line(error)}")
