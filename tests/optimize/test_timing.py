import numpy as np
import pytest

from cascade.optimize.timing import GAIN, compare, interleave, sign_test


class Machine:
    """Contenders on a clock of its own; the machine's mood doubles all times in odd rounds."""

    def __init__(self, **costs):
        self.now, self.costs, self.order = 0.0, costs, []

    def run(self, name):
        def call():
            self.now += self.costs[name]
            if not self.order or self.order[-1] != name:
                self.order.append(name)

        return call

    def measure(self, rounds):
        runs = {name: self.run(name) for name in self.costs}
        return interleave(runs, rounds, clock=lambda: self.now)


def test_contenders_take_turns_in_an_order_that_rotates():
    machine = Machine(a=0.001, b=0.002, c=0.5)
    found = machine.measure(3)
    assert "".join(machine.order) == "abcbcacab".replace("cc", "c").replace("aa", "a")
    assert {name: times.tolist() for name, times in found.items()} == {
        "a": pytest.approx([0.001] * 3),
        "b": pytest.approx([0.002] * 3),
        "c": pytest.approx([0.5] * 3),
    }


def test_a_gain_must_be_large_and_no_noise():
    slow = np.full(15, 1.0)
    assert compare(slow * 0.9, slow).faster
    assert not compare(slow * (1 - GAIN / 2), slow).faster  # certain, and not worth it
    noisy = np.where(np.arange(15) < 9, 0.5, 2.0)  # a fine median, in 9 of 15 rounds
    assert compare(noisy, slow).ratio == 0.5
    assert not compare(noisy, slow).faster
    assert not compare(slow, slow).faster


def test_pairs_withstand_moods_of_the_machine():
    mood = np.geomspace(1, 100, 15)
    assert compare(mood * 0.8, mood).faster
    assert not compare(mood, mood * 0.8).faster


def test_the_sign_test_is_exact():
    assert sign_test(15, 15) == pytest.approx(0.5**15)
    assert sum(np.diff([sign_test(k, 7) for k in range(8, -1, -1)])) == pytest.approx(1.0)
    assert sign_test(13, 15) <= 0.01 < sign_test(12, 15)


def test_contenders_of_other_rounds_are_not_compared():
    with pytest.raises(ValueError):
        compare([1.0], [1.0, 2.0])
