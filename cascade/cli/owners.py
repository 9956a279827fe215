"""Who else owns the import name ``cascade``: several distributions ship a package of that name."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DISTRIBUTION", "find_clashes"]

DISTRIBUTION = "cascade-router"
_PACKAGE = "cascade"
_HERE = Path(__file__).resolve().parents[1]


def find_clashes(path: Iterable[str] | None = None, here: Path = _HERE) -> list[str]:
    """List every other owner of the name, and every file of ours that one has overwritten.

    ``path`` is searched for distributions and packages (``sys.path``), ``here`` is our package.
    """
    places = [*(sys.path if path is None else path)]
    found: list[str] = []
    for dist in metadata.distributions(path=places):
        if _normal(dist.name) == DISTRIBUTION:
            found += _overwritten(dist)
        elif _owns(dist, here):
            found.append(f"{dist.name} {dist.version} also ships an import package {_PACKAGE!r}")
    return [*found, *_shadows(places, here)]


def _normal(name: str | None) -> str:
    return re.sub(r"[-_.]+", "-", name or "").lower()


def _owns(dist: metadata.Distribution, here: Path) -> bool:
    top_level = (dist.read_text("top_level.txt") or "").split()
    if _PACKAGE in top_level:
        return True
    files = dist.files or []
    if any(file.parts[0] in {_PACKAGE, f"{_PACKAGE}.py"} for file in files):
        return True
    # An editable install owns what its .pth file points at.
    links = [Path(str(dist.locate_file(file))) for file in files if file.suffix == ".pth"]
    roots = [line for link in links if link.is_file() for line in _lines(link)]
    return any(_packages(root, here) for root in roots)


def _lines(link: Path) -> list[str]:
    lines = link.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("import", "#"))]


def _packages(root: str, here: Path) -> list[Path]:
    candidates = (Path(root, _PACKAGE, "__init__.py"), Path(root, f"{_PACKAGE}.py"))
    return [each for each in candidates if each.is_file() and each.resolve().parent != here]


def _shadows(places: list[str], here: Path) -> Iterator[str]:
    """Find packages of the name that lie on the path, whoever put them there."""
    for file in dict.fromkeys(
        each.resolve() for place in places for each in _packages(place, here)
    ):
        yield f"{file} is another {_PACKAGE!r} on the import path; this one is {here}"


def _overwritten(dist: metadata.Distribution) -> list[str]:
    """Compare our files with the digests that were recorded when they were installed.

    From the record itself: ``dist.files`` leaves out those that are gone, since Python 3.12.
    """
    record = csv.reader((dist.read_text("RECORD") or "").splitlines())
    changed = [
        file
        for file, hashed, *_ in record
        if file.startswith(f"{_PACKAGE}/") and not _intact(dist, file, hashed)
    ]
    if not changed:
        return []
    listed = ", ".join(changed[:3]) + (", …" if len(changed) > 3 else "")
    what = "file" if len(changed) == 1 else "files"
    said = f"{len(changed)} {what} of {DISTRIBUTION}, overwritten or removed by another install"
    return [f"{said}: {listed}"]


def _intact(dist: metadata.Distribution, file: str, hashed: str) -> bool:
    mode, _, value = hashed.partition("=")
    if mode != "sha256":
        return True
    try:
        content = Path(str(dist.locate_file(file))).read_bytes()
    except OSError:
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return digest == value
