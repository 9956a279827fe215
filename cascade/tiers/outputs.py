"""A model's outputs: recognised, chosen and held against the policy, when the model is opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from cascade.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cascade.policy.settings import OutputSettings

__all__ = ["MATRIX", "NO_CLASS", "Chosen", "choose"]

NO_CLASS = math.nan
"""Stands for a label that none of the classes is, and can be no answer."""

MATRIX = ("probabilities", "logits", "sigmoid")
_FLOATS = {"tensor(float)", "tensor(double)", "tensor(float16)"}
_ZIPMAP = (
    "is a ZipMap (a dict per row), which is not read; export the model with "
    "options={'zipmap': False} (skl2onnx) or zipmap=False (onnxmltools)"
)


@attrs.frozen
class Chosen:
    """What is fetched of a model: the kind, the output, and the one that holds a confidence.

    ``columns`` is how many a row of a matrix has, None where only a run can show it; ``wanted`` is
    how many it must have then, None for two or more. ``labels`` says which class a label is.
    """

    kind: str
    output: Any
    confidence: Any = None
    columns: int | None = None
    wanted: int | None = None
    labels: Mapping[Any, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The outputs to fetch."""
        return [node.name for node in (self.output, self.confidence) if node is not None]


def choose(
    nodes: Sequence[Any], settings: OutputSettings | None, classes: Sequence[Any] | None,
    *, scored: bool = False,
) -> Chosen:  # fmt: skip
    """Choose the outputs to fetch; ``scored``: a confidence has to come with the answer.

    Raises:
        PolicyError: the model has no such output, or none that could be an answer.
    """
    outputs = {node.name: node for node in nodes}
    kind = _recognise(outputs) if settings is None else settings.kind
    name = None if settings is None else settings.name
    held = None if settings is None else settings.confidence
    for named in (name, held):
        if named is not None and named not in outputs:
            known = ", ".join(map(repr, outputs))
            raise PolicyError(f"no output {named!r}; the model has {known}")
    if held is not None and not _is_float(outputs[held]):
        raise PolicyError(f"output {held!r} of type {outputs[held].type} is no confidence")
    answers = {key: node for key, node in outputs.items() if key != held or kind in MATRIX}
    node = _default(kind, answers) if name is None else outputs[name]
    if node is None or not _suits(kind, node):
        hint = "; name one in outputs" if name is None else f", which {name!r} is not"
        zipped = None if kind == "value" else _zipmap(outputs)
        why = hint if zipped is None else f": {zipped.name!r} {_ZIPMAP}"
        raise PolicyError(f"no output that could be {kind}{why}")
    if kind in MATRIX:
        return _matrix(kind, node, classes)
    if scored and held is None:
        raise PolicyError(_unscored(kind, node, outputs))
    labels = _labels(node, classes) if kind == "label" and classes else None
    return Chosen(kind, node, None if held is None else outputs[held], labels=labels)


def _recognise(outputs: dict[str, Any]) -> str:
    """Say what a model's outputs are when the policy does not: skl2onnx's pair, or one matrix."""
    node = _wide(outputs)
    if node is not None:
        return "logits" if "logit" in node.name.lower() else "probabilities"
    numbers = next((node for node in outputs.values() if _is_float(node)), None)
    if numbers is not None and len(numbers.shape) < 3 and all(map(_is_float, outputs.values())):
        raise PolicyError(_one_number(numbers))
    return "label"


def _wide(outputs: dict[str, Any]) -> Any:
    """Return the first output that has several numbers for each row, as far as the model says."""
    floats = [node for node in outputs.values() if _is_float(node)]
    known = (node for node in floats if len(node.shape) == 2 and node.shape[1] != 1)
    return next(known, None) or next((node for node in floats if not node.shape), None)


def _default(kind: str, outputs: dict[str, Any]) -> Any:
    wide = _wide(outputs) if kind in {"probabilities", "logits"} else None
    suited = (node for node in outputs.values() if _suits(kind, node))
    if kind == "label":
        suited = (node for node in suited if not _is_float(node))
    return wide or next(suited, None)


def _suits(kind: str, node: Any) -> bool:
    return _is_float(node) if kind in MATRIX else node.type.startswith("tensor(")


def _is_float(node: Any) -> bool:
    return node.type in _FLOATS


def _zipmap(outputs: dict[str, Any]) -> Any:
    return next((node for node in outputs.values() if node.type.startswith("seq(map(")), None)


def _matrix(kind: str, node: Any, classes: Sequence[Any] | None) -> Chosen:
    if len(node.shape) > 2:
        found = f"output {node.name!r} has {len(node.shape)} axes"
        raise PolicyError(f"{found}, expected two: rows, classes")
    axis = node.shape[1] if len(node.shape) == 2 else 1 if node.shape else None
    columns = axis if isinstance(axis, int) and axis > 0 else None
    wanted = 1 if kind == "sigmoid" else len(classes) if classes else None
    if columns == 1 and kind != "sigmoid":
        raise PolicyError(_one_number(node))
    if columns is not None and wanted is not None and columns != wanted:
        what = f"{columns} columns in output {node.name!r}"
        raise PolicyError(f"{what}, expected {wanted} ({kind}, {classes!r})")
    if kind == "sigmoid" and classes is not None and len(classes) != 2:
        raise PolicyError(f"sigmoid needs two classes, got {classes!r}")
    return Chosen(kind, node, columns=columns, wanted=wanted)


def _labels(node: Any, classes: Sequence[Any]) -> Mapping[Any, Any]:
    """Say which class a label is: itself, or that at its place, as an ArgMax gives it."""
    texts = node.type == "tensor(string)"
    if texts != any(isinstance(label, str) for label in classes):
        if texts or not all(isinstance(label, str) for label in classes):
            raise PolicyError(f"output {node.name!r} of {node.type} can be no label of {classes!r}")
        return dict(enumerate(classes))
    return {label: label for label in classes}


def _one_number(node: Any) -> str:
    return (
        f"output {node.name!r} is one number for each row; say what it is: outputs: sigmoid (the "
        "probability of the second of two classes; end a model that gives its logit in a Sigmoid), "
        "or outputs: {kind: value} (a number, which needs confidence: below the top tier)"
    )


def _unscored(kind: str, node: Any, outputs: dict[str, Any]) -> str:
    what = f"output {node.name!r} is a {kind} without a confidence, which is needed below the top"
    zipped = _zipmap(outputs)
    if zipped is not None:
        return f"{what}; {zipped.name!r} {_ZIPMAP}"
    return (
        f"{what}; export the probabilities too (rows, classes), or name the output that holds one: "
        f"outputs: {{kind: {kind}, confidence: NAME}}"
    )
