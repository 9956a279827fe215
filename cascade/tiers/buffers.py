"""One row through buffers that are bound once: two microseconds less than feeding and fetching.

A run through I/O binding cannot be terminated cheaply, which is right for the models this is for:
small ones, run inline, that are over before anybody could decide to stop them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.protocols import InputSpec

__all__ = ["LARGEST", "bound_run"]

LARGEST = 64 * 1024  # bytes of a row; beyond, copying it costs more than binding saves


def bound_run(
    session: Any, spec: InputSpec, output: str, columns: int, dtype: Any
) -> Callable[[Any], list[float]]:
    """Compile ``job -> the output's one row``, with buffers of each thread's own."""
    local = threading.local()
    shape = (1, *(size or 1 for size in spec.shape))
    run = session.run_with_iobinding

    def bind() -> tuple[Any, Any, Any]:
        row, out = np.zeros(shape, dtype=spec.dtype), np.zeros((1, columns), dtype=dtype)
        binding = session.io_binding()
        binding.bind_input(spec.name, "cpu", 0, row.dtype.type, shape, row.ctypes.data)
        binding.bind_output(output, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
        local.bound = bound = (row[0], binding, out[0].tolist)
        local.kept = row, out  # the binding holds addresses, not references
        return bound

    def one(job: Any) -> list[float]:
        try:
            row, binding, listed = local.bound
        except AttributeError:
            row, binding, listed = bind()
        row[...] = job.row  # cheaper than [:]
        run(binding)
        return listed()  # type: ignore[no-any-return]  # of floats: the output has one axis

    return one
