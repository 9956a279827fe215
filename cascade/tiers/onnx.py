"""ONNX tiers: one shared session, only the needed outputs fetched, settings compiled in."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from cascade.confidence import OutputFault, row_reader, rows_reader, tolerance_for
from cascade.cores import find_cores
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.protocols import BoundTier, InputSpec
from cascade.tiers.buffers import LARGEST, bound_run
from cascade.tiers.columns import marked, object_column, plain
from cascade.tiers.forked import keep
from cascade.tiers.graph import made_by
from cascade.tiers.outputs import MATRIX, NO_CLASS, choose
from cascade.tiers.python import each
from cascade.tiers.sessions import CPU, identity_of, shared_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from cascade.confidence import RowReader, RowsReader
    from cascade.policy.settings import OnnxSpec
    from cascade.protocols import Context, Rows
    from cascade.tiers.outputs import Chosen
    from cascade.tiers.sessions import Identity

__all__ = ["OnnxTier"]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "text",
}
_FATAL = 4  # of onnxruntime's levels, the highest
_PIECE = 256  # rows of a run at least, where a batch is run in pieces
_WORK = 2**26  # rows times bytes of the model that a run takes on: some milliseconds of one core


class OnnxTier(BoundTier):
    """An ONNX model as the lanes run it.

    ``load`` returns the model's verified bytes; external data is looked for beside ``path``.
    ``scored`` says that a confidence has to come with the answer, as below the top tier. It has no
    more threads than ``cores`` (default: those that this process may use). Opening it raises
    ModelIntegrityError when the file cannot be read as a model, and PolicyError when its outputs
    are not what the policy says, or nothing that could be an answer.
    """

    silent = True  # its digest is checked at load
    can_stop = True  # between two of its nodes

    def __init__(
        self,
        spec: OnnxSpec,
        load: Callable[[], bytes],
        classes: Sequence[Any] | None,
        path: Path | None = None,
        scored: bool = False,  # noqa: FBT001, FBT002
        cores: int | None = None,
    ) -> None:
        self.name = spec.name
        self.inputs: tuple[InputSpec, ...] = ()
        self._spec = spec
        self._load = load
        self.classes = self._classes = classes
        self._path = path
        self._scored = scored
        self._cores = cores
        self._piece = sys.maxsize  # rows of a run at least: all
        self._session: ort.InferenceSession | None = None
        self._identity: Identity | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as what it is made from; sessions stay where they are."""
        made_from = self._spec, self._load, self._classes, self._path, self._scored, self._cores
        return OnnxTier, made_from

    def open(self) -> None:
        """Make the session and compile the readers of its outputs."""
        if self._session is not None:
            return
        try:
            given, cores = self._spec, self._cores or find_cores().usable
            threads = min(given.threads, cores)
            model = self._load()
            identity = identity_of(model, self._path)
            session = shared_session(
                model, threads, self._path, identity=identity, provider=given.provider,
                spinning=given.spinning, optimization=given.optimization,
            )  # fmt: skip
        except PolicyError as error:
            raise PolicyError(f"tier {self.name!r}: {error}") from error
        except ModelIntegrityError:
            raise
        except Exception as error:  # ORT raises six unrelated types, UnicodeDecodeError among them
            msg = f"tier {self.name!r}: {self._spec.model} is not a model that can be loaded"
            raise ModelIntegrityError(msg, tier=self.name) from error
        self.inputs = tuple(self._input(node) for node in session.get_inputs())
        self.batches = all(node.shape[:1] != [1] for node in session.get_inputs())
        if session.get_providers() == [CPU]:  # others like large runs
            size = len(model) + sum(file[-1] for file in identity[1])
            self._piece = max(_PIECE, _WORK // size)
        self._compile(session, model)
        self._session, self._identity = session, identity

    def identify(self) -> Identity:
        """Name the model's bytes: those that were loaded, or else those of its file."""
        if self._identity is None:
            self._identity = identity_of(self._load(), self._path)
        return self._identity

    def close(self) -> None:
        """Let go of the session; who has the tier in hand can still run it."""
        self._session = None

    def reset(self) -> None:
        """Leave the session to the parent: destroying it in a forked child can crash or hang."""
        if self._session is not None:
            keep(self._session)
            self._session = None

    # -- compiling -------------------------------------------------------------------------------

    def _input(self, node: Any) -> InputSpec:
        dtype = _DTYPES.get(node.type)
        if dtype is None or not node.shape:
            raise PolicyError(
                self._say(f"input {node.name!r} of type {node.type} is not supported")
            )
        axes = tuple(
            axis if isinstance(axis, int) and axis > 0 else None for axis in node.shape[1:]
        )
        if dtype == "text" and any(axis not in {1, None} for axis in axes):
            raise PolicyError(self._say(f"input {node.name!r}: rows of several strings"))
        return InputSpec(node.name, dtype, axes)

    def _compile(self, session: ort.InferenceSession, model: bytes) -> None:
        nodes, classes = session.get_outputs(), self._classes
        try:
            chosen = choose(nodes, self._spec.outputs, classes, scored=self._scored)
        except PolicyError as error:
            raise PolicyError(self._say(str(error))) from None
        self.kind, self._names, self._labels = chosen.kind, chosen.names, chosen.labels
        self._run_session = session.run
        self.run = self._one_array() if self._plain_input() else self._one_feed  # type: ignore[method-assign, assignment]
        if self.kind not in MATRIX:
            self.read, self.read_rows = self._read_value, self._read_values  # type: ignore[method-assign]
            self.read_stoppable = self._read_value  # type: ignore[method-assign]
            return
        columns = 2 if self.kind == "sigmoid" else chosen.columns
        if self._classes is None and columns is not None:  # their numbers
            self.classes = range(columns)
        score = self._spec.confidence.score
        if score == "supplied":
            raise PolicyError(
                self._say(f"score 'supplied' needs a confidence output, kind is {self.kind}")
            )
        score = "max_probability" if score == "auto" else score
        tolerance = tolerance_for(_precision(chosen.output, model))
        self._compile_matrix(session, chosen, score, tolerance)

    def _compile_matrix(
        self, session: ort.InferenceSession, chosen: Chosen, score: str, tolerance: float
    ) -> None:
        kind, node, temperature = chosen.kind, chosen.output, self._spec.confidence.temperature
        one = row_reader(kind, score, temperature, self._classes, tolerance)
        rows = rows_reader(kind, score, temperature, self._classes, tolerance)
        if chosen.columns is None:  # only a run can show how many there are
            one, rows = _row_of(one, chosen), _rows_of(rows, chosen)
        self._rows = rows
        self.read = self.read_stoppable = _matrix_read(one)  # type: ignore[method-assign, assignment]
        if chosen.columns is not None and self._can_bind(node):
            dtype = _DTYPES[node.type]
            self.read = one  # type: ignore[method-assign, assignment]
            self.run = bound_run(session, self.inputs[0], node.name, chosen.columns, dtype)  # type: ignore[method-assign, assignment]

    def _can_bind(self, output: Any) -> bool:
        """Whether one row goes through fixed buffers: one small dense input, one fixed output."""
        spec = self.inputs[0]
        if not self._plain_input() or None in spec.shape or not spec.shape:
            return False
        fixed = len(output.shape) == 2 and isinstance(output.shape[1], int)
        small = (
            np.dtype(spec.dtype).itemsize * math.prod(size or 1 for size in spec.shape) <= LARGEST
        )
        return fixed and small and output.type in {"tensor(float)", "tensor(double)"}

    def _plain_input(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].dtype != "text"

    def _say(self, what: str) -> str:
        return f"tier {self.name!r}: {self._spec.model}: {what}"

    # -- one row ---------------------------------------------------------------------------------

    def run(self, job: Any) -> Any:  # noqa: D102  replaced when opened
        return _closed(job)

    def _one_array(self) -> Callable[[Any], Any]:
        run, names, name = self._run_session, self._names, self.inputs[0].name
        return lambda job: run(names, {name: job.row[None]})

    def _one_feed(self, job: Any) -> Any:
        return self._run_session(self._names, self.feed(job.row, 1))

    def read(self, raw: Any) -> tuple[Any, float | None]:
        """Return the label and its confidence; replaced when opened."""
        return self._read_value(raw)

    def attempt(self, job: Any) -> Any:
        """Run one row that the model may not take; the runtime tells nobody on stderr."""
        options = ort.RunOptions()
        options.log_severity_level = _FATAL
        return self._run_session(self._names, self.feed(job.row, 1), options)

    def run_stoppable(self, job: Any) -> Any:
        """Run one row so that ``job.stop_with`` can end it; 2 µs more than ``run``."""
        return self._run_session(self._names, self.feed(job.row, 1), _options(job))

    def read_stoppable(self, raw: Any) -> tuple[Any, float | None]:
        """Read what ``run_stoppable`` returned; replaced when opened."""
        return self._read_value(raw)

    def remarks(self, raw: Any, i: int = 0) -> tuple[bool, float | None]:  # noqa: ARG002
        """ONNX models report neither version nor cost; their digest is checked at load."""
        return True, None

    def _read_value(self, raw: Any) -> tuple[Any, float | None]:
        values, confidences = self._read_values(raw, 1)
        value = values[0]
        if value is NO_CLASS:
            raise OutputFault(f"output {self._names[0]!r}: no label of the classes")
        value = plain(value)
        if confidences is None:
            return value, None
        confidence = float(confidences[0])
        if not 0.0 <= confidence <= 1.0:
            msg = "confidence output outside [0, 1]"
            raise OutputFault(msg)
        return value, confidence

    # -- many rows -------------------------------------------------------------------------------

    def run_rows(self, rows: Any, n: int, context: Context) -> Any:
        """Run the model once for n rows, or n times where its batch axis is fixed at 1.

        Many rows of a large model are run in pieces, the same ones each time: what it computes on
        the way then fits the caches and the memory.
        """
        run, names, options = self._run_session, self._names, _options(context)
        if not self.batches:
            feeds = [self.feed(row, 1) for row in each(rows)]
        else:
            whole, pieces = self.feed(rows, n, batch=True), n // self._piece
            if pieces < 2:
                return run(names, whole, options)
            cuts = pairwise([n * i // pieces for i in range(pieces + 1)])
            feeds = [{name: column[i:j] for name, column in whole.items()} for i, j in cuts]
        runs = [run(names, feed, options) for feed in feeds]
        return [np.concatenate(column) for column in zip(*runs, strict=True)]

    def feed(self, rows: Any, n: int, *, batch: bool = False) -> dict[str, Any]:
        """Return a row, or a ``batch`` of n, as the session takes it: arrays by input name."""
        if len(self.inputs) == 1:
            return {self.inputs[0].name: self._column(self.inputs[0], rows, n, batch=batch)}
        return {s.name: self._column(s, rows[s.name], n, batch=batch) for s in self.inputs}

    @staticmethod
    def _column(spec: InputSpec, rows: Any, n: int, *, batch: bool) -> Any:
        if spec.dtype == "text":
            texts = np.array(rows if batch else [rows], dtype=object)
            return texts.reshape(n, *(1 for _ in spec.shape))
        return rows if batch else rows[None]

    def read_rows(self, raw: Any, n: int) -> Rows:
        """Return labels and confidences as columns."""
        matrix = raw[0]
        if len(matrix) != n:
            msg = f"outputs: expected {n} rows, got {len(matrix)}"
            raise OutputFault(msg)
        return self._rows(matrix.reshape(n, -1))

    def _read_values(self, raw: Any, n: int) -> Rows:
        values = raw[0]
        if len(values) != n:
            msg = f"outputs: expected {n} rows, got {len(values)}"
            raise OutputFault(msg)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        column = object_column(list(values) if values.ndim > 1 else values)
        if self._labels is not None and values.ndim == 1:
            label = self._labels.get
            column = object_column([label(value, NO_CLASS) for value in values.tolist()])
        if len(raw) == 1:
            return column, None
        confidences = np.asarray(raw[1], dtype=np.float64).reshape(n, -1)
        top = confidences.max(axis=1)
        return column, marked(column, np.where((top >= 0.0) & (top <= 1.0), top, np.nan))


def _matrix_read(one: RowReader) -> Callable[[Any], tuple[Any, float]]:
    def read(raw: Any) -> tuple[Any, float]:
        rows = raw[0].tolist()
        if len(rows) != 1:
            msg = f"outputs: expected 1 row, got {len(rows)}"
            raise OutputFault(msg)
        row = rows[0]
        return one(row if type(row) is list else [row])

    return read


def _row_of(one: RowReader, chosen: Chosen) -> RowReader:
    """Look at how many columns a row has before it is read."""

    def read(row: list[float]) -> tuple[Any, float]:
        _check_columns(len(row), chosen)
        return one(row)

    return read


def _rows_of(rows: RowsReader, chosen: Chosen) -> RowsReader:
    def read(matrix: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        _check_columns(matrix.shape[1], chosen)
        return rows(matrix)

    return read


def _check_columns(columns: int, chosen: Chosen) -> None:
    wanted = chosen.wanted
    if columns != wanted if wanted is not None else columns < 2:
        expected = "two or more" if wanted is None else wanted
        msg = f"output {chosen.output.name!r}: expected {expected} columns, got {columns}"
        raise OutputFault(msg)


def _precision(output: Any, model: bytes) -> str:
    """Return the dtype that an output's numbers were made in."""
    if b"DequantizeLinear" in model and made_by(model, output.name) == "DequantizeLinear":
        return "int8"
    return "float16" if output.type == "tensor(float16)" else "float32"


def _options(context: Any) -> ort.RunOptions | None:
    """Return options of this run's own, if it may be stopped: a stopped one stays poisoned."""
    say_how = getattr(context, "stop_with", None)
    if say_how is None:
        return None
    options = ort.RunOptions()

    def stop() -> None:
        options.terminate = True

    say_how(stop)
    return options


def _closed(*_: Any) -> Any:  # stands in for a run
    msg = "the tier is not open"
    raise RuntimeError(msg)


def matrix_of(raw: Any) -> npt.NDArray[Any]:
    """Return the first fetched output, as the golden check compares it."""
    return np.asarray(raw[0])
