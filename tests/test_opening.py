"""What the tiers of a ladder must have in common when it is opened: their classes."""

import pytest

import cascade
from cascade import Policy, PolicyError, Router

SURE = [[0.25, 0.75]]


def ladder(small, large, **more):
    tiers = [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}]
    tree = {"version": 1, "name": "p", "deadline": "1s", "tiers": tiers}
    given = {k: v for k, v in more.items() if k == "postprocess"}
    policy = Policy.from_dict(
        tree
        | {"escalation": {"thresholds": [0.5]}}
        | {k: v for k, v in more.items() if k not in given}
    )
    return Router(policy, tiers={"small": small, "large": large}, env={}, **given)


def labelled(*classes):
    return cascade.tier(lambda rows: SURE * len(rows), returns="probabilities", classes=classes)


def test_the_same_classes_in_another_order_are_the_same():
    with ladder(labelled("cat", "dog"), labelled("dog", "cat")) as router:
        assert router.route(1.0).value == "dog"


@pytest.mark.parametrize("large", [("cat", "eel"), ("cat", "dog", "eel"), (0, 1)])
def test_others_are_refused_and_both_tiers_named(large):
    with pytest.raises(PolicyError, match="tiers 'small' and 'large': classes: expected one set"):
        ladder(labelled("cat", "dog"), labelled(*large)).warmup()


def test_true_is_not_one():
    with pytest.raises(PolicyError, match="not in both"):
        ladder(labelled(0, 1), labelled(False, True)).warmup()


def test_what_a_tier_does_not_say_is_not_held_against_it():
    with ladder(labelled("cat", "dog"), len) as router:
        assert router.route("ab").value == "dog"


def test_a_function_of_ones_own_may_give_other_names():
    names = {0: "cat", 1: "dog"}
    with ladder(labelled(0, 1), labelled("cat", "dog"), postprocess={"small": names.get}) as router:
        assert router.route(1.0).value == "dog"
