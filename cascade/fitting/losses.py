"""What a row loses when a tier below the top answers it: the losses that a certificate bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Values = Sequence[npt.NDArray[Any]]
    LossFunction = Callable[[Values, "npt.NDArray[Any] | None"], npt.NDArray[np.bool_]]

__all__ = ["LOSSES", "disagreement", "gross", "loss_table"]


def gross(values: Values, truth: npt.NDArray[Any] | None) -> npt.NDArray[np.bool_]:
    """Lost where the top tier is right and this tier is wrong.

    Bounds the loss of accuracy from above: what the lower tier gets right and the top tier does not
    is given away for nothing.
    """
    if truth is None:
        raise ValueError("the gross loss needs the truth; without it use loss='disagreement'")
    top_right = values[-1] == truth
    return _columns([top_right & (mine != truth) for mine in values[:-1]], len(top_right))


def disagreement(values: Values, truth: npt.NDArray[Any] | None = None) -> npt.NDArray[np.bool_]:  # noqa: ARG001  one signature for all losses
    """Lost where this tier's answer differs from the top tier's: the loss that needs no truth."""
    return _columns([mine != values[-1] for mine in values[:-1]], len(values[-1]))


def _columns(columns: list[npt.NDArray[np.bool_]], n: int) -> npt.NDArray[np.bool_]:
    return np.column_stack(columns) if columns else np.zeros((n, 0), dtype=np.bool_)


LOSSES: dict[str, LossFunction] = {"gross": gross, "disagreement": disagreement}
"""The losses by name, as a certificate and ``loss=`` spell them."""


def loss_table(
    loss: str, values: Values, truth: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.bool_]:
    """Return (n, K-1): whether row r is lost if tier i, below the top, answers it.

    ``values`` holds the answers of the K tiers, cheapest first, (n,) each.

    >>> small, large = np.array([1, 0, 0]), np.array([1, 1, 0])
    >>> loss_table("gross", [small, large], truth=np.array([1, 1, 1])).T.tolist()
    [[False, True, False]]
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    return LOSSES[loss](values, truth)
