"""Tables from files: CSV, CSV.gz and Parquet, one file, a folder or a glob of them."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any

from cascade.errors import MissingExtra, RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["read_table"]


def read_table(path: Path, *, only: str) -> dict[str, Sequence[Any]]:
    """Return the columns of a file, a folder or a glob, one after the other.

    A router's folder holds recordings and labels side by side: ``only`` says which are meant.
    """
    files = _files(path, only)
    tables = [_read_file(file) for file in files]
    names = list(tables[0])
    for file, table in zip(files, tables, strict=True):
        if list(table) != names:
            raise RecordingError(
                f"{file}: other columns than {files[0]}; read those of each ladder by themselves"
            )
    return {name: [cell for table in tables for cell in table[name]] for name in names}


def _files(path: Path, only: str) -> list[Path]:
    if path.is_dir():
        other = "labels-" if only == "recording" else "recording-"
        found = sorted(
            f for f in path.iterdir()
            if f.suffix in {".csv", ".gz", ".parquet"} and not f.name.startswith(other)
        )  # fmt: skip
    elif not path.exists() and any(sign in str(path) for sign in "*?["):
        root = next(folder for folder in path.parents if folder.is_dir())
        found = sorted(root.glob(str(path.relative_to(root))))
    else:
        found = [path]
    if not found:
        raise RecordingError(f"{path}: no recording there")
    return found


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise RecordingError(f"{path}: cannot be read: {why}") from error
    head, *rows = _rows(text, path) or [[]]
    if not head:
        raise RecordingError(f"{path}: empty")
    for separator in ";\t|" if len(head) == 1 else "":
        if separator in head[0]:
            raise RecordingError(f"{path}: the cells are separated by {separator!r}; expected ','")
    for name in head:
        if name != name.strip():
            raise RecordingError(f"{path}: column {name!r}: a blank before or behind its name")
    if len(set(head)) != len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise RecordingError(f"{path}: column {twice!r} stands there twice")
    return dict(zip(head, _transposed(rows, len(head), path), strict=True))


def _rows(text: str, path: Path) -> list[list[str]]:
    """Return the rows that hold anything, the head first."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be of any size
    rows: list[list[str]] = []
    try:  # strict: else a quote that is not closed swallows the rows that follow
        rows.extend(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True)))
    except csv.Error as error:
        raise RecordingError(
            f"{path}: row {len(rows)}: {error}; a cell with quotes or line breaks stands between "
            "quotes, and the quotes in it are doubled"
        ) from error
    return rows


def _transposed(rows: list[list[str]], width: int, path: Path) -> list[Sequence[str]]:
    for at, row in enumerate(rows, 1):
        if len(row) != width:
            raise RecordingError(f"{path}: row {at}: expected {width} cells, got {len(row)}")
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _read_parquet(path: Path) -> dict[str, Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtra.for_extra("parquet", "pyarrow") from error
    try:
        columns: dict[str, Any] = parquet.read_table(path).to_pydict()
    except ArrowException as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from error
    return columns
