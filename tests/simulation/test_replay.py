"""Replay: the same decisions as when serving, offline."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cascade
from cascade import Policy, PolicyError, RecordingError, Router
from cascade.policy.certificate import Certificate, PathPoint

TIERS = ("small", "middle", "large")


def table_of(rows):
    table = {"truth": ["x"] * len(rows)}
    for i, name in enumerate(TIERS):
        table[f"{name}.value"] = ["x" if row[i][1] else "y" for row in rows]
        table[f"{name}.confidence"] = [row[i][0] for row in rows]
        table[f"{name}.cost"] = [10.0**i] * len(rows)
    table["input"] = [f"{i:03d}" + "!" * (i % 4) for i in range(len(rows))]
    return table


answers = st.tuples(st.floats(0, 1), st.booleans())
tables = st.lists(st.tuples(answers, answers, answers), min_size=1, max_size=10).map(table_of)


@st.composite
def policies(draw):
    escalation = {"thresholds": [draw(st.floats(0, 1)), draw(st.floats(0, 1))]}
    if draw(st.booleans()):
        escalation["abstain_below"] = draw(st.floats(0, 1))
    tree = {
        "version": 1, "name": "p", "deadline": "1h", "escalation": escalation,
        "tiers": [{"name": name, "kind": "external"} for name in TIERS],
        "mode": draw(st.sampled_from(["enforce", "top_only", "first_only"])),
    }  # fmt: skip
    if draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.floats(0, 1), min_size=1, max_size=2)))
        tree["complexity"] = {
            "weights": {"punctuation": 1.0}, "intercept": -2, "skip_above": cuts
        }  # fmt: skip
    return Policy.from_dict(tree)


def tier(table, name):
    pairs = list(zip(table[f"{name}.value"], table[f"{name}.confidence"], strict=True))
    return cascade.tier(lambda texts: [pairs[int(text[:3])] for text in texts], returns="pairs")


@given(tables, policies())
def test_same_facts_same_decisions(table, policy):
    replayed = cascade.replay(policy, table)
    with Router(policy, tiers={name: tier(table, name) for name in TIERS}) as router:
        served = [router.route(text) for text in table["input"]]
        said = router.statistics()
    assert [(o.tier, str(o.disposition)) for o in served] == list(
        zip(replayed.tiers, replayed.ends, strict=True)
    )
    for name in TIERS:
        asked = np.mean([any(step.tier == name for step in o.steps) for o in served])
        assert replayed.calls[name] == pytest.approx(asked)
    assert replayed.uncovered == pytest.approx(said.uncovered)


def test_costs_accuracy_and_shares():
    table = table_of(
        [((0.9, True), (0.9, True), (1, True)), ((0.1, False), (0.2, True), (1, True))]
    )
    policy = Policy.from_dict(
        {"version": 1, "name": "p", "escalation": {"thresholds": [0.5]},
         "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}]}
    )  # fmt: skip
    found = cascade.replay(policy, table)
    assert (found.n, found.accuracy, found.accuracy_top, found.loss) == (2, 1.0, 1.0, 0.0)
    assert found.calls == {"small": 1.0, "large": 0.5}
    assert found.mean_cost == 51.0
    assert found.mean_seconds is None
    assert found.dispositions == {"accepted": 2}
    assert found.uncovered == 0.5  # the small tier's answer: the thresholds promise nothing
    assert cascade.replay(policy, table, costs=[1, 2]).mean_cost == 2.0


def test_an_abstention_is_no_answer():
    policy = Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "1s",
            "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
            "escalation": {"thresholds": [0.8], "abstain_below": 0.5},
        }
    )  # fmt: skip
    table = {
        "truth": ["cat", "dog"], "small.value": ["cat", "cat"], "small.confidence": [0.9, 0.1],
        "large.value": ["cat", "dog"], "large.confidence": [0.9, 0.2],
    }  # fmt: skip
    found = cascade.replay(policy, table)
    assert found.dispositions == {"accepted": 1, "abstained": 1}
    assert (found.accuracy, found.accuracy_top, found.loss) == (0.5, 1.0, 0.5)
    times = {"small": "1ms", "large": "1ms"}
    simulated = cascade.simulate(policy, table, [0.0, 1.0], seconds=times)
    assert simulated.accuracy == 1.0  # of the answers
    assert found.uncovered == 1.0  # nothing is promised
    point = PathPoint(thresholds=(0.8,), losses=0, p_value=0.0)
    certain = policy.certified(
        Certificate(
            max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500,
            tiers=("small", "large"), path=(point,), certified=1,
        )
    )  # fmt: skip
    assert cascade.replay(certain, table).uncovered == 0.0
    simulated = cascade.simulate(certain, table, [0.0, 1.0], seconds=times)
    assert simulated.forced_accepts == 0.0


def test_what_the_policy_decides_by_must_be_there():
    table = table_of([((0.9, True),) * 3])
    policy = Policy.from_dict(
        {"version": 1, "name": "p", "escalation": {"thresholds": [0.5]},
         "tiers": [{"name": "small", "kind": "external", "confidence": "margin"},
                   {"name": "large", "kind": "external"}]}
    )  # fmt: skip
    with pytest.raises(RecordingError, match=r"no column small\.margin"):
        cascade.replay(policy, table)
    with pytest.raises(RecordingError, match="no tier 'tiny'"):
        cascade.replay(
            Policy.from_dict(
                {"version": 1, "name": "p", "tiers": [{"name": "tiny", "kind": "external"}]}
            ),
            table,
        )


def test_an_entry_rule_by_features_of_the_recording():
    table = table_of([((0.9, True), (0.9, True), (1, True))] * 4)
    table["x.hard"] = [0.0, 1.0, 0.0, 1.0]

    def entering(**rule):
        tiers = [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}]
        return Policy.from_dict(
            {"version": 1, "name": "p", "escalation": {"thresholds": [0.5]}, "tiers": tiers,
             "complexity": {"intercept": -5, "skip_above": [0.5], **rule}}
        )  # fmt: skip

    for weights in ([10.0], {"hard": 10.0}):
        found = cascade.replay(entering(weights=weights), table)
        assert list(found.tiers) == ["small", "large", "small", "large"]
    with pytest.raises(RecordingError, match="weighs 2 features, the recording has 1"):
        cascade.replay(entering(weights=[1.0, 2.0]), table)
    del table["input"]
    with pytest.raises(RecordingError, match=r"needs input, or x\.words"):
        cascade.replay(entering(weights={"words": 1.0}), table)


def test_without_costs_there_is_no_mean_cost():
    table = {
        "truth": ["yes"], "small.value": ["yes"], "small.confidence": [0.9], "large.value": ["yes"],
    }  # fmt: skip
    tiers = [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}]
    policy = Policy.from_dict(
        {"version": 1, "name": "p", "escalation": {"thresholds": [0.5]}, "tiers": tiers}
    )
    assert cascade.replay(policy, table).mean_cost is None
    with pytest.raises(RecordingError):
        cascade.replay(policy, table, costs=[1, 2, 3])


@pytest.mark.parametrize("offline", [cascade.replay, cascade.simulate])
def test_a_path_is_no_policy(offline):
    more = () if offline is cascade.replay else ([0.0],)
    with pytest.raises(PolicyError, match=r"got a str; a file is read by Policy.from_yaml\(path\)"):
        offline("policy.yaml", {}, *more)
