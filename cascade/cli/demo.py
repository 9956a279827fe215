"""``cascade demo``: the whole of it, end to end, with progress on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cascade.cli.reply import Reply

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["demo"]


def demo(out: Path, seed: int) -> Reply:
    """Run the demo into the folder ``out``; stdout is kept for the result."""
    from cascade.demo import run

    result = run(out, seed, _progress)
    return Reply(result.render(), result.to_json())


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
