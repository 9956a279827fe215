"""Recordings of live traffic: one row per request, with what every tier answered to it.

Every row is handed to the operating system at once: a crash loses what is queued, and a fork
inherits nothing half written.
"""

from __future__ import annotations

import csv
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

import attrs

from cascade.types import jsonable, spelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cascade.outcome import Outcome

__all__ = ["Answer", "Recorder"]


@attrs.frozen
class Answer:
    """What one tier answered, before calibration and postprocessing."""

    tier: str
    score: str
    value: Any = None
    confidence: float | None = None
    seconds: float | None = None
    error: BaseException | None = None

    def cells(self) -> dict[str, str]:
        """Return its cells, by column."""
        failed = self.error is not None
        sure = "margin" if self.score == "margin" else "confidence"
        return {
            f"{self.tier}.value": "" if failed else spelled(self.value),
            f"{self.tier}.{sure}": "" if self.confidence is None else repr(self.confidence),
            f"{self.tier}.seconds": "" if self.seconds is None else f"{self.seconds:.9f}",
        }


class Recorder:
    """Appends rows to files of this process, one per ladder; used by one thread, but ``draw``."""

    def __init__(self, folder: Path, rate: float, *, inputs: bool, complete: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.rows = 0
        self.complete = complete
        self._rate = rate
        self._inputs = inputs
        self._random = random.Random()  # noqa: S311  sampling, not a secret
        self._closed = False
        self._files: dict[tuple[str, ...], Any] = {}  # by process, what they hold, and columns

    def draw(self) -> bool:
        """Whether this request is sampled; asked before it is routed."""
        return self._rate >= 1.0 or self._random.random() < self._rate

    def write(
        self, outcome: Outcome[Any], x: Any, answers: Sequence[Answer], *, prepared: bool
    ) -> None:
        """Append one request, with what every tier answered to it.

        ``prepared``: what serving sees is not the request but what a function makes of it.
        """
        if self._closed:  # by who did not wait for a tier that hung
            return
        cells = {
            "id": outcome.id, "at": f"{time.time():.6f}", "policy": outcome.policy, "sampled": "1",
        } | (_asked(x, prepared) if self._inputs else {})  # fmt: skip
        for answer in answers:
            cells |= answer.cells()
        self._append("recording", cells)
        self.rows += 1

    def label(self, outcome_id: str, truth: Any) -> None:
        """Append the truth of one request."""
        self._append("labels", {"id": outcome_id, "truth": spelled(truth)})

    def _append(self, what: str, cells: dict[str, str]) -> None:
        key = str(os.getpid()), what, *cells
        file = self._files.get(key)
        if file is None:
            path = self._folder / f"{what}-{os.getpid()}-{time.time_ns():x}.csv"
            file = self._files[key] = path.open("a", encoding="utf-8", newline="")
            csv.writer(file).writerow(cells)
        csv.writer(file).writerow(cells.values())
        file.flush()
        if self._closed:  # a label that comes after all
            self.close()

    def close(self) -> None:
        """Close the files; no row is written from now on."""
        self._closed = True
        for file in list(self._files.values()):  # a label may come meanwhile
            file.close()
        self._files.clear()


def _asked(x: Any, prepared: bool) -> dict[str, str]:  # noqa: FBT001
    """Return the cell of a request; fitting reads ``input``, so that is what serving sees."""
    if isinstance(x, str):
        return {"request" if prepared else "input": x}
    return {"request": json.dumps(jsonable(x), ensure_ascii=False)}
