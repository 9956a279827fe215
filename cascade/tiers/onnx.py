"""ONNX tiers: one shared session, only the needed outputs fetched, settings compiled in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from cascade.confidence import OutputFault, row_reader, rows_reader, tolerance_for
from cascade.cores import find_cores
from cascade.errors import ModelIntegrityError, PolicyError
from cascade.protocols import BoundTier, InputSpec
from cascade.tiers.buffers import LARGEST, bound_run
from cascade.tiers.columns import object_column, plain
from cascade.tiers.forked import keep
from cascade.tiers.python import each
from cascade.tiers.sessions import shared_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from cascade.confidence import RowReader
    from cascade.policy.settings import OnnxSpec, OutputSettings
    from cascade.protocols import Context, Rows

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
_MATRIX = ("probabilities", "logits", "sigmoid")


class OnnxTier(BoundTier):
    """An ONNX model as the lanes run it.

    ``load`` returns the model's verified bytes; external data is looked for beside ``path``. It
    has no more threads than ``cores`` (default: those that this process may use). Opening it raises
    ModelIntegrityError when the file cannot be read as a model, and PolicyError when its outputs
    are not what the policy says.
    """

    silent = True  # its digest is checked at load
    can_stop = True  # between two of its nodes

    def __init__(
        self,
        spec: OnnxSpec,
        load: Callable[[], bytes],
        classes: Sequence[Any] | None,
        path: Path | None = None,
        cores: int | None = None,
    ) -> None:
        self.name = spec.name
        self.inputs: tuple[InputSpec, ...] = ()
        self._spec = spec
        self._load = load
        self._classes = classes
        self._path = path
        self._cores = cores
        self._session: ort.InferenceSession | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as what it is made from; sessions stay where they are."""
        return OnnxTier, (self._spec, self._load, self._classes, self._path, self._cores)

    def open(self) -> None:
        """Make the session and compile the readers of its outputs."""
        if self._session is not None:
            return
        try:
            given, cores = self._spec, self._cores or find_cores().usable
            threads = min(given.threads, cores)
            session = shared_session(
                self._load(), threads, self._path, provider=given.provider,
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
        self._compile(session)
        self._session = session

    def close(self) -> None:
        """Let go of the session."""
        self._session = None
        self.run = self._run_session = _closed  # type: ignore[method-assign, assignment]

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

    def _compile(self, session: ort.InferenceSession) -> None:
        outputs = {node.name: node for node in session.get_outputs()}
        settings = self._spec.outputs
        kind = self.kind = settings.kind if settings is not None else _recognise(outputs)
        self._names = self._fetched(kind, settings, outputs)
        self._run_session = session.run
        self.run = self._one_array() if self._plain_input() else self._one_feed  # type: ignore[method-assign, assignment]
        if kind not in _MATRIX:
            self.read, self.read_rows = self._read_value, self._read_values  # type: ignore[method-assign]
            self.read_stoppable = self._read_value  # type: ignore[method-assign]
            return
        node = outputs[self._names[0]]
        self._check_classes(kind, node)
        self.classes = self._labels(kind, node)
        half = node.type == "tensor(float16)"
        tolerance = tolerance_for("float16" if half else "float32")
        score = self._spec.confidence.score
        if score == "supplied":
            raise PolicyError(
                self._say(f"score 'supplied' needs a confidence output, kind is {kind}")
            )
        score = "max_probability" if score == "auto" else score
        temperature = self._spec.confidence.temperature
        one = row_reader(kind, score, temperature, self._classes, tolerance)
        self.read = self.read_stoppable = _matrix_read(one)  # type: ignore[method-assign, assignment]
        if self._can_bind(node):
            dtype = _DTYPES[node.type]
            self.read = one  # type: ignore[method-assign, assignment]
            self.run = bound_run(session, self.inputs[0], node.name, node.shape[1], dtype)  # type: ignore[method-assign, assignment]
        self._rows = rows_reader(kind, score, temperature, self._classes, tolerance)

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

    def _fetched(
        self, kind: str, settings: OutputSettings | None, outputs: dict[str, Any]
    ) -> list[str]:
        name = None if settings is None else settings.name
        confidence = None if settings is None else settings.confidence
        for wanted in (name, confidence):
            if wanted is not None and wanted not in outputs:
                known = ", ".join(map(repr, outputs))
                raise PolicyError(self._say(f"no output {wanted!r}; the model has {known}"))
        if name is None:
            name = _default_output(kind, outputs)
        if name is None:
            raise PolicyError(self._say(f"no output that could be {kind}; name one in outputs"))
        return [name] if confidence is None else [name, confidence]

    def _check_classes(self, kind: str, node: Any) -> None:
        columns = node.shape[1] if len(node.shape) > 1 else 1
        want = 1 if kind == "sigmoid" else len(self._classes) if self._classes else None
        if isinstance(columns, int) and want is not None and columns != want:
            what = f"{columns} columns in output {node.name!r}"
            raise PolicyError(self._say(f"{what}, expected {want} ({kind}, {self._classes!r})"))
        if kind == "sigmoid" and self._classes is not None and len(self._classes) != 2:
            raise PolicyError(self._say(f"sigmoid needs two classes, got {self._classes!r}"))

    def _labels(self, kind: str, node: Any) -> Sequence[Any] | None:
        """Return the classes: those of the policy, else the numbers of the columns."""
        if self._classes is not None:
            return self._classes
        columns = 2 if kind == "sigmoid" else node.shape[-1]
        return range(columns) if isinstance(columns, int) else None

    def _say(self, what: str) -> str:
        return f"tier {self.name!r}: {self._spec.model}: {what}"

    # -- one row ---------------------------------------------------------------------------------

    def run(self, job: Any) -> Any:  # noqa: D102  replaced when opened
        return _closed(job)

    def _one_array(self) -> Callable[[Any], Any]:
        run, names, name = self._run_session, self._names, self.inputs[0].name
        return lambda job: run(names, {name: job.row[None]})

    def _one_feed(self, job: Any) -> Any:
        return self._run_session(self._names, self._feed(job.row, 1))

    def read(self, raw: Any) -> tuple[Any, float | None]:
        """Return the label and its confidence; replaced when opened."""
        return self._read_value(raw)

    def run_stoppable(self, job: Any) -> Any:
        """Run one row so that ``job.stop_with`` can end it; 2 µs more than ``run``."""
        return self._run_session(self._names, self._feed(job.row, 1), _options(job))

    def read_stoppable(self, raw: Any) -> tuple[Any, float | None]:
        """Read what ``run_stoppable`` returned; replaced when opened."""
        return self._read_value(raw)

    def remarks(self, raw: Any, i: int = 0) -> tuple[bool, float | None]:  # noqa: ARG002
        """ONNX models report neither version nor cost; their digest is checked at load."""
        return True, None

    def _read_value(self, raw: Any) -> tuple[Any, float | None]:
        values, confidences = self._read_values(raw, 1)
        if confidences is None:
            return plain(values[0]), None
        confidence = float(confidences[0])
        if not 0.0 <= confidence <= 1.0:
            msg = "confidence output outside [0, 1]"
            raise OutputFault(msg)
        return plain(values[0]), confidence

    # -- many rows -------------------------------------------------------------------------------

    def run_rows(self, rows: Any, n: int, context: Context) -> Any:
        """Run the model once for n rows, or n times where its batch axis is fixed at 1."""
        run, names, options = self._run_session, self._names, _options(context)
        if self.batches:
            return run(names, self._feed(rows, n, batch=True), options)
        runs = [run(names, self._feed(row, 1), options) for row in each(rows)]
        return [np.concatenate(column) for column in zip(*runs, strict=True)]

    def _feed(self, rows: Any, n: int, *, batch: bool = False) -> dict[str, Any]:
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
        if len(raw) == 1:
            return column, None
        confidences = np.asarray(raw[1], dtype=np.float64).reshape(n, -1)
        top = confidences.max(axis=1)
        return column, np.where((top >= 0.0) & (top <= 1.0), top, np.nan)


def _matrix_read(one: RowReader) -> Callable[[Any], tuple[Any, float]]:
    def read(raw: Any) -> tuple[Any, float]:
        rows = raw[0].tolist()
        if len(rows) != 1:
            msg = f"outputs: expected 1 row, got {len(rows)}"
            raise OutputFault(msg)
        row = rows[0]
        return one(row if type(row) is list else [row])

    return read


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


def _is_float(node: Any) -> bool:
    return node.type in {"tensor(float)", "tensor(double)", "tensor(float16)"}


def _recognise(outputs: dict[str, Any]) -> str:
    """Say what a model's outputs are when the policy does not: skl2onnx's pair, or one matrix."""
    matrix = [node for node in outputs.values() if _is_float(node) and len(node.shape) == 2]
    if not matrix:
        return "label"
    return "logits" if "logit" in matrix[0].name.lower() else "probabilities"


def _default_output(kind: str, outputs: dict[str, Any]) -> str | None:
    for name, node in outputs.items():
        if kind in _MATRIX and not _is_float(node):
            continue
        if kind == "label" and _is_float(node):
            continue
        return name
    return None


def matrix_of(raw: Any) -> npt.NDArray[Any]:
    """Return the first fetched output, as the golden check compares it."""
    return np.asarray(raw[0])
