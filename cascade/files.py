"""Files are replaced whole, and those that belong together all or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["all_or_none", "replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader finds the old one or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if path.exists():
            shutil.copymode(path, name)
        else:
            Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def all_or_none(paths: Iterable[Path]) -> Iterator[None]:
    """Have each of the files be as it was, or missing as it was, when what is done here fails."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, held in before.items():
            if held is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != held:
                replace_file(path, held)
        raise
