import json
import sys

import numpy as np
import pytest

from cascade import Policy
from cascade.bundle import load_profile
from cascade.cli import edits, main
from cascade.tiers.sessions import make_session
from tests.cli.conftest import edit


@pytest.fixture
def quick(monkeypatch):
    from cascade.optimize import profiling

    monkeypatch.setattr(profiling, "_SECONDS", 0.02)
    monkeypatch.setattr(profiling, "_SPARSE", 3)


@pytest.fixture
def rows(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "rows.npz"
    np.savez(path, X=random.normal(size=(40, 4)), y=random.choice(["a", "b", "c"], 40))
    return path


def test_measures_and_writes_what_lanes_start_from(policy, rows, quick, capsys):
    plot = policy.parent / "plot.png"
    before = policy.read_text()
    assert main(["profile", str(policy), str(rows), "--plot", str(plot), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [tier["name"] for tier in found["tiers"]] == ["small", "large"]
    small = found["tiers"][0]
    assert [size["rows"] for size in small["sizes"]] == [1, 2, 4, 8, 16, 32]
    assert 0.0 < small["hot"]["p50"] <= small["hot"]["p99"]
    assert small["sparse"]["cpu"] > 0.0
    assert small["cold"]["load"] > 0.0
    assert 0.0 <= small["accuracy"] <= 1.0
    assert found["ledger"]["calls"]["small"] == pytest.approx(1.0)
    assert found["bottleneck"]
    assert plot.stat().st_size > 1_000
    assert policy.read_text() == before.replace(
        "name: flowers\n", "name: flowers\nprofile: profile.json\n"
    )
    held = load_profile(Policy.from_yaml(policy, env={}))
    assert held["large"].to_dict() == found["tiers"][1]["law"]


def test_the_golden_inputs_stand_in_for_data_and_have_no_truth(policy, quick, capsys):
    row = np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    session = make_session((policy.parent / "small.onnx").read_bytes())
    name = next(node.name for node in session.get_outputs() if "float" in node.type)
    arrays = {"inputs": {"x": row}, "outputs": {name: session.run([name], {"x": row})[0]}}
    one = {
        part: {key: {"dtype": "float32", "data": array.tolist()} for key, array in named.items()}
        for part, named in arrays.items()
    }
    (policy.parent / "golden.json").write_text(json.dumps({"small": one}))
    edit(policy, "name: flowers", "name: flowers\ngolden: golden.json")
    assert main(["profile", str(policy)]) == 0
    said = capsys.readouterr().out
    assert "Without truth (y in DATA)" in said
    assert "Bottleneck: " in said


def test_says_what_it_needs_without_data(policy, capsys):
    assert main(["profile", str(policy)]) == 2
    assert "give DATA, a .npy or .npz file of rows" in capsys.readouterr().err


def test_says_what_the_model_takes(policy, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((3, 5)))
    assert main(["profile", str(policy), str(tmp_path / "x.npy")]) == 2
    said = capsys.readouterr().err
    assert "tier 'small': input 'x': expected float32 of n×4, got float64 of 1×5" in said


def test_external_tiers_are_skipped_and_said_so(policy, rows, quick, capsys):
    text = policy.read_text()
    start = text.index("  - {name: large")
    line = text[start : text.index("\n", start)]
    edit(policy, line, "  - {name: large, kind: external}")
    assert main(["profile", str(policy), str(rows)]) == 0
    said = capsys.readouterr().out
    assert "large: not measured (external: bound in Python, not in a file)" in said
    assert "Bottleneck" not in said


@pytest.mark.parametrize(
    ("option", "target", "said"),
    [
        ("--plot", "tiers.xyz", "no plot can be saved as 'xyz'; expected one of"),
        ("--plot", "tiers.pmg", "no plot can be saved as 'pmg'; did you mean 'png'"),
        ("--plot", "rows.npz/tiers.png", "rows.npz is not a folder"),
        ("--report", "rows.npz", "rows.npz is not a folder"),
    ],
)
def test_what_could_not_be_written_is_refused_before_anything_is_measured(
    policy, rows, option, target, said, capsys
):
    call = ["profile", str(policy), str(rows), option, str(policy.parent / target)]
    assert main(call) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "measuring" not in error


@pytest.mark.parametrize("command", ["profile", "tune", "quantize", "prune"])
def test_a_folder_that_cannot_be_written_to_is_said_first(
    policy, rows, command, monkeypatch, capsys
):
    monkeypatch.setattr(edits.os, "access", lambda *_: False)
    more = {"profile": [], "tune": ["--objective", "p50"]}.get(command, ["small"])
    assert main([command, str(policy), *more, "--data", str(rows)]) == 2
    said = capsys.readouterr().err
    assert f"cannot be written: no permission in {policy.parent}" in said
    assert "measuring" not in said


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("--plot", "matplotlib.figure", "plot"), ("--report", "onnx", "quantize")],
)
def test_extras_that_are_missing_are_said_first(
    policy, rows, option, package, extra, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    call = ["profile", str(policy), str(rows), option, str(policy.parent / "x.png")]
    assert main(call) == 2
    assert f'cascade-router[{extra}]"' in (said := capsys.readouterr().err)
    assert "measuring" not in said


@pytest.mark.parametrize("call", [["profile"], ["tune", "--objective=p50"]])
def test_rows_that_have_no_answer_are_said_to_be_the_cause(policy, tmp_path, capsys, call):
    rows = np.ones((8, 4), dtype="float32")
    rows[3, 0] = np.nan
    np.save(tmp_path / "x.npy", rows)
    assert main([call[0], str(policy), str(tmp_path / "x.npy"), *call[1:]]) == 2
    said = capsys.readouterr().err
    assert "tier 'small' has no answer to a row of DATA that holds NaN (probabilities" in said
