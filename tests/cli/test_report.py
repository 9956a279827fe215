"""What a report over whole cascades says when there is little to report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest

from cascade import CannotCertify
from cascade.cli.report import _commands, _ladder, markdown
from cascade.optimize import certifying
from cascade.optimize.data import Data
from cascade.optimize.displays import LadderDisplay
from cascade.optimize.exploring import Exploration
from cascade.optimize.frontier import Ladder
from cascade.optimize.running import load_models
from cascade.optimize.slimming import Candidate
from cascade.policy import Certificate, Escalation, Policy
from cascade.policy.certificate import PathPoint
from cascade.policy.settings import AllowanceSettings

if TYPE_CHECKING:
    from pathlib import Path

ORIGINAL = "original"
BOTH = (("small", ORIGINAL), ("large", ORIGINAL))
TOP = (("large", ORIGINAL),)
ROWS = Data({"": np.random.default_rng(0).normal(size=(40, 4)).astype("float32")}, np.zeros(40))


def ladder(steps: tuple[tuple[str, str], ...], seconds: float = 1.0) -> Ladder:
    return Ladder(steps, (0.5,) * (len(steps) - 1), seconds, 1, 100, 0.01, 0.9)


def found(chosen: Ladder | None, before: Ladder | None = None, **more: Any) -> Exploration:
    candidates = {
        "small": [Candidate(ORIGINAL, "the original", 0.001, 100, 0.8)],
        "large": [Candidate(ORIGINAL, "the original", 0.01, 100, None)],
    }
    front = [] if chosen is None else [chosen]
    return Exploration(candidates, front, before, chosen, 0.01, 0.1, **more)


@pytest.fixture
def given(policy: Path) -> Policy:
    return Policy.from_yaml(policy, env={})


def certified(policy: Policy) -> Policy:
    point = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0)
    old = Certificate(
        max_loss=0.02, alpha=0.1, loss="gross", covers="adaptive", n=100,
        tiers=("small", "large"), path=(point,), certified=1,
    )  # fmt: skip
    return attrs.evolve(policy, certificate=old)


def test_where_no_ladder_keeps_the_promise_it_says_so(given: Policy, tmp_path: Path) -> None:
    nothing = found(None, ladder(BOTH))
    assert markdown(nothing).endswith("No ladder keeps the promise on rows that had no say.\n")
    assert _ladder(given, ROWS, nothing, tmp_path / "ladder") == []
    assert not (tmp_path / "ladder").exists()


def test_where_the_ladder_as_it_is_proves_nothing_there_is_no_ratio() -> None:
    said = markdown(found(ladder(TOP)))
    assert "× the time in the models" not in said
    assert "as it is: " not in said
    assert "0.25 × the time in the models" in markdown(found(ladder(TOP), ladder(BOTH, 4.0)))


def test_the_ladder_as_it_is_may_be_the_fastest(given: Policy, tmp_path: Path) -> None:
    same = found(ladder(BOTH), ladder(BOTH))
    assert _ladder(given, ROWS, same, tmp_path) == ["The ladder as it is, is the fastest."]


def models_of(policy: Policy, *variants: tuple[str, str]) -> dict[str, Any]:
    files = {name: model for name, (_, model) in load_models(policy).items()}
    return {
        "models": {key: files[key[0]] for key in variants},
        "temperatures": dict.fromkeys(variants, 1.0),
    }


def test_a_tier_that_is_left_out_leaves_nothing_to_certify(given: Policy, tmp_path: Path) -> None:
    lines = _ladder(given, ROWS, found(ladder(TOP), **models_of(given, *TOP)), tmp_path)
    assert lines[0] == "Leave out: small"
    assert lines[-1] == "It has no certificate to renew, and is not written down."


def test_of_three_tiers_the_two_that_are_chosen_are_certified(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = attrs.evolve(given.tiers[0], name="extra")
    names = ("extra", "small", "large")
    never = PathPoint(thresholds=(2.0, 2.0), losses=0, p_value=0.0)
    three = attrs.evolve(
        given,
        tiers=(extra, *given.tiers),
        mode="top_only",
        escalation=Escalation(certificate="certificate.json"),
    )
    old = attrs.evolve(certified(given).certificate, tiers=names, path=(never,))
    asked = []

    def certify(policy: Policy, promise: Certificate, *_: Any) -> tuple[None, CannotCertify]:
        asked.append(([spec.name for spec in policy.tiers], promise.tiers))
        return None, CannotCertify("no threshold holds")

    monkeypatch.setattr(certifying, "certify_anew", certify)
    lines = _ladder(
        attrs.evolve(three, certificate=old), ROWS, found(ladder(BOTH), **models_of(given, *BOTH)),
        tmp_path,
    )  # fmt: skip
    assert lines == ["Leave out: extra", "It is not written down: no threshold holds."]
    assert asked == [(["small", "large"], ("small", "large"))]


def test_why_the_chosen_ladder_is_not_written_is_said(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (("small", "fewer neurons, 50 %"), ("large", "dynamic int8"))
    new = found(ladder(steps), **models_of(given, *steps))
    without_truth = attrs.evolve(ROWS, truth=None)
    lines = _ladder(certified(given), without_truth, new, tmp_path / "ladder")
    assert [line.split(" --data")[0].split(" ")[2] for line in lines[:2]] == ["prune", "quantize"]
    assert lines[-1].startswith("It cannot be certified here: it bounds the gross loss")
    monkeypatch.setattr(
        certifying, "certify_anew", lambda *_: (None, CannotCertify("no threshold holds"))
    )
    lines = _ladder(certified(given), ROWS, new, tmp_path / "ladder")
    assert lines[-1] == "It is not written down: no threshold holds."
    assert not (tmp_path / "ladder").exists()


def test_what_the_gate_refuses_by_itself_is_no_command_to_run(given: Policy) -> None:
    """quantize and prune keep what passes; in a ladder below the top the whole loss counts."""
    steps = (("small", "9 of 12 trees"), ("large", "dynamic int8"))
    new = found(ladder(steps))
    new.candidates["small"] += [Candidate("9 of 12 trees", "refused by the gate, p = 1 > 0.1")]
    new.candidates["large"] += [Candidate("dynamic int8", "kept")]
    given = attrs.evolve(given, path=given.root / "my policy.yaml")
    refused, run = _commands(given, new)
    assert refused == "Take small from the ladder: 9 of 12 trees, too lossy by itself"
    words = shlex.split(run, comments=True)
    assert words[1:5] == ["cascade", "quantize", str(given.path), "large"]
    assert words[-4:] == ["--max-loss", "0.01", "--alpha", "0.1"]


def test_a_ladder_that_is_interrupted_leaves_the_one_before(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, new = chosen_for(Escalation(certificate="old.json"), given, monkeypatch)
    _ladder(policy, ROWS, new, tmp_path / "ladder")
    before = {file.name: file.read_bytes() for file in (tmp_path / "ladder").iterdir()}

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Certificate, "save", interrupt)
    new.models["small", "fewer neurons, 50 %"] = b"another"
    with pytest.raises(KeyboardInterrupt):
        _ladder(policy, ROWS, new, tmp_path / "ladder")
    assert {file.name: file.read_bytes() for file in (tmp_path / "ladder").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def chosen_for(escalation: Escalation, given: Policy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have another ladder of the same tiers be the fastest, and its certificate hold."""
    steps = (("small", "fewer neurons, 50 %"), ("large", ORIGINAL))
    points = tuple(
        PathPoint(thresholds=(t,), losses=0, p_value=0.0, escalation=(1.0 - e, e))
        for t, e in ((2.0, 1.0), (0.5, 0.2))
    )
    old = certified(given).certificate
    assert old is not None
    made = attrs.evolve(old, path=points, certified=2)
    monkeypatch.setattr(certifying, "certify_anew", lambda *_: (made, None))
    policy = attrs.evolve(given, certificate=made, escalation=escalation)
    return policy, found(ladder(steps), **models_of(given, *steps))


def test_what_the_policy_says_of_escalation_stays(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Escalation(
        certificate="old.json", abstain_below=0.1, spare_budget=True,
        allowance=AllowanceSettings(overall=0.5),
    )  # fmt: skip
    policy, new = chosen_for(held, given, monkeypatch)
    lines = _ladder(policy, ROWS, new, tmp_path / "ladder")
    assert lines[-1].startswith("Written, certified on 100 rows: ")
    written = Policy.from_yaml(tmp_path / "ladder" / "policy.yaml", env={})
    assert written.escalation == attrs.evolve(held, certificate="certificate.json")


def test_a_policy_that_its_new_certificate_does_not_bear_is_not_written(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Escalation(certificate="old.json", spare_budget=True)
    policy, new = chosen_for(held, given, monkeypatch)
    fixed = attrs.evolve(policy.certificate, covers="fixed_point")
    monkeypatch.setattr(certifying, "certify_anew", lambda *_: (fixed, None))
    lines = _ladder(policy, ROWS, new, tmp_path / "ladder")
    assert lines[-1].startswith("It is not written down: ")
    assert "covers one fixed point" in lines[-1]
    assert not (tmp_path / "ladder").exists()


def test_a_plot_without_a_front_or_a_choice_is_drawn_all_the_same(tmp_path: Path) -> None:
    shown = LadderDisplay.from_exploration(found(None))
    assert (shown.tiers["large"], shown.before, shown.chosen) == ([], None, None)
    axes = shown.plot().axes[0]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"small"}
    shown.save(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 1_000
