from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
# three classes
version: 1
name: flowers
deadline: 50ms
max_deadline: 1s
tiers:
  - name: small
    kind: onnx
    model: small.onnx  # the cheap one
    sha256: {small}
  - {{name: large, kind: onnx, model: large.onnx, sha256: "{large}"}}
classes: [a, b, c]
escalation:
  thresholds: [0.8]
"""


def model(columns: int, seed: int) -> bytes:
    """Make a softmax over a linear layer: 4 inputs, so many columns."""
    weights = np.random.default_rng(seed).normal(size=(4, columns)).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODE", "MODELS", "DEADLINE", "CACHE_BYTES", "CORES"):
        monkeypatch.delenv(f"CASCADE_{name}", raising=False)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Lay out a valid policy with two models, digests and all."""
    digests = {}
    for seed, name in enumerate(("small", "large")):
        content = model(3, seed)
        (tmp_path / f"{name}.onnx").write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.format(**digests), encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Change a file, and be sure that it was changed."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
