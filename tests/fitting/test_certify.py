import attrs
import numpy as np
import pytest

from cascade.fitting.certify import (
    TestedPath,
    cannot_certify,
    certificate_of,
    certified_prefix,
    fixed_sequence_test,
    thinned,
)
from cascade.fitting.paths import deciding_tiers, learned_path, two_tier_path
from cascade.fitting.pvalues import binomial_p_values, rows_needed
from cascade.fitting.verify import verify_certificate


def rows(n, k=2, seed=0):
    rng = np.random.default_rng(seed)
    sure = rng.random((n, k - 1))
    return sure, rng.random((n, k - 1)) < 0.3 * (1 - sure)


def two_tiers(n=1000, seed=0, **bounds):
    sure, lost = rows(n, seed=seed)
    bounds = {"max_loss": 0.05, "alpha": 0.1, **bounds}
    return fixed_sequence_test(two_tier_path(sure), sure, lost, **bounds)


def three_tiers(covers="adaptive", seed=0):
    sure, lost = rows(1500, k=3, seed=seed)
    path = learned_path(sure[:500], lost[:500], [1.0, 4.0, 25.0], 0.05)
    return fixed_sequence_test(
        path, sure[500:], lost[500:], max_loss=0.05, alpha=0.1, covers=covers
    ), (path, sure[500:], lost[500:])


def test_counts_equal_routing_row_by_row():
    sure, lost = rows(60)
    sure[:3] = np.nan
    sure[3:9] = 0.5
    path = two_tier_path(sure)
    tested = fixed_sequence_test(path, sure, lost, max_loss=0.05, alpha=0.1)
    for index, thresholds in enumerate(path):
        accepted = deciding_tiers(sure, thresholds) == 0
        assert tested.losses[index] == lost[accepted, 0].sum()
        assert tested.calls[index, 1] == pytest.approx(1 - accepted.mean())


def test_p_values_are_those_of_the_counts():
    tested = two_tiers()
    expected = binomial_p_values(tested.losses, 1000, 0.05)
    assert tested.p_values[1:].tolist() == expected[1:].tolist()


def test_the_prefix_ends_at_the_first_failure():
    tested = two_tiers()
    assert 1 < tested.certified < len(tested.p_values)
    assert (tested.p_values[: tested.certified] <= 0.1).all()
    assert tested.p_values[tested.certified] > 0.1


def test_a_later_success_counts_for_nothing():
    sure = np.array([[0.9], [0.8], [0.7]])
    path = np.array([[2.0, 2.0], [0.5, 2.0], [2.0, 2.0]])
    pair = np.hstack([np.tile(sure, (200, 1)), np.zeros((600, 1))])
    lost = np.zeros((600, 2), dtype=bool)
    lost[:, 0] = True
    tested = fixed_sequence_test(path, pair, lost, max_loss=0.05, alpha=0.1, covers="fixed_point")
    assert tested.losses.tolist() == [0, 600, 0]
    assert tested.certified == 1


def test_losses_of_an_adaptive_path_never_fall():
    adaptive, (path, sure, lost) = three_tiers()
    fixed, _ = three_tiers("fixed_point")
    ever = np.zeros(len(sure), dtype=bool)
    for index, thresholds in enumerate(path):
        deciding = deciding_tiers(sure, thresholds)
        now = np.array([tier < 2 and lost[row, tier] for row, tier in enumerate(deciding)])
        ever |= now
        assert adaptive.losses[index] == ever.sum()
        assert fixed.losses[index] == now.sum()
    assert adaptive.covers == "adaptive"
    assert fixed.covers == "fixed_point"


def test_two_tiers_cover_adaptive_use_by_themselves():
    sure, lost = rows(200)
    tested = fixed_sequence_test(
        two_tier_path(sure), sure, lost, max_loss=0.05, alpha=0.1, covers="fixed_point"
    )
    assert tested.covers == "adaptive"


@pytest.mark.parametrize("path", [[[0.9], [0.5]], [[2.0], [0.5], [0.9]]])
def test_a_path_starts_strict_and_falls(path):
    with pytest.raises(ValueError, match="path"):
        fixed_sequence_test(np.array(path), *rows(10), max_loss=0.05, alpha=0.1)


def test_thinning_keeps_the_ends_and_the_last_that_holds():
    tested = two_tiers()
    small = thinned(tested, keep=16)
    assert len(small.thresholds) <= 16
    holds, fails = tested.certified - 1, tested.certified
    assert small.thresholds[small.certified - 1] == tested.thresholds[holds]
    assert small.thresholds[small.certified] == tested.thresholds[fails]
    assert small.thresholds[[0, -1]].ravel().tolist() == [2.0, 0.0]


@pytest.mark.parametrize("n", [0, 1, 100])
def test_too_few_rows_and_how_many_are_needed(n):
    sure, _ = rows(n)
    lost = np.zeros((n, 1), dtype=bool)
    tested = fixed_sequence_test(two_tier_path(sure), sure, lost, max_loss=0.01, alpha=0.1)
    assert tested.certified == 1
    error = cannot_certify(tested)
    assert error.needed == 230
    assert f"{n} rows were tested, about 230 could suffice" in str(error)


@pytest.mark.parametrize("n", [2, 4, 229])
def test_of_rows_that_could_certify_nothing_the_tiers_are_not_blamed(n):
    sure, lost = np.full((n, 1), 0.9), np.ones((n, 1), dtype=bool)
    tested = fixed_sequence_test(two_tier_path(sure), sure, lost, max_loss=0.01, alpha=0.1)
    error = cannot_certify(tested)
    assert error.needed == 230
    assert f"{n} rows were tested, and at least 230 are needed even if none is lost" in str(error)


def test_no_number_of_rows_helps_a_tier_that_is_wrong_when_surest():
    sure, lost = np.full((1000, 1), 0.9), np.ones((1000, 1), dtype=bool)
    tested = fixed_sequence_test(two_tier_path(sure), sure, lost, max_loss=0.01, alpha=0.1)
    assert cannot_certify(tested).needed is None


def test_nothing_to_complain_of():
    assert cannot_certify(two_tiers()) is None


def test_the_certificate_says_what_was_counted():
    tested = two_tiers()
    cert = certificate_of(tested, ["small", "large"], loss="gross", costs=[1.0, 10.0])
    last = cert.path[cert.certified - 1]
    assert last.losses == tested.losses[tested.certified - 1]
    assert last.cost == pytest.approx(1.0 + 10.0 * last.escalation[1])
    assert cert.path[0].escalation == (0.0, 1.0)
    assert (cert.n, cert.loss, cert.covers) == (1000, "gross", "adaptive")


@pytest.mark.parametrize("seed", range(5))
def test_what_was_certified_verifies(seed):
    two = certificate_of(two_tiers(seed=seed), ["a", "b"], loss="gross")
    three = certificate_of(three_tiers(seed=seed)[0], ["a", "b", "c"], loss="gross")
    assert verify_certificate(two) == []
    assert verify_certificate(three) == []


# -- at the edges --------------------------------------------------------------------------------


def test_a_p_value_of_exactly_alpha_holds():
    assert certified_prefix(np.array([0.0, 0.1, 0.1000001]), 0.1) == 2


def test_equal_thresholds_are_no_rise_and_one_can_be_reached():
    sure = np.array([[1.0], [0.9], [0.2]])
    lost = np.array([[False], [False], [True]])
    path = np.array([[2.0], [1.0], [1.0], [0.5]])
    tested = fixed_sequence_test(path, sure, lost, max_loss=0.5, alpha=0.9)
    assert tested.losses.tolist() == [0, 0, 0, 0]
    assert tested.calls[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0]  # 2.0 skips the tier, 1.0 asks it
    np.testing.assert_allclose(tested.calls[:, 1], [1.0, 2 / 3, 2 / 3, 1 / 3])


def long_path(points=500, certified=200):
    thresholds = np.r_[2.0, np.linspace(1.0, 0.0, points - 1)][:, None]
    losses = np.arange(points)
    p_values = np.where(np.arange(points) < certified, 0.01, 0.5)
    calls = np.column_stack([np.ones(points), thresholds[:, 0].clip(0, 1)])
    return TestedPath(10_000, 0.05, 0.1, "adaptive", thresholds, losses, p_values, calls, certified)


def test_a_thinned_path_keeps_its_ends_and_both_sides_of_the_last_that_holds():
    whole = long_path()
    few = thinned(whole, keep=64)
    assert 60 <= len(few.thresholds) <= 64
    kept = few.losses.tolist()
    assert {0, 199, 200, 499} <= set(kept)
    assert few.certified == sum(index < 200 for index in kept)
    assert few.certified > 2 * (len(kept) - few.certified)  # those that hold are what is used


def test_a_short_path_and_one_of_three_tiers_are_kept_whole():
    short = long_path(64, 10)
    assert thinned(short, keep=64) is short
    wide = attrs.evolve(long_path(), thresholds=np.full((500, 2), 0.5))
    assert thinned(wide, keep=64) is wide


def test_a_path_that_holds_to_its_end_is_thinned_without_falling_off_it():
    few = thinned(long_path(500, 500), keep=64)
    assert few.certified == len(few.thresholds)
    assert few.losses[-1] == 499


def test_what_could_suffice_is_said_for_the_points_beyond_always():
    tested = attrs.evolve(
        long_path(3, 1), n=200, losses=np.array([0, 2, 9]), max_loss=0.02, alpha=0.1
    )
    problem = cannot_certify(tested)
    assert problem.needed == rows_needed(0.02, 0.1, 0.01)
    assert "a loss of at most 0.02 with confidence 0.9: 200 rows were tested" in str(problem)
    hopeless = cannot_certify(attrs.evolve(tested, losses=np.array([0, 4, 9])))
    assert hopeless.needed is None
    assert "lose more than that even where they are surest" in str(hopeless)
    assert cannot_certify(attrs.evolve(tested, certified=2)) is None
