import pytest

from cascade import PolicyError
from cascade.cli.edits import Edits

POLICY = """\
version: 1  # of the format
name: t
deadline: 1s
tiers:
  - name: a
    kind: onnx
    model: a.onnx  # ours
    batch: {max_size: 4}
  - {name: b, kind: onnx, model: b.onnx, confidence: margin}
escalation: {thresholds: [0.5]}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def test_settings_change_and_comments_stay(path):
    edits = Edits(path)
    edits.tier(0, {"threads": 2, "batch": {"max_size": 8}, "spinning": True})
    edits.tier(1, {"confidence": {"score": "margin", "temperature": 0.5}})
    assert edits.text == POLICY.replace(
        "model: a.onnx  # ours", "model: a.onnx  # ours\n    spinning: true\n    threads: 2"
    ).replace("max_size: 4", "max_size: 8").replace(
        "confidence: margin", "confidence: {score: margin, temperature: 0.5}"
    )
    assert path.read_text() == POLICY  # not before it is saved
    edits.save()
    assert path.read_text() == edits.text
    assert [p.name for p in path.parent.iterdir()] == ["policy.yaml"]


def test_the_difference_shows_the_lines_that_change(path):
    edits = Edits(path)
    edits.tier(0, {"batch": {"max_size": 8}})
    changed = [line for line in edits.difference() if line[0] in "+-"]
    assert changed[2:] == ["-    batch: {max_size: 4}", "+    batch: {max_size: 8}"]


def test_what_is_not_a_policy_is_not_written(path):
    edits = Edits(path)
    edits.tier(0, {"threads": 0})
    with pytest.raises(PolicyError, match="threads"):
        edits.save()
    assert path.read_text() == POLICY
    assert [p.name for p in path.parent.iterdir()] == ["policy.yaml"]
