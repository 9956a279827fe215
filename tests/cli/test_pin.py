from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from cascade.cli import main
from cascade.cli.pin import _quoted
from cascade.policy import Policy
from cascade.policy.digest import tier_digest
from cascade.policy.loader import load
from tests.cli.conftest import edit, model

if TYPE_CHECKING:
    from pathlib import Path


def _strip(text: str) -> str:
    """Take every digest out again."""
    return re.sub(r",? *sha256: \"?[0-9a-f]{64}\"?\n?", "", text)


def test_digests_are_written_and_comments_stay(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = policy.read_text()
    policy.write_text(_strip(pinned))
    assert main(["pin", str(policy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    small = hashlib.sha256((policy.parent / "small.onnx").read_bytes()).hexdigest()
    assert said["digests"]["small"] == small
    assert said["changed"] == ["small", "large"]
    assert small in policy.read_text()
    assert _strip(policy.read_text()) == _strip(pinned)
    assert main(["check", str(policy)]) == 0


def test_only_what_changed_is_rewritten(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = policy.stat()
    assert main(["pin", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == []
    assert policy.stat().st_mtime_ns == before.st_mtime_ns
    (policy.parent / "large.onnx").write_bytes(model(3, seed=5))
    assert main(["check", str(policy)]) == 1
    assert main(["pin", str(policy)]) == 0
    assert main(["check", str(policy)]) == 0
    assert policy.stat().st_mode == before.st_mode


def test_a_certificate_of_models_without_a_digest_is_of_those_that_are_pinned(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(policy, "thresholds: [0.8]", "certificate: certificate.json")
    pinned = policy.read_text()
    policy.write_text(_strip(pinned))
    loaded = load(Policy, policy, {}, stale_ok=True)
    digests = {spec.name: tier_digest(loaded, spec) for spec in loaded.tiers}
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0, "escalation": [0.0, 1.0]}
    certificate = {
        "loss": "gross", "max_loss": 0.1, "alpha": 0.1, "n": 10, "path": [point],
        "certified": 1, "tiers": ["small", "large"], "covers": "adaptive", "digests": digests,
    }  # fmt: skip
    (policy.parent / "certificate.json").write_text(json.dumps(certificate))
    assert main(["check", str(policy)]) == 0
    assert main(["pin", str(policy)]) == 0
    assert main(["check", str(policy)]) == 0
    policy.write_text(_strip(policy.read_text()))  # the digests are lost, and the models the same
    capsys.readouterr()
    assert main(["check", str(policy)]) == 2
    assert "cascade pin" in capsys.readouterr().err
    assert main(["pin", str(policy)]) == 0
    assert main(["check", str(policy)]) == 0


def test_a_link_to_the_policy_stays_a_link(policy: Path, tmp_path: Path) -> None:
    policy.write_text(_strip(policy.read_text()))
    link = tmp_path / "current.yaml"
    link.symlink_to(policy.name)
    assert main(["pin", str(link)]) == 0
    assert link.is_symlink()
    assert "sha256" in policy.read_text()


def test_a_missing_model_leaves_the_file_alone(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(_strip(policy.read_text()))
    (policy.parent / "large.onnx").unlink()
    before = policy.read_bytes()
    assert main(["pin", str(policy)]) == 2
    said = "tier 'large': model large.onnx cannot be read: No such file or directory\n"
    assert capsys.readouterr().err == said
    assert policy.read_bytes() == before


def test_nothing_to_pin(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(policy, policy.read_text(), "version: 1\nname: p\ntiers: [{name: a, kind: external}]\n")
    assert main(["pin", str(policy)]) == 0
    assert capsys.readouterr().out == "no models to pin\n"


@pytest.mark.parametrize(
    ("digest", "written"), [("12", '"12"'), ("12e5", '"12e5"'), ("e12f", "e12f"), ("1ee2", "1ee2")]
)
def test_a_digest_that_looks_like_a_number_is_quoted(digest: str, written: str) -> None:
    assert _quoted(digest) == written
