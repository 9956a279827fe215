import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cascade import Policy
from cascade.cli import main
from cascade.cli.reply import Reply
from cascade.cli.tune import _said
from cascade.optimize.objectives import Meter


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(8, 4)))
    return str(tmp_path / "rows.npy")


def script(monkeypatch, fast):
    """Have the meter say that settings for which ``fast`` holds take half the time."""
    monkeypatch.setattr(
        Meter,
        "__call__",
        lambda self, some, n: [[0.5 if fast(s) else 1.0] * n for s in some],
    )


def test_writes_the_policy_and_keeps_its_comments(policy, rows, monkeypatch, capsys):
    script(monkeypatch, lambda s: s.cap == 8)
    before = policy.read_text()
    assert main(["tune", str(policy), rows, "--objective", "throughput", "--tiers", "small"]) == 0
    said = capsys.readouterr().out
    assert "small: batch: 8; a row 1 s → 500 ms (0.50 × the time, faster in " in said
    assert re.search(r"faster in (\d+) of \1 rounds", said)  # fewer where there is but one core
    assert policy.read_text() == before.replace(
        "  # the cheap one\n", "  # the cheap one\n    batch: {max_size: 8}\n"
    )
    assert Policy.from_yaml(policy, env={}).tiers[0].batch.max_size == 8


@pytest.mark.parametrize(
    ("held", "now"),
    [
        ("    workers:  # of two cores\n      min: 2  # at night\n      max: 2\n", None),
        ("    workers: {max: 2}\n", "    workers: {max: 1}\n"),
        ("    workers: 2  # all\n", "    workers: 1  # all\n"),
    ],
)
def test_workers_are_written_the_way_they_are_spelled(policy, rows, held, now, monkeypatch, capsys):
    script(monkeypatch, lambda s: s.workers == 1)
    now = now or held.replace("min: 2", "min: 1").replace("max: 2", "max: 1")
    before = policy.read_text().replace("  # the cheap one\n", f"  # the cheap one\n{held}")
    policy.write_text(before)
    assert main(["tune", str(policy), rows, "--objective", "throughput", "--tiers", "small"]) == 0
    assert policy.read_text() == before.replace(held, now)


def test_a_tier_that_is_bound_in_python_cannot_be_tuned(policy, rows, capsys):
    text = policy.read_text()
    start = text.index("  - {name: large")
    line = text[start : text.index("\n", start)]
    policy.write_text(text.replace(line, "  - {name: large, kind: external}"))
    call = ["tune", str(policy), rows, "--objective", "p50", "--tiers"]
    assert main([*call, "large"]) == 2
    assert "tier 'large' is external: only ONNX models can be" in capsys.readouterr().err


def test_the_profile_of_what_changed_is_measured_anew(policy, rows, monkeypatch, capsys):
    script(monkeypatch, lambda s: s.optimization == "off")
    held = {name: {"overhead": 9.0, "per_row": 9.0, "residual": 9.0} for name in ("small", "large")}
    (policy.parent / "laws.json").write_text(json.dumps(held))
    policy.write_text(policy.read_text() + "profile: laws.json\n")
    call = ["tune", str(policy), rows, "--objective", "p50", "--tiers", "small"]
    assert main([*call, "--dry-run"]) == 0
    assert json.loads((policy.parent / "laws.json").read_text()) == held
    assert main(call) == 0
    assert f"Written: {policy}, {policy.parent / 'laws.json'}" in capsys.readouterr().out
    laws = json.loads((policy.parent / "laws.json").read_text())
    assert laws["large"] == held["large"]
    assert laws["small"]["overhead"] + laws["small"]["per_row"] < 1.0
    assert not list(policy.parent.glob(".*"))


def test_a_dry_run_shows_the_difference_and_writes_nothing(policy, rows, monkeypatch, capsys):
    script(monkeypatch, lambda s: s.optimization == "off")
    before = policy.read_text()
    call = ["tune", str(policy), rows, "--objective", "p50", "--dry-run"]
    assert main(call) == 0
    assert '+    optimization: "off"' in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changed"] == {
        "small": {"optimization": "off"},
        "large": {"optimization": "off"},
    }
    assert found["written"] is False
    comparison = found["tiers"][0]["comparison"]
    assert comparison["wins"] == comparison["rounds"] >= 11
    assert policy.read_text() == before


def test_nothing_changes_without_a_gain(policy, rows, monkeypatch, capsys):
    script(monkeypatch, lambda s: False)
    before = policy.read_text()
    assert main(["tune", str(policy), "--data", rows, "--objective", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "small: stays as it is, nothing was better" in said
    assert said.endswith("Nothing to change.\n")
    assert policy.read_text() == before


def test_a_provider_that_is_there_may_be_asked_for(policy, rows, monkeypatch, capsys):
    script(monkeypatch, lambda s: False)
    call = ["tune", str(policy), rows, "--objective", "p50", "--tiers", "small"]
    assert main([*call, "--providers", "CPUExecutionProvider"]) == 0
    assert "small: stays as it is" in capsys.readouterr().out


def test_a_missing_provider_is_an_error(policy, rows, capsys):
    call = ["tune", str(policy), rows, "--objective", "p50", "--providers"]
    assert main([*call, "CUDAExecutionProvider"]) == 2
    assert "--providers: 'CUDAExecutionProvider' is not available" in capsys.readouterr().err


def test_a_faster_setting_that_is_no_gain_is_said_to_be_none():
    comparison = SimpleNamespace(describe=lambda: "0.99 × the time")
    choice = SimpleNamespace(
        measurements=9, candidates=3, comparison=comparison, seconds=(1.0, 0.99)
    )
    one = SimpleNamespace(name="small", choice=choice, objective="p50", changes={})
    assert _said(one) == (
        "small: stays as it is; the best other one is no gain (0.99 × the time; "
        "9 measurements of 3 settings)"
    )


def test_a_reply_without_text_prints_none(capsys):
    assert Reply("", {}, ("it failed",), 1).print() == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "it failed\n")
