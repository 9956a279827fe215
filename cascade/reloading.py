"""Reloading: what a policy file consists of, and whether that has changed since it was read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from stat import S_ISREG
from typing import TYPE_CHECKING, TypeAlias

import attrs

from cascade.bundle import resolve_model
from cascade.errors import PolicyError
from cascade.policy import OnnxSpec, Policy
from cascade.tiers.graph import external_locations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["PolicyFiles"]

_YOUNG = 10**9  # ns after a change within which another may leave the same times
_WORD = re.compile(rb"[^\s\0'\"\[\]{},#]+")
_State: TypeAlias = "dict[Path, bytes | None]"


@attrs.frozen
class _Read:
    """A file as it was last read: its state then, what it held, and the files that it refers to."""

    mark: tuple[int, ...]
    digest: bytes
    parts: tuple[Path, ...]


class PolicyFiles:
    """A policy file and all that belongs to it: models with their data, and the files beside it.

    It tells content, not times: what was touched, or replaced by the same, has not changed. A file
    is read again when its times have. ``policy`` is what was read from ``path``.
    """

    def __init__(
        self, path: Path, policy: Policy, models: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self._policy = policy
        self._models = models
        self._env = env
        self._read: dict[Path, _Read] = {}
        self._failed = False  # the file could not be read: it may lack one that is still to come
        self._seen = self._last = self._state()

    def changed(self) -> bool:
        """Whether there is something new, and it has not changed since the last look.

        So a file is not read while it is being written, if that is seen.
        """
        now, last = self._state(), self._last
        self._last = now
        if now != last or now == self._seen:
            return False
        self._seen = now
        return True

    def read(self) -> Policy:
        """Return the policy that the file holds now; from now on, its files are looked at.

        Raises:
            PolicyError: as ``Policy.from_yaml``; what it may name is looked at from then on.
        """
        self._failed = True
        try:
            self._policy = Policy.from_yaml(self.path, env=self._env)
            self._failed = False
        finally:  # what was seen before it was read counts: it may have changed meanwhile
            seen, now = self._seen, self._state()
            self._seen = {path: seen.get(path, digest) for path, digest in now.items()}
        return self._policy

    # -- the state of files ----------------------------------------------------------------------

    def _state(self) -> _State:
        state: _State = {}
        for path in self._beside():
            state[path] = self._digest(path)
        for path in self._model_files():
            state[path] = self._digest(path, model=True)
            for part in self._read[path].parts if path in self._read else ():
                state[part] = self._digest(part)
        for path in self._named() if self._failed else ():
            if path not in state:
                state[path] = self._digest(path)
        return state

    def _beside(self) -> Iterator[Path]:
        policy, folder = self._policy, self.path.parent
        tables = (spec.confidence.calibration for spec in policy.tiers)
        names = (policy.escalation.certificate, policy.profile, policy.golden, *tables)
        yield self.path
        yield from (folder / name for name in names if name is not None)

    def _named(self) -> set[Path]:
        """Return what may be a file's name in a policy that cannot be read."""
        with contextlib.suppress(OSError):
            words = set(_WORD.findall(self.path.read_bytes()))
            return {self.path.parent / os.fsdecode(word) for word in words}
        return set()

    def _model_files(self) -> Iterator[Path]:
        for spec in self._policy.tiers:
            if isinstance(spec, OnnxSpec):
                with contextlib.suppress(PolicyError):
                    yield resolve_model(self._policy, spec, self._models, self._env)

    def _digest(self, path: Path, *, model: bool = False) -> bytes | None:
        """Return a file's digest, read anew if it may have changed; None: there is no file."""
        try:
            mark = _mark(path)
            held = self._read.get(path)
            if held is None or held.mark != mark or abs(time.time_ns() - mark[2]) < _YOUNG:
                held = self._read[path] = _Read(mark, *_contents(path, model=model))
        except OSError:
            self._read.pop(path, None)
            return None
        return held.digest


def _mark(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written to or replaced; links are followed."""
    stat = path.stat()
    if not S_ISREG(stat.st_mode):
        raise FileNotFoundError(path)
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _contents(path: Path, *, model: bool) -> tuple[bytes, tuple[Path, ...]]:
    """Return a file's digest, and the files that a model refers to."""
    if not model:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest(), ()
    data = path.read_bytes()
    names = (name for name in external_locations(data) if b"\0" not in name)
    return hashlib.blake2b(data).digest(), tuple(path.parent / os.fsdecode(name) for name in names)
