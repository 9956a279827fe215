from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cascade.cli import main
from cascade.cli.explain import explain
from tests.cli.conftest import edit

if TYPE_CHECKING:
    from pathlib import Path


def _explained(policy: Path, **env: str) -> dict[str, Any]:
    return explain(policy, env).data


def test_a_model_has_one_worker_by_default(policy: Path) -> None:
    assert _explained(policy)["tiers.0.workers"] == {"value": 1, "source": "default"}


def test_values_of_the_file_have_their_place(policy: Path) -> None:
    said = _explained(policy)
    assert said["deadline"] == {"value": 0.05, "source": f"{policy}:4:11"}
    assert said["tiers.0.model"] == {"value": "small.onnx", "source": f"{policy}:9:12"}
    assert said["tiers.1.kind"]["value"] == "onnx"
    assert said["classes"]["value"] == ["a", "b", "c"]


def test_what_the_file_does_not_say_is_default(policy: Path) -> None:
    said = _explained(policy)
    assert said["mode"] == {"value": "enforce", "source": "default"}
    assert said["tiers.0.threads"] == {"value": 1, "source": "default"}
    assert said["tiers.0.confidence.temperature"] == {"value": 1.0, "source": "default"}


def test_a_bare_word_stands_for_its_key(policy: Path) -> None:
    edit(policy, "    kind: onnx\n", "    kind: onnx\n    confidence: margin\n")
    said = _explained(policy)
    assert said["tiers.0.confidence.score"] == {"value": "margin", "source": f"{policy}:9:17"}
    assert said["tiers.0.confidence.temperature"]["source"] == "default"


def test_the_environment_wins_over_the_file(policy: Path) -> None:
    said = _explained(policy, CASCADE_DEADLINE="20ms", CASCADE_CORES="1")
    assert said["deadline"] == {"value": 0.02, "source": "CASCADE_DEADLINE"}
    assert said["cores"] == {"value": 1, "source": "CASCADE_CORES"}


def test_what_follows_from_it(policy: Path) -> None:
    said = _explained(policy, CASCADE_MODELS="/models")
    assert said["point"] == {"value": [0.8], "source": "thresholds: nothing is promised"}
    assert said["models"] == {"value": "/models", "source": "CASCADE_MODELS"}
    assert said["digest"]["source"] == "computed"


def test_as_text_and_as_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(policy)]) == 0
    assert f"{policy}:4:11" in capsys.readouterr().out
    assert main(["explain", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == explain(policy).data


def test_an_invalid_policy(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(policy, "50ms", "soon")
    assert main(["explain", str(policy), "--json"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"{policy}:4:11: deadline: ")
    assert json.loads(said.out)["issues"][0]["path"] == "deadline"


def test_a_profile_that_is_not_there(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprofile: profile.json")
    assert main(["explain", str(policy)]) == 2
    gone = f"{policy.parent / 'profile.json'}: cannot be read: No such file or directory"
    assert capsys.readouterr().err == f"{policy}:5:10: profile: {gone}\n"


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_the_schema_is_printed(as_json: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", *as_json]) == 0
    assert "draft-07" in json.loads(capsys.readouterr().out)["$schema"]


def _profile(policy: Path, small: float, large: float) -> None:
    times = {"small": small, "large": large}
    tree = {name: {"overhead": 0.0, "per_row": time} for name, time in times.items()}
    (policy.parent / "profile.json").write_text(json.dumps(tree))
    edit(policy, "deadline: 50ms", "deadline: 50ms\nprofile: profile.json")


def test_each_tier_has_its_lane_and_the_reason(policy: Path) -> None:
    assert _explained(policy)["tiers.0.lane"] == {
        "value": "worker, 1 at a time",
        "source": "not measured yet; inline once it answers in under 100 µs",
    }
    _profile(policy, 20e-6, 3e-3)
    said = _explained(policy)
    assert said["tiers.0.lane"]["value"] == "inline"
    assert said["tiers.1.lane"] == {
        "value": "worker, 1 at a time", "source": "measured at 3000 µs: not under 100 µs",
    }  # fmt: skip


def test_workers_are_as_many_as_there_will_be(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nname: p\nmode: top_only\ntiers:\n  - {name: a, kind: external}\n"
        "  - {name: b, kind: external, execution: process}\n"
        "  - {name: c, kind: external, workers: 3}\n"
        "  - {name: d, kind: external, workers: {min: 2, max: 4}}\n"
    )
    said = explain(path, {}).data
    assert said["tiers.0.workers"] == {
        "value": 8, "source": "default where it is not asynchronous",
    }  # fmt: skip
    assert said["tiers.1.workers"] == {"value": 1, "source": "default"}
    assert said["tiers.2.workers.min"] == {"value": 3, "source": "default: max"}
    assert said["tiers.2.workers.max"] == {"value": 3, "source": f"{path}:7:40"}
    assert said["tiers.3.workers.min"] == {"value": 2, "source": f"{path}:8:46"}


def test_a_policy_of_one_external_tier_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: p\ntiers: [{name: a, kind: external}]\n")
    said = explain(path, {}, workers=2).data
    assert said["memory.process"]["value"] == 60_000_000
    assert said["point"]["value"] == []


def test_the_memory_of_workers_is_estimated(policy: Path) -> None:
    said = explain(policy, {}, workers=8).data
    one = said["memory.process"]["value"]
    files = sum(path.stat().st_size for path in policy.parent.glob("*.onnx"))
    assert one == 60_000_000 + 2 * files
    assert said["memory.workers"]["value"] == 8 * one
    assert "memory.process" not in _explained(policy)


def test_variables_stand_where_they_count(policy: Path) -> None:
    said = _explained(policy, CASCADE_METRICS_DIR="/run/m", CASCADE_CACHE_BYTES="1MB")
    assert said["metrics"] == {"value": "/run/m", "source": "CASCADE_METRICS_DIR"}
    assert said["cache"] == {"value": None, "source": "default"}
    assert _explained(policy)["metrics"]["value"] is None
    edit(policy, "deadline: 50ms", "deadline: 50ms\ncache: {}")
    said = _explained(policy, CASCADE_CACHE_BYTES="1MB")
    assert said["cache.bytes"] == {"value": 1_000_000, "source": "CASCADE_CACHE_BYTES"}


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_no_workers_is_no_number_of_processes(
    policy: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(policy), f"--workers={workers}"]) == 2
    said = f"--workers: expected a whole number above 0, got {workers}"
    assert capsys.readouterr().err.strip() == said


def test_cores_that_are_none_are_blamed_on_their_variable(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASCADE_CORES", "many")
    for command in ("explain", "check"):
        assert main([command, str(policy)]) == 2
        assert capsys.readouterr().err.startswith("CASCADE_CORES: expected a whole number")


def test_the_memory_of_a_model_that_is_not_there(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy.parent / "large.onnx").unlink()
    assert main(["explain", str(policy)]) == 0
    capsys.readouterr()
    assert main(["explain", str(policy), "--workers=2"]) == 2
    assert capsys.readouterr().err == (
        "tier 'large': model large.onnx cannot be read: it is no file\n"
    )
