from __future__ import annotations

from typing import Any

import attrs
import pytest

from cascade.cli.pitfalls import pitfalls
from cascade.policy import Certificate, Policy
from cascade.policy.certificate import PathPoint

SMALL = {"name": "small", "kind": "external", "version": "1"}
LARGE = {"name": "large", "kind": "external", "version": "1"}
ONNX = {"name": "small", "kind": "onnx", "model": "small.onnx", "sha256": "0" * 64}
SOUND = {
    "version": 1,
    "name": "p",
    "deadline": 1.0,
    "max_deadline": 2.0,
    "tiers": [SMALL, LARGE],
    "escalation": {"thresholds": [0.8]},
}
NONE = "the promise is 'none': no certificate stands behind these thresholds"


def _warned(cores: int = 2, **changes: Any) -> list[str]:
    settings = {key: value for key, value in {**SOUND, **changes}.items() if value is not None}
    found = pitfalls(Policy.from_dict(settings), cores)
    return [warning for warning in found if warning != NONE]


def test_a_sound_policy_has_none() -> None:
    assert _warned() == []
    assert pitfalls(Policy.from_dict(SOUND), 2) == [NONE]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deadline": None, "max_deadline": None}, "no deadline"),
        ({"max_deadline": None}, "no max_deadline"),
        ({"mode": "top_only"}, "mode top_only"),
        ({"tiers": [SMALL], "escalation": None}, "one tier"),
        ({"escalation": {"thresholds": [0.0]}}, "'small': threshold 0 accepts every"),
        ({"escalation": {"thresholds": [1.0]}}, "'small': threshold 1 accepts hardly any"),
        ({"tiers": [{**ONNX, "sha256": None}, LARGE]}, "'small': any file"),
        ({"tiers": [{**ONNX, "threads": 3}, LARGE]}, "'small': 3 threads on 2 usable cores"),
        ({"tiers": [{**SMALL, "version": None}, LARGE], "cache": {}}, "'small': cached without"),
        (
            {"tiers": [{**ONNX, "execution": "inline", "workers": 2}, LARGE]},
            "'small': an inline tier has no workers",
        ),
        ({"tiers": [{**SMALL, "execution": "inline", "queue": 9}, LARGE]}, "inline tier has no q"),
        (
            {"escalation": {"thresholds": [0.8], "allowance": {"burst": 9}}},
            "escalation.allowance: without overall or per_tenant",
        ),
        ({"complexity": {"weights": [1]}}, "complexity: nothing is skipped"),
        ({"cache": {"ttl": 1, "per_tenant": "100%"}}, "cache.per_tenant: all of the cache"),
        ({"inputs": {"cast": "none"}}, "inputs: tiers in Python declare none"),
        ({"golden": "golden.json"}, "golden: tiers in Python are not asked"),
        ({"tiers": [{**SMALL, "outputs": "logits"}, LARGE]}, "'small': outputs: a tier in Python"),
        (
            {"tiers": [SMALL, {**ONNX, "name": "l", "outputs": "label", "classes": ["a", "b"]}]},
            "'l': classes: of kind label the outputs are the labels",
        ),
        (
            {"tiers": [{**SMALL, "confidence": {"score": "supplied", "temperature": 2}}, LARGE]},
            "'small': temperature: a supplied confidence",
        ),
        ({"tiers": [{**ONNX, "spinning": True}, LARGE]}, "'small': spinning: of one thread"),
    ],
)
def test_each_pitfall_is_named(changes: dict[str, Any], words: str) -> None:
    if "tiers" in changes:
        drop = [{k: v for k, v in tier.items() if v is not None} for tier in changes["tiers"]]
        changes = {**changes, "tiers": drop}
    assert any(words in warning for warning in _warned(**changes))


def test_a_threshold_under_chance_accepts_everything() -> None:
    scored = {**SMALL, "confidence": "max_probability"}
    tiers = [scored, LARGE]
    low, high = {"thresholds": [0.4]}, {"thresholds": [0.6]}
    assert "accepts every answer" in _warned(tiers=tiers, classes=[0, 1], escalation=low)[0]
    assert _warned(tiers=tiers, classes=[0, 1], escalation=high) == []
    assert _warned(tiers=tiers, classes=[0, 1, 2], escalation=low) == []


def test_threads_of_all_tiers_count_where_they_are_pools() -> None:
    pools = [{**ONNX, "threads": 2}, {**ONNX, "name": "large", "threads": 2}]
    assert _warned(cores=2, tiers=pools) == ["4 threads in all tiers on 2 usable cores"]
    assert _warned(cores=4, tiers=pools) == []
    assert _warned(cores=1, tiers=[ONNX, {**ONNX, "name": "large"}]) == []


def test_a_certificate_that_certifies_nothing_but_the_top_tier_is_named() -> None:
    always = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0)
    certificate = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=50,
        tiers=("small", "large"), path=(always,), certified=1,
    )  # fmt: skip
    policy = attrs.evolve(Policy.from_dict(SOUND), certificate=certificate)
    assert "the certificate has no digests: whether it is of these tiers cannot be told" in (
        pitfalls(policy, 2)
    )
    assert "only 'always escalate' is certified: every request pays for every tier" in pitfalls(
        policy, 2
    )


def test_what_cannot_move_is_named() -> None:
    always = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0, escalation=(1.0, 1.0))
    certificate = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=50,
        tiers=("small", "large"), path=(always,), certified=1, digests={"small": "9", "large": "9"},
    )  # fmt: skip
    tree = {**SOUND, "escalation": {"certificate": "c.json", "spare_budget": True}, "load": {}}
    policy = attrs.evolve(Policy.from_dict(tree), certificate=certificate)
    found = pitfalls(policy, 2)
    assert [warning.partition(":")[0] for warning in found] == [
        "only 'always escalate' is certified", "load", "escalation.spare_budget",
    ]  # fmt: skip
