"""What a command has to say: a text for people, an object for programs, errors, an exit status."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BAD_INPUT", "DONE", "FAILED", "Reply", "table"]

DONE, FAILED, BAD_INPUT = 0, 1, 2


@attrs.frozen
class Reply:
    """The result of one command; ``data`` is printed with ``--json``, else ``text``.

    >>> Reply("fine", {"ok": True}).print(as_json=True)
    {"ok": true}
    0
    """

    text: str
    data: dict[str, Any]
    errors: tuple[str, ...] = ()
    status: int = DONE

    def print(self, *, as_json: bool = False) -> int:
        """Print to stdout, errors to stderr; return the exit status."""
        text = json.dumps(self.data, allow_nan=False) if as_json else self.text.rstrip("\n")
        if text:
            print(text)
        for error in self.errors:
            print(error, file=sys.stderr)
        return self.status


def table(rows: Sequence[tuple[str, ...]], indent: str = "  ") -> str:
    """Align columns on spaces.

    >>> print(table([("numpy", "2.4.6"), ("attrs", "26.1.0")]))
      numpy  2.4.6
      attrs  26.1.0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join((indent + line).rstrip() for line in lines)
