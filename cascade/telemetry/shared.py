"""Metrics of several processes: each writes its own to a folder, any of them answers for all."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SharedMetrics", "merge"]

_EVERY = 1.0  # s


class SharedMetrics:
    """This process's file in the folder that ``CASCADE_METRICS_DIR`` names.

    It is written about once a second while the router lives, and when it is closed; a file outlives
    its process, so that counters do not fall. Empty the folder when the service starts.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{os.getpid()}-{os.urandom(4).hex()}.prom"
        self._over = threading.Event()

    def keep_writing(self, owner: Any, text: Callable[[Any], str]) -> None:
        """Write ``text(owner)`` every second for as long as there is an owner."""
        alive = weakref.ref(owner)

        def run() -> None:
            while not self._over.wait(_EVERY):
                found = alive()
                if found is None:
                    return
                self.write(text(found))
                del found

        threading.Thread(target=run, name="cascade-metrics", daemon=True).start()

    def write(self, text: str) -> None:
        """Replace the file in one step: a reader sees all of it or none."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._path)

    def all(self, own: str) -> str:
        """Return this process's metrics together with those of the others."""
        self.write(own)
        others = [p for p in sorted(self.folder.glob("*.prom")) if p != self._path]
        return merge(own, (path.read_text(encoding="utf-8") for path in others))

    def close(self, text: str | None) -> None:
        """Write for the last time."""
        self._over.set()
        if text is not None:
            self.write(text)


def merge(own: str, others: Iterable[str]) -> str:
    r"""Add up counters and histograms; of gauges, one's own are shown.

    >>> own = "# TYPE a counter\na 1\n# TYPE b gauge\nb 5\n"
    >>> print(merge(own, ["# TYPE a counter\na 2\n# TYPE b gauge\nb 9\n"]), end="")
    # TYPE a counter
    a 3
    # TYPE b gauge
    b 5
    """
    families = _families(own)
    for text in others:
        for name, (head, samples) in _families(text).items():
            mine = families.setdefault(name, (head, {}))[1]
            if not head[-1].endswith(" gauge"):
                for key, value in samples.items():
                    mine[key] = mine.get(key, 0.0) + value
    lines = []
    for head, samples in families.values():
        lines += [*head, *(f"{key} {_number(value)}" for key, value in samples.items())]
    return "\n".join([*lines, ""])


def _families(text: str) -> dict[str, tuple[list[str], dict[str, float]]]:
    found: dict[str, tuple[list[str], dict[str, float]]] = {}
    head: list[str] = []
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP"):
            head = [line]
        elif line.startswith("# TYPE"):
            name = line.split()[2]
            found[name] = ([*head, line], {})
            head = []
        elif line and name:
            key, _, value = line.rpartition(" ")
            found[name][1][key] = float(value)
    return found


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
