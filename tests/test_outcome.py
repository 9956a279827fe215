"""Outcomes: how requests end is a closed list, and what is no answer is raised."""

import re
from pathlib import Path

import attrs
import pytest

from cascade import (
    Abstained,
    CascadeError,
    DeadlineExceeded,
    Degraded,
    Disposition,
    Outcome,
    Overloaded,
    Reason,
    TierError,
)
from cascade.ladder import Ladder
from cascade.testing import outcome, router_for, scripted
from cascade.types import seconds

CONCEPTS = Path(__file__).parents[1] / "docs" / "concepts.md"
TREE = {
    "version": 1, "name": "p", "deadline": "50ms",
    "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
    "escalation": {"thresholds": [0.8]},
}  # fmt: skip


def test_how_a_request_ends_is_a_closed_list():
    assert [*map(str, Disposition)] == [
        "accepted", "cached", "degraded", "abstained", "shed", "failed",
    ]  # fmt: skip
    assert [*map(str, Reason)] == [
        "confident", "top", "cache", "deadline", "load", "overload", "breaker", "allowance",
        "fault", "mode", "unsure",
    ]  # fmt: skip


def documented():
    """Return each disposition's reasons, as the documentation has them."""
    table = [
        line.split("|")
        for line in CONCEPTS.read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]
    return {re.sub(r"\W", "", row[1]): re.findall(r"`(\w+)`", row[2]) for row in table}


def test_the_documentation_has_every_disposition_and_every_reason():
    rows = documented()
    assert list(rows) == [*map(str, Disposition)]
    assert {reason for reasons in rows.values() for reason in reasons} == {*map(str, Reason)}


def test_an_outcome_for_a_test_ends_as_the_documentation_says():
    for disposition, reasons in documented().items():
        for reason in Reason:
            if str(reason) in reasons:
                made = outcome(None, disposition=disposition, reason=reason)
                assert (str(made.disposition), made.reason) == (disposition, reason)
            else:
                with pytest.raises(ValueError, match="reason: expected"):
                    outcome(None, disposition=disposition, reason=reason)


def test_ends_cannot_be_changed():
    end = Ladder(("small", "large")).accepted[0][True]
    for name in attrs.fields_dict(type(end)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(end, name, None)


RAISED = [
    ("abstained", "unsure", Abstained),
    ("degraded", "load", Degraded),
    ("shed", "deadline", DeadlineExceeded),
    ("shed", "overload", Overloaded),
    ("shed", "breaker", Overloaded),
    ("shed", "allowance", Overloaded),
    ("failed", "deadline", DeadlineExceeded),
    ("failed", "fault", TierError),
]


@pytest.mark.parametrize(("disposition", "reason", "kind"), RAISED)
@pytest.mark.parametrize("degraded", [False, True])
def test_what_is_no_answer_is_raised_where_it_is_unwrapped(disposition, reason, kind, degraded):
    found = outcome(None, disposition=disposition, reason=reason)
    if degraded and kind is Degraded:
        assert found.unwrap(degraded=True) is None
        return
    with pytest.raises(CascadeError) as caught:
        found.unwrap(degraded=degraded)
    assert type(caught.value) is kind
    assert caught.value.outcome is found


def test_rows_without_an_answer_raise_what_route_would():
    broken = scripted(error=ConnectionError("secret"))
    with router_for(TREE, small=broken, large=broken) as router:
        rows = router.route_many(["a", "b", "c"])
    with pytest.raises(TierError, match=r"^no answer: small, large failed$") as caught:
        rows[1].unwrap()
    assert caught.value.tier == "large"
    with router_for(TREE, small=scripted(hangs=True)) as router:
        rows = router.route_many(["a", "b", "c"], deadline=0.5)
        with pytest.raises(DeadlineExceeded) as caught:
            router.route("a", deadline=0.5)
    with pytest.raises(DeadlineExceeded, match=str(caught.value)):
        rows[2].unwrap()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"small": 0.9}, "not covered by a promise"),  # the thresholds have no certificate
        ({"small": 0.1}, "without loss: it is the top tier"),
    ],
)
def test_nothing_is_said_to_be_promised_that_is_not(answers, words):
    small = scripted(lambda _: ("cat", answers["small"]))
    with router_for(TREE, small=small, large=scripted(lambda _: ("dog", 0.9))) as router:
        assert router.route("x").explain().splitlines()[0].endswith(f", {words}")


def test_an_answer_that_is_withheld_is_not_said_to_be_accepted():
    tree = TREE | {"escalation": {**TREE["escalation"], "abstain_below": 0.6}}
    unsure = scripted(lambda _: ("cat", 0.1))
    with router_for(tree, small=unsure, large=unsure) as router:
        for found in (router.route("x"), router.route_many(["x"] * 4)[0]):
            assert found.disposition == "abstained"
            assert "accepted" not in found.explain()
            assert "2. large: withheld, confidence 0.1000" in found.explain()


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (0.0, "0 µs"), (1.0000000000000002e-06, "1 µs"), (56.94e-6, "56.9 µs"),
        (0.9996e-3, "1 ms"), (8.3313e-3, "8.33 ms"), (0.99949, "999 ms"), (0.9996, "1 s"),
        (1.0, "1 s"), (60.0, "60 s"), (119.0, "119 s"), (600.0, "10 min"), (3600.0, "1 h"),
        (1e9, "277,778 h"),
    ],
)  # fmt: skip
def test_times_are_told_in_a_unit_that_suits_them(time, said):
    assert seconds(time) == said
    assert f"took {said} of a budget of {said}: input {said}, transfer 0 µs" in _taking(time)


def _taking(time):
    ns = round(time * 1e9)
    finish = outcome("cat")._trace[0]
    site = outcome("cat")._site
    return Outcome(1, "cat", None, ns, (finish, 0, ns, ns, ()), site).explain()
