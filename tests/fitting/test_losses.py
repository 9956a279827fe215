import numpy as np
import pytest

from cascade.fitting.losses import loss_table

SMALL, LARGE = np.array(["a", "b", "b", "b"]), np.array(["a", "a", "a", "b"])
TRUTH = np.array(["a", "a", "b", "c"])


def test_gross_counts_only_where_the_top_tier_is_right():
    assert loss_table("gross", [SMALL, LARGE], TRUTH).T.tolist() == [[False, True, False, False]]


def test_disagreement_needs_no_truth():
    assert loss_table("disagreement", [SMALL, LARGE]).T.tolist() == [[False, True, True, False]]


def test_one_column_per_tier_below_the_top():
    assert loss_table("gross", [SMALL, SMALL, LARGE], TRUTH).shape == (4, 2)


def test_gross_without_truth_says_what_to_do():
    with pytest.raises(ValueError, match="disagreement"):
        loss_table("gross", [SMALL, LARGE])


def test_unknown_loss():
    with pytest.raises(ValueError, match="gross, disagreement; got 'nett'"):
        loss_table("nett", [SMALL, LARGE])
