"""Packages that only changing a model needs, imported when it is asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from cascade.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["first_line", "quiet", "require_onnx"]


def require_onnx() -> Any:
    """Import onnx.

    Raises:
        MissingExtra: it is not installed; the message has the line that installs it.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra.for_extra("quantize", "onnx") from error
    return onnx


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the advice that libraries give to their callers off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def first_line(error: Exception) -> str:
    r"""Return an error in one short line.

    >>> first_line(ValueError("no such thing\nand more"))
    'ValueError: no such thing'
    """
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:120]}"
