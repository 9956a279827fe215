"""Tree ensembles as ONNX holds them: which trees help most, and a model of those alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.optimize.fetching import fetch
from cascade.optimize.lazily import require_onnx

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["Forest"]

_OP = "TreeEnsembleClassifier"
_MANY = 150  # trees; beyond, ranking them one by one takes too long
_ROWS = 500  # that trees are ranked on
_EVEN = 1e-3


@attrs.frozen(eq=False)
class Forest:
    """The one tree ensemble of a model; ``averaged`` when its trees vote with equal shares.

    The votes of a boosted ensemble add up instead, and its trees correct those before them: a
    ``stage`` of them is a tree per class. ``output`` names the probabilities, None without.
    """

    model: bytes
    place: int
    ids: Array
    averaged: bool
    stage: int
    output: str | None

    @classmethod
    def find(cls, model: bytes) -> Forest | None:
        """Return the ensemble of a model; None where there is none, or several.

        Raises:
            MissingExtra: onnx is not installed.
        """
        graph = require_onnx().load_from_string(model).graph
        places = [place for place, node in enumerate(graph.node) if node.op_type == _OP]
        if len(places) != 1:
            return None
        held = _arrays(graph.node[places[0]])
        ids = np.unique(held["nodes_treeids"])
        averaged = _averaged(held, len(ids))
        stage = 1 if averaged else len(np.unique(held["class_ids"]))
        matrices = [o.name for o in graph.output if len(o.type.tensor_type.shape.dim) == 2]
        return cls(model, places[0], ids, averaged, stage, matrices[-1] if matrices else None)

    def ranked(self, feeds: dict[str, Array], truth: Array | None) -> Array:
        """Return the trees' ids, first the one that helps most, then the one that helps it most.

        ``feeds`` are rows (n, …) by input name, ``truth`` (n,) class indices; without it the
        ensemble's own answers are what is right. A boosted ensemble keeps its order: each tree was
        grown on what those before it left over.
        """
        if not self.averaged or self.output is None or len(self.ids) > _MANY:
            return self.ids
        some = {name: rows[:_ROWS] for name, rows in feeds.items()}
        alone = [fetch(self.only([one]), self.output, some) for one in self.ids]
        votes = np.stack(alone) / len(self.ids)
        right = votes.sum(axis=0).argmax(axis=1) if truth is None else truth[:_ROWS]
        return np.asarray(self.ids[_greedy(votes, right)])

    def only(self, ids: Any) -> bytes:
        """Return the model with these trees alone, the votes of averaged ones in proportion."""
        onnx = require_onnx()
        loaded = onnx.load_from_string(self.model)
        node = loaded.graph.node[self.place]
        held = _arrays(node)
        masks = {prefix: np.isin(held[f"{prefix}_treeids"], ids) for prefix in ("nodes", "class")}
        scale = len(self.ids) / len(ids) if self.averaged else 1.0
        for attribute in node.attribute:
            prefix = attribute.name.partition("_")[0]
            if prefix not in masks:
                continue
            mask = masks[prefix]
            for field in ("ints", "floats", "strings"):
                values = getattr(attribute, field)
                if len(values) != len(mask):
                    continue
                kept = [value for value, keep in zip(values, mask, strict=True) if keep]
                if attribute.name == "class_weights":
                    kept = [value * scale for value in kept]
                del values[:]
                values.extend(kept)
        return bytes(loaded.SerializeToString(deterministic=True))


def _arrays(node: Any) -> dict[str, Array]:
    found = {
        a.name: np.array(a.ints if len(a.ints) else a.floats)
        for a in node.attribute
        if len(a.ints) or len(a.floats)
    }
    told = [a.s for a in node.attribute if a.name == "post_transform"]
    return found | {"post_transform": np.array(told or [b"NONE"])}


def _averaged(held: dict[str, Array], trees: int) -> bool:
    """Whether each leaf's weights sum to 1/trees: then they are shares of one vote.

    Of two classes the leaves may hold the share of one alone, which is anything up to 1/trees.
    """
    leaves = np.stack([held["class_treeids"], held["class_nodeids"]])
    _, inverse = np.unique(leaves, axis=1, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weights=held["class_weights"]) * trees
    if np.abs(sums - 1.0).max() < _EVEN:
        return True
    added = held["post_transform"][0] != b"NONE" or "base_values" in held
    one = len(np.unique(held["class_ids"])) == 1
    return one and not added and bool(sums.min() >= 0.0 and sums.max() < 1.0 + _EVEN)


def _greedy(votes: Array, right: Array) -> list[int]:
    """Order trees by what each adds to those before it: the least Brier score of their mean.

    ``votes`` is (trees, n, classes), ``right`` (n,). A proper score, for counting hits would
    overfit the rows.
    """
    scale = len(votes)  # each tree holds its share of the vote
    wanted = np.eye(votes.shape[2])[right]
    order: list[int] = []
    total, left = np.zeros(votes.shape[1:]), list(range(len(votes)))
    while left:
        means = (total + scale * votes[left]) / (len(order) + 1)
        best = left[int(((means - wanted) ** 2).sum(axis=2).mean(axis=1).argmin())]
        total += scale * votes[best]
        order.append(best)
        left.remove(best)
    return order
