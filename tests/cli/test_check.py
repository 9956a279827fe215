from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from cascade import Certificate
from cascade.cli import main
from tests.cli.conftest import edit, model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(path: Path, *arguments: str) -> tuple[int, dict[str, Any], list[str]]:
        status = main(["check", str(path), "--json", *arguments])
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err.splitlines()

    return run


def test_a_valid_policy_and_its_one_pitfall(policy: Path, check: Any) -> None:
    status, said, errors = check(policy)
    assert (status, errors) == (0, [])
    assert set(said) == {"ok", "issues", "warnings"}
    assert said["ok"] is True
    assert said["issues"] == []
    assert said["warnings"] == [
        "the promise is 'none': no certificate stands behind these thresholds"
    ]


def test_the_text_says_the_same(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(policy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warning: the promise is 'none'")
    assert lines[-1] == "ok"


def test_every_problem_of_a_file_has_its_place(policy: Path, check: Any) -> None:
    edit(policy, "deadline: 50ms", "deadlin: 50ms")
    edit(policy, "[0.8]", "[1.8]")
    status, said, errors = check(policy)
    assert status == 2
    assert said["ok"] is False
    assert [(issue["line"], issue["path"]) for issue in said["issues"]] == [
        (4, "deadlin"),
        (14, "escalation.thresholds.0"),
    ]
    assert set(said["issues"][0]) == {"file", "line", "column", "path", "message"}
    assert "did you mean 'deadline'" in errors[0]
    assert all(re.match(rf"{re.escape(str(policy))}:\d+:\d+: ", line) for line in errors)


def test_another_model_than_the_one_named(policy: Path, check: Any) -> None:
    (policy.parent / "small.onnx").write_bytes(model(3, seed=9))
    status, said, errors = check(policy)
    assert status == 1
    (issue,) = said["issues"]
    assert (issue["line"], issue["column"], issue["path"]) == (9, 12, "tiers.0.model")
    assert errors[0].startswith(f"{policy}:9:12: tiers.0.model: ")
    assert check(policy, "--no-models")[0] == 0


def test_a_model_that_is_not_there(policy: Path, check: Any) -> None:
    (policy.parent / "large.onnx").unlink()
    status, said, _ = check(policy)
    assert status == 1
    assert [issue["path"] for issue in said["issues"]] == ["tiers.1.model"]


def test_outputs_that_are_not_what_the_policy_says(policy: Path, check: Any) -> None:
    edit(policy, "[a, b, c]", "[a, b, c, d]")
    status, said, _ = check(policy)
    assert status == 1
    assert [issue["path"] for issue in said["issues"]] == ["tiers.0.model", "tiers.1.model"]
    assert "3 columns" in said["issues"][0]["message"]


def test_a_file_that_is_no_model(policy: Path, check: Any) -> None:
    (policy.parent / "small.onnx").write_bytes(b"not a model")
    edit(policy, re.search(r"    sha256: .*\n", policy.read_text())[0], "")
    status, said, _ = check(policy)
    assert status == 1
    assert "small.onnx" in said["issues"][0]["message"]


def test_a_file_that_is_not_there(tmp_path: Path, check: Any) -> None:
    path = tmp_path / "absent.yaml"
    status, said, errors = check(path)
    assert status == 2
    assert said["ok"] is False
    assert errors == [f"{path}: cannot be read: No such file or directory"]


def test_batching_that_can_do_nothing_is_said(policy: Path, check: Any) -> None:
    edit(policy, "  - name: small\n", "  - name: small\n    batch: {max_size: 8}\n")
    assert not any("batching" in warning for warning in check(policy)[1]["warnings"])
    profile = {"small": {"overhead": 0.0, "per_row": 1e-5}}
    (policy.parent / "profile.json").write_text(json.dumps(profile))
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprofile: profile.json")
    warnings = check(policy)[1]["warnings"]
    assert "tier 'small': a row costs as much in a batch: batching can do nothing" in warnings
    edit(policy, "max_size: 8", "max_size: 1")
    assert any("batches of one row" in warning for warning in check(policy)[1]["warnings"])


def test_a_model_that_could_hardly_be_stopped_is_named(policy: Path, check: Any) -> None:
    profile = {"large": {"overhead": 0.0, "per_row": 0.5}}
    (policy.parent / "profile.json").write_text(json.dumps(profile))
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprofile: profile.json")
    (warning,) = [w for w in check(policy)[1]["warnings"] if "nodes" in w]
    assert warning.startswith("tier 'large': ")
    assert "execution: process" in warning


def test_a_batch_that_helps_is_no_pitfall(policy: Path, check: Any) -> None:
    edit(policy, "  - name: small\n", "  - name: small\n    batch: {max_size: 8}\n")
    profile = {"small": {"overhead": 1e-4, "per_row": 1e-6}}
    (policy.parent / "profile.json").write_text(json.dumps(profile))
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprofile: profile.json")
    assert not any("batching" in warning for warning in check(policy)[1]["warnings"])


def test_a_model_of_one_row_cannot_be_batched(policy: Path, check: Any) -> None:
    model = onnx.load(policy.parent / "small.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    content = model.SerializeToString()
    old = hashlib.sha256((policy.parent / "small.onnx").read_bytes()).hexdigest()
    (policy.parent / "small.onnx").write_bytes(content)
    edit(policy, old, hashlib.sha256(content).hexdigest())
    edit(policy, "  - name: small\n", "  - name: small\n    batch: {max_size: 8}\n")
    assert any("takes one row at a time" in warning for warning in check(policy)[1]["warnings"])


# -- what a router would refuse --------------------------------------------------------------------


def golden(policy: Path, answer: list[float]) -> None:
    array = {"dtype": "float32", "data": [[0.0, 0.0, 0.0, 0.0]]}
    tree = {"small": {"inputs": {"x": array}, "outputs": {"probabilities": [answer]}}}
    (policy.parent / "golden.json").write_text(json.dumps(tree))


def test_golden_inputs_are_asked(policy: Path, check: Any) -> None:
    edit(policy, "deadline: 50ms", "deadline: 50ms\ngolden: golden.json")
    golden(policy, [1 / 3] * 3)
    assert check(policy)[0] == 0
    golden(policy, [0.0, 1.0, 0.0])
    status, said, _ = check(policy)
    assert status == 1
    (issue,) = said["issues"]
    assert (issue["line"], issue["path"]) == (10, "tiers.0.model")
    assert "golden input differently" in issue["message"]
    assert check(policy, "--no-models")[0] == 0


def test_models_without_a_golden_input_are_warned_of(policy: Path, check: Any) -> None:
    edit(policy, "deadline: 50ms", "deadline: 50ms\ngolden: golden.json")
    golden(policy, [1 / 3] * 3)
    warned = [one for one in check(policy)[1]["warnings"] if one.startswith("golden:")]
    (warning,) = warned
    assert warning.startswith("golden: golden.json has no input of tier 'large': what its model")
    (policy.parent / "golden.json").write_text("{}")
    warned = [one for one in check(policy)[1]["warnings"] if one.startswith("golden:")]
    assert [one.split("'")[1] for one in warned] == ["small", "large"]
    (policy.parent / "golden.json").write_text("[]")
    assert not [one for one in check(policy)[1]["warnings"] if one.startswith("golden:")]


def test_files_beside_it_are_read_and_hide_nothing(policy: Path, check: Any) -> None:
    edit(policy, "deadline: 50ms", "deadline: 50ms\ngolden: golden.json\nprofile: profile.json")
    (policy.parent / "profile.json").write_text('{"small": {"overhead": 1}}')
    (policy.parent / "large.onnx").unlink()
    status, said, errors = check(policy)
    assert status == 1
    paths = ["small.per_row", "golden", "tiers.1.model"]
    assert [issue["path"] for issue in said["issues"]] == paths
    assert errors[0].startswith(f"{policy.parent / 'profile.json'}:1:11: small.per_row: ")
    gone = f"{policy.parent / 'golden.json'}: cannot be read: No such file or directory"
    assert errors[1] == f"{policy}:5:9: golden: {gone}"


@pytest.mark.parametrize("key", ["profile", "golden"])
def test_files_beside_it_are_read_without_models_too(policy: Path, check: Any, key: str) -> None:
    edit(policy, "deadline: 50ms", f"deadline: 50ms\n{key}: beside.json")
    for name in ("small", "large"):
        (policy.parent / f"{name}.onnx").unlink()
    status, said, _ = check(policy, "--no-models")
    assert (status, said["ok"]) == (1, False)
    assert [(issue["line"], issue["path"]) for issue in said["issues"]] == [(5, key)]
    (policy.parent / "beside.json").write_text('{"small": {"overhead": 1}}')
    assert check(policy, "--no-models")[0] == 1
    (policy.parent / "beside.json").write_text("{}")
    assert check(policy, "--no-models")[0] == 0


def test_a_file_that_two_keys_name_is_told_at_each(policy: Path, check: Any) -> None:
    edit(policy, "deadline: 50ms", "deadline: 50ms\ngolden: nope.json\nprofile: nope.json")
    status, said, _ = check(policy)
    assert status == 1
    found = [(issue["line"], issue["column"], issue["path"]) for issue in said["issues"]]
    assert sorted(found) == [(5, 9, "golden"), (6, 10, "profile")]


def test_a_recording_that_cannot_be_read_hides_nothing(policy: Path, check: Any) -> None:
    (policy.parent / "large.onnx").unlink()
    edit(policy, "thresholds: [0.8]", "certificate: c.json")
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0}
    Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500,
        tiers=("small", "large"), path=(point,), certified=1,
    ).save(policy.parent / "c.json")  # fmt: skip
    gone = policy.parent / "nope.csv"
    status, said, errors = check(policy, "--recording", str(gone))
    assert status == 2
    assert set(said) == {"ok", "issues", "warnings"}
    assert said["ok"] is False
    paths = [issue["path"] for issue in said["issues"]]
    assert (paths[0], paths[-1]) == ("tiers.1.model", "")
    assert errors[-1].startswith(f"{gone}: cannot be read: ")


def test_what_the_environment_says_wrongly_has_the_same_keys(
    policy: Path, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_CORES", "many")
    status, said, errors = check(policy)
    assert (status, said["ok"], said["warnings"]) == (2, False, [])
    assert [issue["file"] for issue in said["issues"]] == ["CASCADE_CORES"]
    assert errors == ["CASCADE_CORES: expected a whole number above 0, got 'many'"]


def other_large(policy: Path, inputs: int, columns: int) -> None:
    held = onnx.load(policy.parent / "large.onnx")
    weights = onnx.numpy_helper.to_array(held.graph.initializer[0])
    wider = weights.repeat(-(-inputs // 4), 0)[:inputs].repeat(-(-columns // 3), 1)[:, :columns]
    held.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(wider, "w"))
    held.graph.input[0].type.tensor_type.shape.dim[1].dim_value = inputs
    held.graph.output[0].type.tensor_type.shape.dim[1].dim_value = columns
    content = held.SerializeToString()
    old = hashlib.sha256((policy.parent / "large.onnx").read_bytes()).hexdigest()
    (policy.parent / "large.onnx").write_bytes(content)
    edit(policy, old, hashlib.sha256(content).hexdigest())


def test_models_that_take_different_rows(policy: Path, check: Any) -> None:
    other_large(policy, 5, 3)
    status, said, _ = check(policy)
    assert status == 1
    (issue,) = said["issues"]
    assert (issue["line"], issue["path"]) == (7, "tiers")
    assert "take different rows" in issue["message"]
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprepare: {version: '1'}")
    assert check(policy)[0] == 0


def test_models_that_know_different_classes(policy: Path, check: Any) -> None:
    other_large(policy, 4, 4)
    edit(policy, "classes: [a, b, c]\n", "")
    status, said, _ = check(policy)
    assert status == 1
    (issue,) = said["issues"]
    assert issue["message"] == (
        "tiers 'small' and 'large': classes: expected one set; not in both: 3"
    )
    edit(policy, "deadline: 50ms", "deadline: 50ms\npostprocess: {version: '1'}")
    assert check(policy)[0] == 0
