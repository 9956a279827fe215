"""``route_many`` under a deadline: runs of a size at which little is lost, in virtual time."""

from collections import Counter

import pytest

from cascade import Policy, Router
from cascade.batching import Curve, portion

MS = 1_000_000


class Tier:
    """Takes its time on a clock of its own, and notes how many rows it was asked for at once."""

    def __init__(self, overhead, per_row):
        self.now, self.sizes = 10**12, []
        self._overhead, self._per_row = overhead, per_row

    def __call__(self, xs):
        self.now += round(self._overhead + self._per_row * len(xs))
        self.sizes.append(len(xs))
        return list(xs)


def many(tier, rows, deadline, *, known):
    tree = {"version": 1, "name": "p", "deadline": "1s",
            "tiers": [{"name": "only", "kind": "external", "execution": "inline"}]}  # fmt: skip
    policy = Policy.from_dict(tree)
    with Router(policy, tiers={"only": tier}, clock=lambda: tier.now) as router:
        for size in (1, 2, 4, 8) if known else ():
            router.route_many(list(range(size)))
        tier.sizes.clear()
        begun = tier.now
        found = router.route_many(list(range(rows)), deadline=deadline)
        assert found.values.tolist()[:1] in ([0], [None])
        ends = Counter(zip(found.dispositions.tolist(), found.reasons.tolist(), strict=True))
        assert ends.keys() <= {("accepted", "top"), ("failed", "deadline")}
        return ends["accepted", "top"], (tier.now - begun) / MS


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("overhead", "per_row", "possible"),
    [(0, 4 * MS, 125), (0.2 * MS, 40 * MS, 12), (50 * MS, 0.1 * MS, 4_500), (5 * MS, MS, 490)],
)
def test_most_rows_are_answered_for_which_there_is_time(overhead, per_row, possible, known):
    tier = Tier(overhead, per_row)
    answered, took = many(tier, 10_000, 0.5, known=known)
    assert answered >= possible * (0.7 if known else 0.4)
    assert took <= 500 or (not known and tier.sizes == [8])  # which nothing said beforehand


@pytest.mark.parametrize("known", [True, False])
def test_where_there_is_time_for_all_they_run_at_once(known):
    tier = Tier(0.02 * MS, 100)
    assert many(tier, 10_000, 5, known=known)[0] == 10_000
    assert tier.sizes == ([10_000] if known else [8, 16, 9_976])


def test_what_cannot_be_in_time_is_refused_at_once():
    tier = Tier(400 * MS, 200 * MS)
    assert many(tier, 10_000, 0.5, known=True) == (0, 0.0)
    assert tier.sizes == []


def test_a_part_is_no_longer_than_what_is_left():
    assert portion(Curve(), 100, left=MS, last=3) == 6
    assert portion(Curve(), 5, left=MS, last=3) == 5
    assert portion(Curve(10.0 * MS, 1.0 * MS), 1_000, left=20 * MS, last=8) == 10
    assert portion(Curve(10.0 * MS, 1.0 * MS), 1_000, left=5 * MS, last=8) == 1
