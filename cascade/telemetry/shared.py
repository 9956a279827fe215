"""Metrics of several processes: each writes its own to a folder, any of them answers for all."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["SharedMetrics", "merge"]

_EVERY = 1.0  # s


class SharedMetrics:
    """This process's file in the folder that ``CASCADE_METRICS_DIR`` names.

    It is written about once a second while the router lives, and when it is closed; a file outlives
    its process, so that counters do not fall. Empty the folder when the service starts.

    Raises:
        PolicyError: the folder cannot be written to. Later that raises nothing: what cannot be
            written waits for the next second, what cannot be read is left out.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._path = self.folder / f"{os.getpid()}-{os.urandom(4).hex()}.prom"
        self._over = threading.Event()
        self._writing = threading.Lock()  # one file for all threads
        try:
            self._replace("")
        except OSError as error:
            raise PolicyError(
                f"CASCADE_METRICS_DIR: {self.folder} cannot be written to: {error.strerror}; name "
                f"a folder that this process may write to, or leave it out"
            ) from error

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
        """Replace the file, unless it was written for the last time."""
        with self._writing, contextlib.suppress(OSError):
            if not self._over.is_set():
                self._replace(text)

    def _replace(self, text: str) -> None:
        """Replace the file in one step: a reader sees all of it or none."""
        self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._path)

    def all(self, own: str) -> str:
        """Return this process's metrics together with those of the others."""
        self.write(own)
        return merge(own, self._others())

    def _others(self) -> Iterator[str]:
        for path in sorted(self.folder.glob("*.prom")):
            if path != self._path:
                with contextlib.suppress(OSError, UnicodeDecodeError):  # it was removed just now
                    yield path.read_text(encoding="utf-8")

    def close(self, text: str) -> None:
        """Write for the last time."""
        self.write(text)
        self._over.set()


def merge(own: str, others: Iterable[str]) -> str:
    r"""Add up counters and histograms; of gauges, one's own are shown.

    A text that is not whole is left out.

    >>> own = "# TYPE a counter\na 1\n# TYPE b gauge\nb 5\n"
    >>> print(merge(own, ["# TYPE a counter\na 2\n# TYPE b gauge\nb 9\n"]), end="")
    # TYPE a counter
    a 3
    # TYPE b gauge
    b 5
    """
    families = _families(own)
    for text in others:
        try:
            found = _families(text)
        except ValueError:  # it is no file of ours, or was cut short
            continue
        for name, (head, samples) in found.items():
            head, mine = families.setdefault(name, (head, {}))  # noqa: PLW2901  one's own, if any
            if not head[-1].endswith(" gauge"):
                for key, value in samples.items():
                    mine[key] = mine.get(key, 0.0) + value
    lines = []
    for head, samples in families.values():
        lines += [*head, *(f"{key} {_number(value)}" for key, value in samples.items())]
    return "\n".join([*lines, ""])


def _families(text: str) -> dict[str, tuple[list[str], dict[str, float]]]:
    """Return head and samples of each family; a ValueError: the text is not whole."""
    found: dict[str, tuple[list[str], dict[str, float]]] = {}
    head: list[str] = []
    name = ""
    if text and not text.endswith("\n"):
        raise ValueError("the last line is cut short")
    for line in text.splitlines():
        if line.startswith("# HELP"):
            head = [line]
        elif line.startswith("# TYPE"):
            _, _, name, _ = line.split()
            found[name] = ([*head, line], {})
            head = []
        elif line and name:
            key, _, value = line.rpartition(" ")
            found[name][1][key] = number = float(value)
            if not math.isfinite(number):
                raise ValueError("a sum of others cannot be told from it")
    return found


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
