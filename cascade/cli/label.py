"""``cascade label``: join what was recorded with what turned out to be true."""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING, Any

from cascade.cli.edits import check_target
from cascade.cli.reply import DONE, FAILED, Reply
from cascade.errors import RecordingError
from cascade.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["label"]


def label(recording: Path, labels: Path, on: str, out: Path) -> Reply:
    """Write the rows of ``recording`` that have a label to ``out``, with their ``truth``.

    Both may be files, folders or globs. A label that is given twice must be the same; one that is
    empty is none. ``out`` is replaced at once.

    Raises:
        RecordingError: a file cannot be read, or lacks the column to join on; ``out`` is no CSV, or
            the recording itself.
    """
    from cascade.fitting.tables import read_table

    _check_out(out, recording)
    rows = read_table(recording, only="recording")
    truths = _truths(read_table(labels, only="labels"), on, str(labels))
    if on not in rows:
        raise RecordingError(f"{recording}: no column {on!r}; it has {', '.join(rows)}")
    keep = [i for i, key in enumerate(rows[on]) if str(key) in truths]
    names = ["truth", *(name for name in rows if name != "truth")]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(names)
    for i in keep:
        others = [rows[name][i] for name in names[1:]]
        writer.writerow([truths[str(rows[on][i])], *others])
    content = file.getvalue().encode()
    replace_file(out.resolve(), gzip.compress(content) if out.suffix == ".gz" else content)
    total = len(rows[on])
    unused = len(truths) - len({str(rows[on][i]) for i in keep})
    said = f"{len(keep):,} of {total:,} rows labelled, {unused:,} labels unused: {out}"
    data = {"rows": total, "labelled": len(keep), "unused": unused, "out": str(out)}
    errors = () if keep else (f"no row of {recording} has a label in {labels}",)
    return Reply(said, data, errors, DONE if keep else FAILED)


def _check_out(out: Path, recording: Path) -> None:
    if not out.name.endswith((".csv", ".csv.gz")):
        raise RecordingError(f"--out: expected a .csv or .csv.gz file, got {out}")
    if out.resolve() == recording.resolve():
        raise RecordingError(
            f"--out: {out} is the recording itself, and its rows without a label would be lost"
        )
    check_target(out)


def _truths(table: dict[str, Sequence[Any]], on: str, source: str) -> dict[str, Any]:
    from cascade.fitting.cells import is_empty

    for name in (on, "truth"):
        if name not in table:
            raise RecordingError(f"{source}: no column {name!r}; it has {', '.join(table)}")
    found: dict[str, Any] = {}
    for row, (key, truth) in enumerate(zip(table[on], table["truth"], strict=True), 1):
        if is_empty(truth):
            continue
        if found.setdefault(str(key), truth) != truth:
            raise RecordingError(
                f"{source}: row {row}: {on} {key!r} is {truth!r} here and "
                f"{found[str(key)]!r} before"
            )
    return found
