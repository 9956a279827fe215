"""What a forked child must not do with a native library that its parent has loaded.

onnxruntime starts threads when it is imported. A forked child does not have them, but at its exit
the library's destructors wait for them: it hangs or crashes (measured with 1.32, any thread count;
sessions that are destroyed in a child do the same). So a child keeps what it inherited, and leaves
by ``_exit`` once Python has shut down: exit handlers, buffers and the status are as ever.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["keep", "leave_quietly"]


def keep(thing: Any) -> None:
    """Never destroy an object in this process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def leave_quietly() -> None:
    """Have this process skip the destructors of native libraries when it exits.

    glibc runs what ``on_exit`` was told last first; where there is none, nothing is changed.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)  # noqa: SLF001  that is its name in C


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=leave_quietly)
