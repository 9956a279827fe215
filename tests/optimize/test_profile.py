import numpy as np
import pytest

from cascade.optimize.profile import _affine, measure


class Machine:
    """A tier on a clock of its own: 3 ms per call, 1 ms per row, every 10th call 5 ms late."""

    def __init__(self):
        self.now = 0.0
        self.calls = 0
        self.sizes = set()

    def __call__(self, rows):
        self.calls += 1
        self.sizes.add(len(rows))
        self.now += 0.003 + 0.001 * len(rows) + (0.005 if self.calls % 10 == 0 else 0.0)


def test_finds_the_law_and_the_margin():
    machine = Machine()
    found = measure(machine, np.zeros((3, 2)), clock=lambda: machine.now)
    assert found.overhead == pytest.approx(0.003)
    assert found.per_row == pytest.approx(0.001)
    assert found.residual == pytest.approx(0.005)
    assert machine.sizes == {1, 2, 4, 8}


def test_a_slow_tier_is_run_a_few_times_only():
    machine = Machine()
    measure(machine, np.zeros((1, 2)), sizes=(1, 64), clock=lambda: machine.now)
    assert machine.calls <= 80


@pytest.mark.parametrize(
    ("medians", "law"),
    [
        ({1: 2.0}, (0.0, 2.0)),
        ({1: 1.0, 2: 3.0}, (0.0, 1.25)),
        ({1: 2.0, 2: 1.0}, (1.5, 0.0)),
        ({1: 2.0, 2: 3.0, 4: 5.0}, (1.0, 1.0)),
    ],
)
def test_neither_part_of_the_law_is_negative(medians, law):
    assert _affine(medians) == pytest.approx(law)
