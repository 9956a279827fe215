"""``cascade fit`` and ``cascade replay`` as they are typed."""

import csv
import json
import re

import numpy as np
import pytest
import yaml

from cascade import Policy
from cascade.cli import main
from tests.cli.conftest import model


@pytest.fixture
def recording(tmp_path):
    rng, n = np.random.default_rng(0), 3_000
    sure = rng.random(n)
    rows = zip(
        (rng.random(n) < 0.5 + sure / 2).astype(int), (0.5 + sure / 2).round(6), [0.001] * n,
        (rng.random(n) < 0.98).astype(int), [0.02] * n, strict=True,
    )  # fmt: skip
    path = tmp_path / "recording.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["small.correct", "small.confidence", "small.seconds", "large.correct", "large.seconds"]
        )
        writer.writerows(rows)
    return path


@pytest.fixture
def fitted(recording, tmp_path, capsys):
    out = tmp_path / "fitted"
    assert main(["fit", str(recording), "--max-loss", "0.05", "--out", str(out)]) == 0
    capsys.readouterr()
    return out / "policy.yaml"


def run(capsys, *arguments):
    status = main([*map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_what_cannot_be_is_said_by_name(recording, fitted, tmp_path, capsys):
    status, _, said = run(capsys, "fit", recording, "--seed", "-1")
    assert (status, "seed: expected a whole number between 0 and" in said) == (2, True)
    status, _, said = run(capsys, "replay", fitted, recording, "--decisions", tmp_path)
    assert (status, "expected the name of a file to write, it is a folder" in said) == (2, True)


def test_it_says_what_is_promised_and_writes_it_down(recording, tmp_path, capsys):
    out = tmp_path / "fitted"
    status, said, _ = run(capsys, "fit", recording, "--max-loss", "0.05", "--out", out)
    assert status == 0
    for word in ("Promise", "Cost", "saves", "Verdict", f"Written: {out / 'policy.yaml'}"):
        assert word in said
    policy = Policy.from_yaml(out / "policy.yaml", env={})
    assert policy.certificate.max_loss == 0.05
    assert run(capsys, "check", out / "policy.yaml", "--recording", recording)[0] == 0


def test_json_has_the_keys_of_the_contract(recording, tmp_path, capsys):
    status, said, _ = run(
        capsys, "fit", recording, "--max-loss", "0.05", "--out", tmp_path / "f", "--json"
    )
    assert status == 0
    assert set(json.loads(said)) == {
        "certified", "max_loss", "alpha", "n", "losses", "thresholds", "escalation", "cost",
        "cost_top", "cost_oracle", "needed", "policy",
    }  # fmt: skip


def test_nothing_to_certify_is_status_1_with_the_rows_needed(recording, tmp_path, capsys):
    lines = recording.read_text().splitlines()[:60]
    recording.write_text("\n".join(lines) + "\n")
    out = tmp_path / "f"
    status, said, error = run(
        capsys, "fit", recording, "--max-loss", "0.01", "--out", out, "--json"
    )
    assert status == 1
    assert json.loads(said)["certified"] is False
    assert json.loads(said)["needed"] > 59
    assert error.startswith("cannot certify: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tiers", "small,big"], "no tier 'big'"),
        (["--tiers", "small,small"], "each once"),
        (["--loss", "grss"], "loss: expected one of"),
        (["--costs", "a,b"], "--costs: expected numbers"),
        (["--same", "x"], "same: expected"),
    ],
)
def test_bad_arguments_are_status_2_and_one_line(recording, capsys, arguments, words):
    status, _, error = run(capsys, "fit", recording, *arguments)
    assert status == 2
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_policy_of_ones_own_is_rewritten_in_place(recording, policy, capsys):
    before = policy.read_text()
    status, said, _ = run(capsys, "fit", recording, "--policy", policy, "--max-loss", "0.05")
    assert status == 0
    assert "+  certificate: certificate.json" in said
    assert "-  thresholds: [0.8]" in said
    assert "# the cheap one" in policy.read_text()
    assert policy.read_text() != before
    assert run(capsys, "check", policy)[0] == 0


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="the parser in Python takes no tabs")
def test_a_policy_with_tabs_between_its_words_is_rewritten_too(recording, policy, capsys):
    tabbed = policy.read_text().replace("name: flowers", "name:\tflowers\t# ours,\tsince Monday\t")
    policy.write_text(tabbed)
    assert run(capsys, "explain", policy)[0] == 0
    status, _, error = run(capsys, "fit", recording, "--policy", policy, "--max-loss", "0.05")
    assert (status, error) == (0, "")
    assert "flowers\t# ours,\tsince Monday\t" in policy.read_text()
    assert run(capsys, "check", policy)[0] == 0


def test_comments_stay_with_what_they_are_about(recording, policy, capsys):
    digests = re.findall(r"[0-9a-f]{64}", policy.read_text())
    layout = """\
version: 1
name: flowers
tiers:
  - name: small
    kind: onnx
    model: small.onnx  # the cheap one

  # asked where the first is unsure
  - name: large
    kind: onnx
    model: large.onnx

# how sure is sure enough
escalation:
  thresholds: [0.8]  # until there is a certificate

# agreed with operations
cache: {entries: 1_000}
"""
    policy.write_text(layout)
    assert run(capsys, "fit", recording, "--policy", policy, "--max-loss", "0.05")[0] == 0
    expected = layout.replace("thresholds: [0.8]", "certificate: certificate.json")
    for line, digest in zip(
        ("model: small.onnx  # the cheap one", "model: large.onnx"), digests, strict=True
    ):
        expected = expected.replace(line, f'{line}\n    sha256: "{digest}"')
    assert policy.read_text() == expected


def test_a_policy_with_other_tiers_is_left_alone(recording, policy, capsys):
    before = policy.read_text()
    status, _, error = run(capsys, "fit", recording, "--policy", policy, "--tiers", "large,small")
    assert status == 2
    assert "has the tiers ['small', 'large']" in error
    assert policy.read_text() == before


def test_what_cannot_be_drawn_leaves_the_policy_as_it_was(recording, policy, tmp_path, capsys):
    before = policy.read_text()
    (tmp_path / "file").touch()
    for target in (["--policy", policy], ["--out", tmp_path / "out"]):
        status, _, error = run(
            capsys, "fit", recording, *target, "--max-loss", "0.05", "--plots", tmp_path / "file/x"
        )
        assert (status, "cannot be written" in error) == (2, True)
    assert policy.read_text() == before
    assert not (tmp_path / "out").exists()
    both = ("--policy", policy, "--out", tmp_path / "out")
    assert "give one of them" in run(capsys, "fit", recording, *both)[2]


def test_a_certificate_is_of_the_models_that_are_there(recording, policy, capsys):
    """Pinned with it, so that another model is refused, and refitted when there is one."""
    policy.write_text(re.sub(r",? *sha256: \"?[0-9a-f]{64}\"?\n?", "", policy.read_text()))
    fit = ("fit", recording, "--policy", policy, "--max-loss", "0.05")
    assert run(capsys, *fit)[0] == 0
    assert policy.read_text().count("sha256: ") == 2
    assert run(capsys, "pin", policy)[0] == run(capsys, "check", policy)[0] == 0
    (policy.parent / "large.onnx").write_bytes(model(3, seed=5))
    assert run(capsys, "check", policy)[0] == 1
    before = policy.read_text()
    status, _, error = run(capsys, "pin", policy)
    assert (status, "fit again" in error, policy.read_text() == before) == (2, True, True)
    assert run(capsys, *fit)[0] == 0
    assert run(capsys, "check", policy)[0] == 0


def test_a_policy_whose_certificate_is_of_another_version_can_be_fitted_again(
    recording, policy, capsys
):
    fit = ("fit", recording, "--policy", policy, "--max-loss", "0.05")
    assert run(capsys, *fit)[0] == 0
    policy.write_text(policy.read_text().replace("kind: onnx", "kind: onnx\n    threads: 1", 1))
    certificate = policy.parent / "certificate.json"
    certificate.write_text(certificate.read_text().replace('"small": "', '"small": "0', 1))
    assert run(capsys, "check", policy)[0] == 2
    assert run(capsys, *fit)[0] == 0
    assert run(capsys, "check", policy)[0] == 0


def test_a_policy_may_name_the_certificate_that_is_to_be_written(recording, policy, capsys):
    text = policy.read_text().replace("thresholds: [0.8]", "certificate: certificate.json")
    policy.write_text(text + "load: {}\n")
    fit = ("fit", recording, "--policy", policy, "--max-loss", "0.05")
    assert run(capsys, *fit)[0] == 0
    assert run(capsys, "check", policy)[0] == 0


@pytest.mark.parametrize(
    ("option", "value"), [("--max-loss", "nan"), ("--max-cost", "inf"), ("--costs", "-100,1")]
)
def test_a_gate_takes_no_number_that_is_none(fitted, recording, capsys, option, value):
    status, _, error = run(capsys, "replay", fitted, recording, f"{option}={value}")
    assert status == 2
    assert option.strip("-") in error


def test_replay_shows_what_would_have_been(fitted, recording, tmp_path, capsys):
    decisions = tmp_path / "d.csv"
    status, said, _ = run(capsys, "replay", fitted, recording, "--decisions", decisions)
    assert status == 0
    assert "accuracy" in said
    rows = decisions.read_text().splitlines()
    assert rows[0] == "row,tier,disposition"
    assert len(rows) == 3_001
    assert rows[1].split(",")[1] in {"small", "large"}


def test_replay_prints_the_keys_of_the_contract(fitted, recording, capsys):
    status, said, _ = run(capsys, "replay", fitted, recording, "--json")
    assert status == 0
    assert set(json.loads(said)) == {
        "n", "accuracy", "accuracy_top", "loss", "calls", "mean_cost", "mean_seconds",
        "dispositions", "uncovered",
    }  # fmt: skip


def test_replay_is_a_gate(fitted, recording, tmp_path, capsys):
    assert run(capsys, "replay", fitted, recording, "--max-loss", "0.05")[0] == 0
    status, _, error = run(capsys, "replay", fitted, recording, "--max-cost", "0.0001")
    assert status == 1
    assert "cost: " in error
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        "version: 1\nname: strict\nescalation: {thresholds: [1.0]}\n"
        "tiers:\n  - {name: small, kind: external}\n  - {name: large, kind: external}\n"
    )
    looser = run(capsys, "replay", fitted, recording, "--against", strict, "--max-loss", "0.0001")
    assert looser[0] == 1
    assert "more than the other policy's" in looser[2]
    cheaper = run(capsys, "replay", fitted, recording, "--against", strict, "--max-cost", "0")
    assert cheaper[0] == 0


def test_plots_are_saved_where_asked(recording, tmp_path, capsys):
    status, said, _ = run(
        capsys, "fit", recording, "--max-loss", "0.05", "--out", tmp_path / "p",
        "--plots", tmp_path / "plots",
    )  # fmt: skip
    assert status == 0
    assert {file.name for file in (tmp_path / "plots").iterdir()} >= {"risk.png"}
    assert "Plot: " in said


def test_somebody_who_looks_sees_how_far_it_is(recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    status, _, _ = run(capsys, "fit", recording, "--max-loss", "0.05", "--out", tmp_path / "p")
    assert status == 0


def test_without_costs_there_is_nothing_to_hold_a_bound_against(tmp_path, capsys):
    (tmp_path / "r.csv").write_text(
        "small.value,small.confidence,large.value\ncat,0.9,cat\ndog,0.2,cat\n"
    )
    (tmp_path / "p.yaml").write_text(
        "version: 1\nname: p\nescalation: {thresholds: [0.5]}\n"
        "tiers: [{name: small, kind: external}, {name: large, kind: external}]\n"
    )
    files = (tmp_path / "p.yaml", tmp_path / "r.csv")
    status, said, error = run(capsys, "replay", *files, "--max-cost", "1")
    assert status == 1
    assert "cost: nothing was recorded to hold it against; give --costs" in error
    assert "not recorded" in said


def test_without_truth_there_is_no_plot_of_accuracies(tmp_path, capsys):
    rng = np.random.default_rng(0)
    sure = rng.random(3_000)
    agree = rng.random(3_000) < 0.6 + 0.4 * sure
    rows = [f"{'x' if same else 'y'},{c:.4f},x,1,20" for same, c in zip(agree, sure, strict=True)]
    head = "small.value,small.confidence,large.value,small.cost,large.cost"
    (tmp_path / "r.csv").write_text("\n".join([head, *rows]) + "\n")
    plots = tmp_path / "plots"
    call = [
        "--loss",
        "disagreement",
        "--max-loss",
        "0.1",
        "--plots",
        plots,
        "--out",
        tmp_path / "o",
    ]
    status, _, error = run(capsys, "fit", tmp_path / "r.csv", *call)
    assert (status, error) == (0, "")
    assert [file.name for file in plots.iterdir()] == ["risk.png"]


def test_a_fit_by_other_rules_is_checked_by_them(recording, tmp_path, capsys):
    head, first, *rows = recording.read_text().splitlines()
    cells = first.split(",")
    cells[head.split(",").index("large.correct")] = ""
    holed = tmp_path / "holed.csv"
    holed.write_text("\n".join([head, ",".join(cells), *rows, ""]))
    out = tmp_path / "complete"
    fit = ("fit", holed, "--max-loss", "0.05", "--complete-only", "--out", out)
    assert run(capsys, *fit)[0] == 0
    check = ("check", out / "policy.yaml", "--recording", holed)
    assert run(capsys, *check)[0] == 2
    assert run(capsys, *check, "--complete-only")[0] == 0
