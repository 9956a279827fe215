"""Edits of a policy file: values change, comments and layout stay; the file is replaced at once."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Any

from cascade.errors import PolicyError
from cascade.files import replace_file
from cascade.policy.places import Places
from cascade.policy.reading import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Edits", "check_target", "scalar"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[a-z]+)?")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


class Edits:
    """A policy's text, edited in memory; ``save`` checks it and replaces the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = self.text = path.read_bytes().decode("utf-8")

    def put(self, where: tuple[str | int, ...], key: str, value: Any, *, after: str) -> None:
        """Put ``key: value`` into the mapping at ``where``, a new key after the key ``after``."""
        self.text = Places(self.text, str(self.path)).put(where, key, scalar(value), after=after)

    def has(self, where: tuple[str | int, ...]) -> bool:
        """Whether the file itself says something there."""
        return Places(self.text, str(self.path)).where(where) is not None

    def tier(self, index: int, settings: Mapping[str, Any]) -> None:
        """Put settings of one tier; ``batch`` and ``confidence`` may hold settings of their own."""
        for key, value in settings.items():
            nested = isinstance(value, dict) and self.has(("tiers", index, key))
            held = self.keys(("tiers", index, key))
            if nested and held:
                for inner, item in value.items():
                    self.put(("tiers", index, key), inner, item, after=held[0])
            else:
                self.put(("tiers", index), key, value, after="model")

    def keys(self, where: tuple[str | int, ...]) -> list[str]:
        """Return the keys of the mapping at ``where``; none where it is something else."""
        return Places(self.text, str(self.path)).mapping(where)

    def comment(self, before: list[str], after: list[str]) -> None:
        """Replace lines of comment, where the file has them one after the other."""
        old, new = ("".join(f"# {line}\n" for line in lines) for lines in (before, after))
        self.text = self.text.replace(old, new, 1)

    def difference(self) -> list[str]:
        """Return the lines of a unified diff."""
        lines = (self.before.splitlines(), self.text.splitlines())
        names = (f"{self.path} (before)", f"{self.path} (now)")
        return list(difflib.unified_diff(*lines, *names, lineterm="", n=1))

    def save(self) -> None:
        """Replace the file, if it changed and what it says now is a valid policy.

        Raises:
            PolicyError: it is not; the file stays as it was.
        """
        from cascade.policy import Policy

        if self.text == self.before:
            return
        draft = self.path.with_name(f".{self.path.name}.draft")
        try:
            draft.write_bytes(self.text.encode("utf-8"))
            Policy.from_yaml(draft, env={})
        finally:
            draft.unlink(missing_ok=True)
        replace_file(self.path.resolve(), self.text.encode("utf-8"))


def scalar(value: Any) -> str:
    """Return a value as YAML on one line.

    >>> scalar("profile.json"), scalar("1e5"), scalar({"max_size": 8}), scalar(True)
    ('profile.json', '"1e5"', '{max_size: 8}', 'true')
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return quoted(value)


def check_target(path: Path) -> None:
    """Refuse what could not be written in the end, before minutes of measuring.

    Folders that are missing would be made.

    Raises:
        PolicyError: it is a folder itself, a folder of it is a file, or cannot be written to.
    """
    if path.is_dir():
        raise PolicyError(f"{path}: expected the name of a file to write, it is a folder")
    folder = path.resolve().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise PolicyError(f"{path}: cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PolicyError(f"{path}: cannot be written: no permission in {folder}")
