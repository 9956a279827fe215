"""Facts: what is said of a call to one who came to it late."""

import pytest

from cascade.facts import Failed, Refused, Replied, TimedOut, since
from cascade.types import Reason

TIMES = {"submitted": 10, "started": 30, "finished": 50, "prepared": 15}


@pytest.mark.parametrize(
    ("begun", "submitted", "started", "finished", "prepared"),
    [(5, 10, 30, 50, 15), (20, 20, 30, 50, 10), (40, 40, 40, 50, 0), (60, 60, 60, 60, 0)],
)
@pytest.mark.parametrize(
    "fact",
    [Replied(1, "cat", 0.9, **TIMES), Failed(1, ValueError(), **TIMES), TimedOut(1, **TIMES)],
    ids=lambda fact: type(fact).__name__,
)
def test_what_was_before_one_waited_is_not_his_time(
    fact, begun, submitted, started, finished, prepared
):
    seen = since(fact, begun)
    assert (seen.submitted, seen.started) == (submitted, started)
    assert (seen.finished, seen.prepared) == (finished, prepared)
    assert (seen.tier, fact.submitted) == (1, 10)


def test_a_refusal_took_no_time():
    refused = Refused(1, Reason.OVERLOAD, 10)
    assert since(refused, 20) is refused
