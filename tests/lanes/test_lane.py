"""What all lanes share: a batch's compute is the model's time, not that of reading it."""

import numpy as np

from cascade.lanes import InlineLane
from cascade.protocols import BoundTier
from cascade.testing import VirtualClock


class Slow(BoundTier):
    """A model of two seconds, whose outputs take three more to read."""

    name = "slow"

    def __init__(self, clock):
        self.clock = clock

    def run(self, job):
        raise NotImplementedError

    def read(self, raw):
        raise NotImplementedError

    def run_rows(self, rows, n, context):
        self.clock.advance(2.0)
        return rows

    def read_rows(self, raw, n):
        self.clock.advance(3.0)
        return np.zeros(n), np.full(n, 0.5)


def test_reading_a_batch_is_not_compute():
    clock = VirtualClock()
    reply = InlineLane(0, Slow(clock), clock).call_rows(np.zeros((4, 2)), 4, None)
    assert reply.finished - reply.started == 2_000_000_000


def test_rows_of_several_shapes_are_put_back_in_their_order():
    clock = VirtualClock()
    rows = [np.full(n, n) for n in (1, 2, 1, 3)]

    class Sums(Slow):
        def read_rows(self, raw, n):
            return raw.sum(axis=1), np.full(n, 0.5)

    reply = InlineLane(0, Sums(clock), clock).call_rows(rows, 4, None)
    assert reply.values.tolist() == [1, 4, 1, 9]
    assert reply.finished - reply.started == 6_000_000_000  # three runs
