"""``cascade demo``: the whole of it, end to end, with progress on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cascade.cli.reply import Reply

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["demo"]

_SEEDS = 2**32  # as many as NumPy and scikit-learn take


def demo(out: Path, seed: int) -> Reply:
    """Run the demo into the folder ``out``; stdout is kept for the result.

    Raises:
        ValueError: ``out`` is a file, or ``seed`` is none.
    """
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"--seed: expected a whole number between 0 and {_SEEDS - 1}, got {seed}")
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out: expected a folder, {folder} is a file")
    from cascade.demo import run

    result = run(out, seed, _progress)
    return Reply(result.render(), result.to_json())


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
