"""What a model computes for many rows at once: one of its outputs, or of the tensors inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.tiers.sessions import make_session

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["fetch"]


def fetch(model: bytes, output: str, feeds: dict[str, Array]) -> Array:
    """Return an output, (n, …), of rows by input name, (n, …) each.

    They run together, or one by one where the model has a batch axis fixed at 1.
    """
    session = make_session(model)
    n = len(next(iter(feeds.values())))
    alone = any(node.shape[:1] == [1] for node in session.get_inputs())
    step = 1 if alone else n
    runs = [
        session.run([output], {name: rows[at : at + step] for name, rows in feeds.items()})[0]
        for at in range(0, n, step)
    ]
    return np.concatenate(runs)
