"""Run a tier's model under given settings, as a lane would: the same session, the same reading."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.bundle import data_files, resolve_model, verify_model
from cascade.confidence import OutputFault
from cascade.errors import InputValueError
from cascade.optimize.lazily import require_onnx
from cascade.optimize.profile import law, times
from cascade.policy import OnnxSpec
from cascade.policy.walk import nearest
from cascade.tiers.onnx import OnnxTier

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from cascade.bundle import Profile
    from cascade.optimize.data import Data
    from cascade.policy import Policy

    Array = npt.NDArray[Any]

__all__ = ["Running", "load_models", "open_tier", "tier_named", "whole_model"]

_SIZES = (1, 2, 4, 8)
_SECONDS = 0.1  # of measuring per size


@attrs.define(eq=False)
class Running:
    """An opened tier and how to run it; ``model`` is the file's bytes, ``spec`` its settings."""

    spec: OnnxSpec
    model: bytes
    tier: Any
    labels: tuple[Any, ...] | None

    def single(self, data: Data) -> Callable[[], object]:
        """Return a call that answers the next row of ``data``, round and round: run and read.

        It raises InputValueError where a row has no answer.
        """
        run, read, count = self.tier.run, self.tier.read, 0
        jobs = [SimpleNamespace(row=self.row(data, i)) for i in range(min(data.n, 256))]

        def call() -> object:
            nonlocal count
            count += 1
            job = jobs[count % len(jobs)]
            try:
                return read(run(job))
            except OutputFault as fault:
                raise InputValueError(self._no_answer(job.row, fault)) from fault

        return call

    def _no_answer(self, row: Any, fault: OutputFault) -> str:
        columns = row.values() if isinstance(row, dict) else (row,)
        lacking = any(np.isnan(c).any() for c in map(np.asarray, columns) if c.dtype.kind == "f")
        which = "a row of DATA that holds NaN" if lacking else "a row of DATA"
        return f"tier {self.spec.name!r} has no answer to {which} ({fault}): leave such rows out"

    def batch(self, data: Data, size: int) -> Callable[[], object]:
        """Return a call that answers so many rows at once."""
        if size == 1:
            return self.single(data)
        rows = self.cast(data.batch(0, size))
        return lambda: self.tier.read_rows(self.tier.run_rows(rows, size, None), size)

    def law(self, data: Data) -> Profile:
        """Measure what lanes start from: the time of a run by its rows."""
        runs = {size: self.batch(data, size) for size in _SIZES}
        for run in runs.values():
            run()  # the first run of a shape allocates
        return law({size: times(run, _SECONDS) for size, run in runs.items()})

    def row(self, data: Data, i: int) -> Any:
        """Return a row in the dtypes and names that the model takes."""
        rows = self.cast(data.batch(i, 1))
        return {k: v[0] for k, v in rows.items()} if isinstance(rows, dict) else rows[0]

    def cast(self, rows: Any) -> Any:
        """Return rows in the model's dtypes.

        Raises:
            InputValueError: they are not what the model takes.
        """
        inputs = self.tier.inputs
        if not isinstance(rows, dict):
            if len(inputs) > 1:
                names = ", ".join(repr(spec.name) for spec in inputs)
                raise InputValueError(
                    f"tier {self.spec.name!r}: expected the inputs {names}, got X"
                )
            return _fitting(rows, inputs[0], self.spec.name)
        for spec in inputs:
            if spec.name not in rows:
                hint = nearest(spec.name, rows)
                if len(inputs) == 1:
                    hint += "; X for the rows and y for the truth would do"
                raise InputValueError(f"tier {self.spec.name!r}: no input {spec.name!r}; {hint}")
        found = {spec.name: _fitting(rows[spec.name], spec, self.spec.name) for spec in inputs}
        return found if len(inputs) > 1 else found[inputs[0].name]

    def outputs(self, data: Data) -> Array:
        """Return the model's first output, (n, classes), row by row: as single requests get it."""
        return self._outputs(data)[0]

    def _outputs(self, data: Data) -> list[Array]:
        rows = (self.cast(data.batch(i, 1)) for i in range(data.n))
        runs = [self.tier.run_rows(row, 1, None) for row in rows]
        return [np.concatenate(column) for column in zip(*runs, strict=True)]

    def answers(self, data: Data) -> tuple[Array, Array]:
        """Return values and confidences (n,) of rows, as serving reads them, one by one.

        What serving refuses is NaN and the value None, which is no label.
        """
        values, confidences = self.tier.read_rows(self._outputs(data), data.n)
        if confidences is None:
            return np.asarray(values), np.full(data.n, np.nan)
        faulty = np.isnan(confidences)
        if faulty.any():
            values = np.asarray(values, dtype=object)
            values[faulty] = None
        return np.asarray(values), np.asarray(confidences)

    def accuracy(self, values: Array, truth: Array | None) -> float | None:
        """Return the share of the model's own answers (n,) that are right; None without truth.

        Raises:
            InputValueError: next to none is, as where the truth is spelled in other labels. Nothing
                could be lost then, whatever became of the model.
        """
        if truth is None:
            return None
        right = float(np.mean(values == truth))
        if right > 0.5 / len(self.labels or truth):
            return right
        held = "numbers" if truth.dtype.kind in "iufb" else "text"
        asked = f"of {list(self.labels)}" if self.labels else "that the model answers"
        raise InputValueError(
            f"y: tier {self.spec.name!r} is right on {right:.1%} of the rows, far below chance: "
            f"expected the labels {asked}, got {held} that are other ones, or rows in another order"
        )


def _fitting(rows: Any, spec: Any, tier: str) -> Any:
    if spec.dtype == "text":
        return list(map(str, rows))
    array = np.asarray(rows)
    want = tuple(spec.shape)
    fits = array.ndim - 1 == len(want) and all(
        axis in {None, own} for axis, own in zip(want, array.shape[1:], strict=False)
    )
    if not fits or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        shape = "×".join(str(axis or "any") for axis in ("n", *want))
        got = "×".join(map(str, array.shape))
        raise InputValueError(
            f"tier {tier!r}: input {spec.name!r}: expected {spec.dtype} of {shape}, "
            f"got {array.dtype} of {got}"
        )
    return np.ascontiguousarray(array, dtype=spec.dtype)


def open_tier(spec: OnnxSpec, model: bytes, policy: Policy, **settings: Any) -> Running:
    """Open a model under a tier's settings, some of them changed.

    Raises:
        PolicyError: a setting cannot be had, such as a provider that is absent.
        ModelIntegrityError: the bytes are not a model.
    """
    given: Any = spec
    changed = attrs.evolve(given, **settings)
    labels = spec.classes or policy.classes
    tier = OnnxTier(changed, lambda: model, labels, resolve_model(policy, spec))
    tier.open()
    return Running(changed, model, tier, labels)


def load_models(policy: Policy) -> dict[str, tuple[OnnxSpec, bytes]]:
    """Return spec and bytes of every ONNX tier, by name.

    Raises:
        ModelIntegrityError: a file is missing, or is not the one that the policy names.
    """
    return {
        spec.name: (spec, verify_model(resolve_model(policy, spec), spec))
        for spec in policy.tiers
        if isinstance(spec, OnnxSpec)
    }


def whole_model(policy: Policy, spec: OnnxSpec, model: bytes) -> bytes:
    """Return a model with the tensors inside that it keeps in files of their own.

    Raises:
        InputValueError: it is too large for one file.
        MissingExtra: the extra ``quantize`` is not installed.
    """
    path = resolve_model(policy, spec)
    if not data_files(model, path):
        return model
    onnx = require_onnx()
    loaded = onnx.load_from_string(model)
    onnx.external_data_helper.load_external_data_for_model(loaded, str(path.parent))
    try:
        return bytes(loaded.SerializeToString(deterministic=True))
    except ValueError as error:  # protobuf ends at 2 GB
        raise InputValueError(f"tier {spec.name!r}: too large to be changed: {error}") from error


def tier_named(policy: Policy, name: str) -> OnnxSpec:
    """Return the ONNX tier of that name.

    Raises:
        InputValueError: there is none; the message has the nearest name.
    """
    for spec in policy.tiers:
        if spec.name == name and isinstance(spec, OnnxSpec):
            return spec
        if spec.name == name:
            raise InputValueError(f"tier {name!r} is {spec.kind}: only ONNX models can be changed")
    raise InputValueError(f"no tier {name!r}; {nearest(name, [s.name for s in policy.tiers])}")
