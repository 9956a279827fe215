"""Sessions of onnxruntime: how they are made, and one per model for the whole process."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

import onnxruntime as ort

from cascade.bundle import data_files
from cascade.errors import PolicyError
from cascade.policy.walk import nearest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CPU",
    "Identity",
    "available_providers",
    "identity_of",
    "make_session",
    "shared_session",
]

Identity: TypeAlias = "tuple[bytes, tuple[Any, ...]]"

_ERRORS_ONLY, _NOTHING = 3, 4  # but what is fatal
CPU = "CPUExecutionProvider"
_LEVELS = {"all": "ENABLE_ALL", "extended": "ENABLE_EXTENDED", "basic": "ENABLE_BASIC",
           "off": "DISABLE_ALL"}  # fmt: skip
_FOLDER = "session.model_external_initializers_file_folder_path"
_SESSIONS: weakref.WeakValueDictionary[Any, ort.InferenceSession] = weakref.WeakValueDictionary()
_MAKING = threading.Lock()


def _after_fork() -> None:
    global _MAKING  # noqa: PLW0603  a thread of the parent's may have held it
    _MAKING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def make_session(
    model: bytes, threads: int = 1, folder: Path | None = None, provider: str | None = None, *,
    spinning: bool = False, optimization: str = "all", quiet: bool = False,
) -> ort.InferenceSession:  # fmt: skip
    """Make a session that wastes nothing: no spinning, and as many threads as it was given.

    Spinning burns up to 23 times the CPU for sparse traffic, and the default thread count ignores
    the affinity mask. ``folder`` is where the model's external data lies, if it has any. With
    ``quiet`` an error is raised alone, and not written to stderr as well.

    Raises:
        PolicyError: the execution provider is not in this build, or does not start on this machine;
            onnxruntime itself would quietly take the CPU.
    """
    name = provider or CPU
    if name not in (known := available_providers()):
        hint = nearest(name, known)
        raise PolicyError(f"provider {name!r} is not in this build of onnxruntime; {hint}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, f"ORT_{_LEVELS[optimization]}"
    )
    options.log_severity_level = _NOTHING if quiet else _ERRORS_ONLY
    if folder is not None:
        options.add_session_config_entry(_FOLDER, str(folder))
    session = ort.InferenceSession(model, options, providers=[name])
    if session.get_providers()[0] != name:
        raise PolicyError(f"provider {name!r} does not start on this machine")
    return session


def identity_of(model: bytes, path: Path | None = None) -> Identity:
    """Return what tells a model from another: a digest of its bytes, and the state of its files.

    ``path`` is where the model was read from: what it refers to is checked, and found there.
    """
    files = () if path is None else data_files(model, path)
    stats = [file.stat() for file in files]
    state = tuple((s.st_dev, s.st_ino, s.st_mtime_ns, s.st_size) for s in stats)
    return hashlib.blake2b(model, digest_size=16).digest(), state


def shared_session(
    model: bytes, threads: int, path: Path | None = None, *, identity: Identity | None = None,
    **settings: Any,
) -> ort.InferenceSession:  # fmt: skip
    """Return the session of a model in this process: one for all routers, swaps and tiers.

    ``path`` as in :func:`identity_of`, whose result may be given.
    """
    digest, state = identity or identity_of(model, path)
    key = (os.getpid(), digest, threads, state, *sorted(settings.items()))
    folder = path.parent if path is not None and state else None
    with _MAKING:  # making two at once is not known to be safe
        session = _SESSIONS.get(key)
        if session is None:
            session = _SESSIONS[key] = make_session(model, threads, folder, **settings)
        return session


def available_providers() -> list[str]:
    """Name the execution providers of this build of onnxruntime, the preferred one first."""
    return [*ort.get_available_providers()]
