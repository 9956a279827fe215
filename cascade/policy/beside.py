"""The files that a policy names: read within bounds, and every problem with its place.

What is no regular file (a pipe never ends, nor does /dev/zero) is not read, and none further than
it may be long.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import attrs

from cascade.policy.reading import places_of
from cascade.policy.walk import dotted, refusal
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cascade.errors import PolicyError
    from cascade.policy.reading import Places
    from cascade.policy.walk import Problem

__all__ = ["Beside", "place", "read_file", "read_object"]

_ENTRIES = 10_000  # of an object; more tiers, labels or fields than a policy can name


def read_file(path: str | Path, most: int) -> bytes:
    """Return what a regular file holds, if that is not more than ``most`` bytes.

    Raises:
        OSError: it is missing, cannot be read, is something else, or is longer.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "expected a regular file")
            raw = file.read() if found.st_size <= most else b""
    except ValueError:  # a NUL byte
        raise OSError(errno.EINVAL, "no file can have this name") from None
    if max(len(raw), found.st_size) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes")
    return raw


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for somebody at the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def place(places: Any, path: tuple[Any, ...]) -> tuple[int | None, int | None]:
    """Return line and column of a path, or of the nearest parent that has a place."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path) or (None, None)


@attrs.frozen
class Beside:
    """A JSON object, and where it came from."""

    file: str
    text: str
    tree: dict[str, Any]

    @functools.cached_property
    def places(self) -> Places:
        """Where everything stands in it."""
        return places_of(self.text, self.file)

    def refusal(self, problems: Sequence[Problem]) -> PolicyError:
        """Return the error that lists these problems, each at its place."""
        return refusal(
            [
                Issue(self.file, *place(self.places, path), dotted(path), said)
                for path, said in problems
            ]
        )


def read_object(path: Path, what: str, most: int) -> Beside:
    """Read a file of at most so many bytes that holds one JSON object: ``what``, in words.

    Raises:
        PolicyError: it is missing, cannot be read or is something else; the issue says where.
    """

    def no(said: str, line: int | None = None, column: int | None = None) -> PolicyError:
        return refusal([Issue(str(path), line, column, "", said)])

    try:
        raw = read_file(path, most)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise no(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise no(f"not {what}: not UTF-8") from None
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise no(f"not {what}: not JSON: {error.msg}", error.lineno, error.colno) from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, and lists in lists
        raise no(f"not {what}: not JSON that can be read") from None
    if not isinstance(tree, dict):
        raise no(f"not {what}: expected a JSON object", 1, 1)
    if len(tree) > _ENTRIES:
        raise no(f"not {what}: more than {_ENTRIES:,} entries", 1, 1)
    return Beside(str(path), text, tree)
