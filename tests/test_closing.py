"""Closing: what is on its way is answered on every tier that it needs, what comes is refused."""

import threading
import time

import numpy as np
import pytest

import cascade
from cascade import CascadeError, Policy, PolicyError, Router


class Held:
    """A tier that says when it was begun, and answers when it is let go."""

    def __init__(self, confidence):
        self.confidence = confidence
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, xs):
        self.begun.set()
        assert self.gate.wait(30.0)
        return [(x, self.confidence) for x in xs]


def closing(grace, *, many=False):
    """Close a router while its small tier runs, with both tiers held."""
    tree = {
        "version": 1, "name": "p", "deadline": "60s",
        "tiers": [{"name": "small", "kind": "external", "execution": "worker"},
                  {"name": "large", "kind": "external", "execution": "worker"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    small, large = Held(0.1), Held(0.9)
    tiers = {
        "small": cascade.tier(small, returns="pairs"),
        "large": cascade.tier(large, returns="pairs"),
    }
    router, answers = Router(Policy.from_dict(tree), tiers=tiers), []

    def ask():
        try:
            if many:
                answers.append(router.route_many(np.array(["x", "y"])).values.tolist())
            else:
                answers.append(router.route("x").value)
        except CascadeError as error:
            answers.append(type(error).__name__)

    asking = threading.Thread(target=ask)
    asking.start()
    assert small.begun.wait(30.0)
    ending = threading.Thread(target=lambda: router.close(grace=grace))
    ending.start()
    while not router.health().closed:
        time.sleep(0.001)
    return router, small, large, asking, ending, answers


@pytest.mark.parametrize("many", [False, True])
def test_what_escalates_while_the_router_closes_is_answered(many):
    router, small, large, asking, ending, answers = closing(60.0, many=many)
    with pytest.raises(PolicyError, match="closed"):
        router.route("late")
    small.gate.set()
    assert large.begun.wait(30.0)  # the next tier is asked although the router is closing
    assert ending.is_alive()
    large.gate.set()
    asking.join()
    ending.join()
    assert answers == ([["x", "y"]] if many else ["x"])


def test_what_has_not_ended_after_the_grace_is_not_waited_for():
    router, small, large, asking, ending, answers = closing(0.01)
    ending.join()
    assert not answers
    small.gate.set()
    asking.join()
    assert not large.begun.is_set()  # its lane is closed
    assert answers == ["x"]  # the best answer there is
    with pytest.raises(PolicyError, match="closed"):
        router.route("late")
