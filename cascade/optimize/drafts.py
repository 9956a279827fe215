"""A bundle is written beside its place, read once as a router would, and then moved."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["POLICY", "drafted"]

POLICY = "policy.yaml"


@contextlib.contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """Give a folder to write a bundle in; it takes the place of ``folder`` when all is written.

    Raises:
        PolicyError: what was written is not a valid policy; ``folder`` stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        Policy.from_yaml(draft / POLICY, env={})
        draft.chmod(0o755)
        _move(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, folder: Path) -> None:
    """Move all at once where nothing stands; else file by file, the policy last.

    A router that loads in between finds a digest that differs, never another model unnoticed.
    """
    if not folder.exists():
        draft.rename(folder)
        return
    for file in sorted(draft.iterdir(), key=lambda file: file.name == POLICY):
        file.replace(folder / file.name)
