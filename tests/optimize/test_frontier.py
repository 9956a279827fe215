"""Whole cascades, from scripted answers and times."""

import numpy as np
import pytest

from cascade.optimize.frontier import (
    Ladder,
    Option,
    Rows,
    best,
    evaluate,
    front,
    ladders,
    prove,
    worth,
)

N = 2_000


def option(tier, seconds, wrong, variant="original", unsure=None):
    """Wrong on the first rows, and unsure of these and of some more."""
    values = np.zeros(N, dtype=int)
    values[:wrong] = 1
    sure = np.full(N, 0.99)
    sure[: wrong if unsure is None else unsure] = 0.3
    return Option(tier, variant, seconds, values, sure)


def rows(*options):
    truth = np.zeros(N, dtype=int)
    return Rows(options, options[-1][0].values, truth)


SMALL = [option("small", 1.0, wrong=400)]
LARGE = [option("large", 100.0, wrong=0)]


def test_a_ladder_takes_one_variant_or_none_of_each_tier():
    found = ladders(rows(SMALL, [*LARGE, option("large", 50.0, 0, "int8")]), 0.01, 0.1)
    assert {points[-1].name for points in found} == {
        "large", "large (int8)", "small → large", "small → large (int8)",
    }  # fmt: skip  # small alone loses a fifth


def test_the_mean_is_that_of_the_tiers_that_are_called():
    point = evaluate([*SMALL, *LARGE], (0.5,), LARGE[0].values, np.zeros(N, int), 0.01)
    assert (point.seconds, point.losses, point.accuracy) == (1.0 + 0.2 * 100.0, 0, 1.0)
    never = evaluate([*SMALL, *LARGE], (0.1,), LARGE[0].values, np.zeros(N, int), 0.01)
    assert (never.seconds, never.losses, never.accuracy) == (1.0, 400, 0.8)
    assert never.p_value > 0.99


def test_a_smaller_top_tier_pays_for_what_it_loses_itself():
    lossy = option("large", 10.0, wrong=60, variant="int8")
    found = ladders(rows(SMALL, [*LARGE, lossy]), 0.01, 0.1)
    assert not any(("large", "int8") in points[0].steps for points in found)
    assert any(
        ("large", "int8") in p[0].steps for p in ladders(rows(SMALL, [*LARGE, lossy]), 0.05, 0.1)
    )


def test_the_front_has_what_nothing_beats():
    def at(seconds, losses):
        return Ladder((("a", "original"),), (), seconds, losses, 100, 0.0, None)

    points = [at(1.0, 5), at(2.0, 5), at(3.0, 2), at(2.5, 3), at(4.0, 2)]
    assert [(p.seconds, p.losses) for p in front([points[:2], points[2:]])] == [
        (1.0, 5),
        (2.5, 3),
        (3.0, 2),
    ]


def test_among_equals_the_ladder_of_fewest_tiers_and_changes_is_chosen():
    def at(seconds, *steps):
        return [Ladder(steps, (), seconds, 0, 100, 0.0, None)]

    plain, changed = ("a", "original"), ("a", "int8")
    assert best([at(1.00, plain, ("b", "original")), at(1.02, plain)]).steps == (plain,)
    assert best([at(1.00, changed), at(1.02, plain)]).steps == (plain,)
    assert best([at(1.00, changed), at(1.20, plain)]).steps == (changed,)
    assert best([]) is None


def test_the_proof_is_on_fresh_rows():
    """On the rows seen it is unsure where it is wrong, on fresh ones it is sure everywhere."""
    seen = rows(SMALL, LARGE)
    steps = (("small", "original"), ("large", "original"))
    assert prove(seen, seen, steps, 0.01, 0.1).seconds == pytest.approx(21.0)
    fresh = rows([option("small", 1.0, wrong=400, unsure=0)], LARGE)
    held = prove(seen, fresh, steps, 0.01, 0.1)
    assert held.seconds == pytest.approx(100.0)  # nothing but 'always escalate' is left
    assert held.losses == 0


def test_no_proof_where_even_the_strictest_point_loses_too_much():
    lossy = option("large", 10.0, wrong=60, variant="int8")
    held = rows(SMALL, [*LARGE, lossy])
    assert prove(held, held, (("small", "original"), ("large", "int8")), 0.01, 0.1) is None


def test_without_truth_losses_are_disagreements():
    held = Rows([SMALL, LARGE], LARGE[0].values, None)
    found = {points[-1].name: points[-1] for points in ladders(held, 0.01, 0.1)}
    assert set(found) == {"large", "small → large"}
    assert found["large"].accuracy is None


def test_another_ladder_is_chosen_only_if_it_is_worth_a_change():
    """Among those that are as fast the search prefers few tiers, but not to the ladder in force."""

    def ladder(seconds, *names):
        steps = tuple((name, "original") for name in names)
        return Ladder(steps, (0.5,) * (len(names) - 1), seconds, 1, 100, 0.01, 0.9)

    before = ladder(1.0, "a", "b", "c")
    for seconds in (1.02, 1.0, 0.96):
        assert worth(before, ladder(seconds, "b", "c")) is before
    assert worth(before, fast := ladder(0.94, "b", "c")) is fast
    assert worth(before, None) is before  # what the search found did not hold on fresh rows
    assert worth(None, slow := ladder(2.0, "c")) is slow
