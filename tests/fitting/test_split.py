import numpy as np
import pytest

from cascade.fitting.split import hold_out, learn_and_test, seed_of


def test_parts_are_disjoint_and_complete():
    train, held, _ = hold_out(np.arange(100) % 3, 0.3, np.random.RandomState(0))
    assert sorted([*train, *held]) == list(range(100))
    assert len(held) == 30


def test_every_class_is_trained():
    codes = np.array([0] * 50 + [1] * 50 + [2])
    for seed in range(20):
        train, _, _ = hold_out(codes, 0.9, np.random.RandomState(seed))
        assert set(codes[train]) == {0, 1, 2}


def test_all_rows_are_held_out_where_nothing_is_trained():
    train, held, _ = hold_out(np.zeros(5, int), 1.0, np.random.RandomState(0))
    assert (len(train), len(held)) == (0, 5)


def test_a_third_is_learned_from():
    learn, test = learn_and_test(300, np.random.RandomState(0))
    assert (len(learn), len(test)) == (100, 200)
    assert not set(learn) & set(test)


def test_seeded():
    one, two = (learn_and_test(50, np.random.RandomState(7))[0] for _ in range(2))
    assert (one == two).all()


def test_a_row_that_is_trained_on_for_its_class_alone_is_told_among_the_held_out():
    codes = np.array([0] * 50 + [1] * 50 + [2, 2, 2])
    found = set()
    for seed in range(50):
        train, held, moved = hold_out(codes, 0.7, np.random.RandomState(seed), least=2)
        assert len(held) == round(0.7 * len(codes))  # a plain random sample, whatever is moved
        assert set(held[moved]) == set(train) & set(held)
        assert (codes[train] == 2).sum() >= 2
        found |= set(codes[held[moved]])
    assert found == {2}


def test_a_seed_is_one_that_can_be_written_down():
    assert seed_of(np.int64(3)) == 3
    assert type(seed_of(np.int64(3))) is int
    assert seed_of(None) != seed_of(None)
    for wrong in (-1, 2**32, 1.5, "1", True):
        with pytest.raises(ValueError, match="seed: expected a whole number between 0 and"):
            seed_of(wrong)
