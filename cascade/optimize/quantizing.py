"""Quantise a model: dynamic and static int8, per tensor and per channel, and float16.

What is faster depends on model and machine (dynamic int8 makes many convolutional models several
times slower), so that this only makes the variants; what becomes of them is measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.optimize.lazily import first_line, quiet, require_onnx
from cascade.optimize.slimming import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Feed = dict[str, npt.NDArray[Any]]

__all__ = ["CALIBRATION", "quantized", "why_not_quantize"]

CALIBRATION = 200
"""Rows at most that static quantisation is calibrated on."""

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Gather", "Attention"}
_METHODS = ("MinMax", "Entropy", "Percentile")


def why_not_quantize(model: bytes) -> str | None:
    """Say why a model cannot be quantised; None when it can.

    Raises:
        MissingExtra: the extra ``quantize`` is not installed.
    """
    graph = require_onnx().load_from_string(model).graph
    ops = {node.op_type for node in graph.node}
    if ops & _PRODUCTS:
        return None
    trees = sorted(op for op in ops if op.startswith("TreeEnsemble"))
    if trees:
        return (
            f"it is made of trees ({', '.join(trees)}): comparisons, no matrix product that int8 "
            "could speed up; cascade prune can leave trees out"
        )
    learned = sorted({node.op_type for node in graph.node if node.domain == "ai.onnx.ml"})
    if learned:
        return (
            f"its work is in {', '.join(learned)} of ai.onnx.ml, which have no int8 form; a model "
            "of MatMul, Gemm or Conv can be quantised"
        )
    return f"it has no matrix product to quantise, only {', '.join(sorted(ops))}"


def quantized(model: bytes, feeds: list[Feed]) -> list[Variant]:
    """Return every variant; ``feeds`` are rows by input name to calibrate on, (1, …) each.

    Raises:
        MissingExtra: the extra ``quantize`` is not installed.
    """
    onnx = require_onnx()
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        prepared, problem = _prepared(model, folder)
        made = [
            _made(what, make, prepared, folder / "made.onnx")
            for what, make in _ways(onnx, feeds[:CALIBRATION])
        ]
    note = [] if problem is None else [Variant("shape inference", None, problem)]
    return made + note


def _prepared(model: bytes, folder: Path) -> tuple[Path, str | None]:
    """Infer shapes and fuse, which the quantiser needs; symbolic inference would need sympy."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given, prepared = folder / "given.onnx", folder / "prepared.onnx"
    given.write_bytes(model)
    try:
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
    except Exception as error:  # noqa: BLE001  whatever it stumbles over, the plain model is there
        return given, f"failed, and was left out: {first_line(error)}"
    return prepared, None


def _ways(onnx: Any, feeds: list[Feed]) -> Iterator[tuple[str, Callable[[Path, Path], None]]]:
    from onnxruntime import quantization as q

    narrow = _reduce_range()
    for channels in (False, True):
        suffix = ", per channel" if channels else ""

        def dynamic(source: Path, target: Path, channels: bool = channels) -> None:  # noqa: FBT001
            q.quantize_dynamic(source, target, per_channel=channels, reduce_range=narrow)

        yield f"dynamic int8{suffix}", dynamic
    for method in _METHODS:
        for channels in (False, True):

            def static(
                source: Path,
                target: Path,
                method: str = method,
                channels: bool = channels,  # noqa: FBT001
            ) -> None:
                q.quantize_static(
                    source, target, _reader(feeds), per_channel=channels, reduce_range=narrow,
                    calibrate_method=q.CalibrationMethod[method],
                    op_types_to_quantize=_static_ops(),
                )  # fmt: skip

            yield f"static int8, {method}{', per channel' if channels else ''}", static

    def half(source: Path, target: Path) -> None:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)

    yield "float16", half


def _static_ops() -> list[str]:
    """All that the quantiser knows but what makes probabilities: in steps of 1/255 no sum is 1."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - {"Softmax", "Sigmoid"})


def _made(name: str, make: Callable[[Path, Path], None], source: Path, target: Path) -> Variant:
    target.unlink(missing_ok=True)
    try:
        make(source, target)
        return Variant(name, target.read_bytes())
    except Exception as error:  # noqa: BLE001  one way that fails leaves the others
        return Variant(name, None, f"cannot be made: {first_line(error)}")


def _reader(feeds: list[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._rows = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._rows, None)

    return Reader()


def _reduce_range() -> bool:
    """Whether sums of int8 products could saturate here: x86 without VNNI multiplies in 16 bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx2" in flags and "vnni" not in flags
