"""What all lanes share: a batch's compute is the model's time, not that of reading it."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cascade.calibration import ByLabel
from cascade.errors import TierOutputError
from cascade.facts import Failed, Replied
from cascade.lanes import InlineLane
from cascade.lanes.handle import Handle
from cascade.lanes.lane import Served
from cascade.lanes.watchdog import Watchdog, in_time
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


class Kinds(Slow):
    """Says what it is asked, whatever kind of rows those are."""

    def __init__(self, clock):
        super().__init__(clock)
        self.batches = []

    def run_rows(self, rows, n, context):
        self.batches.append(rows)
        return n

    def read_rows(self, raw, n):
        return np.full(n, raw), None


@pytest.mark.parametrize("by_batch", [False, True])
def test_what_a_tier_s_own_preparation_made_unequal_is_not_padded_unless_the_policy_says_so(
    by_batch,
):
    def tokens(text):
        return np.array([ord(letter) for letter in text])

    if by_batch:
        tokens.batch = lambda texts: [tokens(text) for text in texts]
    clock = VirtualClock()
    apart, padded = Kinds(clock), Kinds(clock)
    lane = InlineLane(0, apart, clock, prepare=tokens)
    assert lane.call_rows(["a", "bc", "d"], 3, None).values.tolist() == [2, 1, 2]
    assert [rows.tolist() for rows in apart.batches] == [[[97], [100]], [[98, 99]]]
    lane = InlineLane(0, padded, clock, prepare=tokens, pad={"ids": 0})
    assert lane.call_rows(["a", "bc", "d"], 3, None).values.tolist() == [3, 3, 3]
    assert [rows.tolist() for rows in padded.batches] == [[[97, 0], [98, 99], [100, 0]]]


def test_prepared_rows_of_one_kind_are_one_batch():
    clock = VirtualClock()
    for prepare, same in ((str.upper, ["A", "B"]), (lambda x: {"k": ord(x)}, {"k": [97, 98]})):
        tier = Kinds(clock)
        InlineLane(0, tier, clock, prepare=prepare).call_rows(["a", "b"], 2, None)
        (rows,) = tier.batches
        assert rows == same if isinstance(rows, list) else rows["k"].tolist() == same["k"]


def test_a_preparation_that_loses_rows_is_at_fault():
    def lossy(x):
        return np.zeros(len(x))

    lossy.batch = lambda xs: [lossy(x) for x in xs[1:]]
    clock = VirtualClock()
    lane = InlineLane(0, Kinds(clock), clock, prepare=lossy)
    with pytest.raises(TierOutputError, match="expected 3 rows back, got 2"):
        lane.call_rows(["a", "bc", "d"], 3, None)


# -- requests that were put together -------------------------------------------------------------


class Told(Slow):
    """Says what it is asked, with the confidences that the test gives it."""

    def __init__(self, clock, confidences=None, fault=None):
        super().__init__(clock)
        self.confidences, self.fault, self.runs = confidences, fault, []

    def run(self, job):
        self.runs.append([job.row])
        if self.fault is not None:
            raise self.fault
        return job.row

    def read(self, raw):
        return raw, None if self.confidences is None else self.confidences[0]

    def run_rows(self, rows, n, context):
        self.runs.append(list(rows))
        if self.fault is not None:
            raise self.fault
        return rows

    def read_rows(self, raw, n):
        sure = None if self.confidences is None else np.array(self.confidences[:n])
        return np.array(raw), sure


def requests(clock, *rows, seconds=10.0):
    until = clock() + round(seconds * 1e9)
    jobs = [SimpleNamespace(row=row, until=until, tenant=None, metadata={}) for row in rows]
    for job in jobs:
        job.cancelled = lambda: False
        job.remaining = lambda: seconds
    return [Served(job, clock()) for job in jobs]


def test_a_batch_without_confidences_has_none():
    clock = VirtualClock()
    group = requests(clock, "a", "b")
    InlineLane(0, Told(clock), clock).serve(group)
    assert [(one.fact.value, one.fact.confidence) for one in group] == [("a", None), ("b", None)]


def test_a_row_of_a_batch_with_an_odd_confidence_is_at_fault_alone():
    clock = VirtualClock()
    group = requests(clock, "a", "b", "c")
    InlineLane(0, Told(clock, [0.9, 1.5, 0.1]), clock).serve(group)
    assert [type(one.fact) for one in group] == [Replied, Failed, Replied]
    assert "this row of a batch has no sound confidence" in str(group[1].fact.error)


@pytest.mark.parametrize(
    ("values", "confidences"),
    [
        (np.zeros(1), np.zeros(2)), (np.zeros(2), np.zeros(3)), ([0.0, 0.0], np.zeros(2)),
        (np.zeros(2), [0.5, 0.5]), (None, None),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_read_is_the_fault_of_all_its_rows(values, confidences):
    class Odd(Told):
        def read_rows(self, raw, n):
            return values, confidences

    clock = VirtualClock()
    served = requests(clock, "x", "y")
    InlineLane(0, Odd(clock), clock).serve(served)
    assert [type(one.fact) for one in served] == [Failed, Failed]


def test_a_row_whose_confidence_is_no_number_is_at_fault_alone():
    class Odd(Told):
        def read_rows(self, raw, n):
            return np.zeros(n), np.array([0.5, "much", 0.5], dtype=object)

    clock = VirtualClock()
    served = requests(clock, "x", "y", "z")
    InlineLane(0, Odd(clock), clock).serve(served)
    assert [type(one.fact) for one in served] == [Replied, Failed, Replied]


def test_a_row_that_cannot_be_looked_at_keeps_nobody_else_from_an_answer():
    class Closed(dict):
        def items(self):
            raise OSError("closed")

    class Tier(Told):
        def run(self, job):
            return dict(job.row.items())

        def read_rows(self, raw, n):
            return np.zeros(n), None

    clock = VirtualClock()
    served = requests(clock, {"k": 1}, Closed(k=1), {"k": 2})
    InlineLane(0, Tier(clock), clock).serve(served)
    assert [type(one.fact) for one in served] == [Replied, Failed, Replied]


def test_each_row_of_a_batch_is_calibrated_by_its_own_label():
    clock = VirtualClock()
    table = ByLabel([0.0, 1.0], {"a": [0.0, 0.5], "b": [0.5, 1.0]}, [0.0, 1.0])
    group = requests(clock, "a", "b")
    InlineLane(0, Told(clock, [1.0, 1.0]), clock, calibration=table).serve(group)
    assert [one.fact.confidence for one in group] == [0.5, 1.0]


def test_who_is_too_late_is_not_run_and_the_one_left_runs_alone():
    clock = VirtualClock()
    tier = Told(clock, [0.9])
    late, good = requests(clock, "late", seconds=0.0), requests(clock, "good")
    lane = InlineLane(0, tier, clock)
    lane.serve([*late, *good])
    assert (late[0].fact, good[0].fact.value, tier.runs) == (None, "good", [["good"]])
    lane.serve(requests(clock, "x", "y", seconds=0.0))
    lane.serve(requests(clock, "x", seconds=0.0))
    assert tier.runs == [["good"]]


def test_what_everybody_has_left_is_not_begun_and_its_fault_is_nobodys():
    clock = VirtualClock()
    tier = Told(clock, [0.9, 0.9])
    group = requests(clock, "a", "b")
    handle = Handle(None, [one.job for one in group])
    handle.stop()
    InlineLane(0, tier, clock).serve(group, handle)
    assert ([one.fact for one in group], tier.runs) == ([None, None], [])

    class Stopped(Told):
        def run_rows(self, rows, n, context):
            context.stop()
            raise RuntimeError

    InlineLane(0, Stopped(clock), clock).serve(group)
    assert [one.fact for one in group] == [None, None]


def test_a_run_that_was_stopped_before_it_could_say_how_is_stopped_when_it_does():
    told = []
    handle = Handle("row", [])
    handle.stop()
    handle.stop_with(lambda: told.append("stopped"))
    assert told == ["stopped"]


def test_asked_outside_of_the_ledger_a_row_is_prepared_all_the_same():
    clock = VirtualClock()
    (one,) = requests(clock, "a")
    lane = InlineLane(0, Told(clock, [0.9]), clock, prepare=str.upper)
    assert lane.plain(one.job) == ("A", 0.9)


def test_groups_of_rows_without_confidences_have_none():
    clock = VirtualClock()
    rows = [np.full(n, n) for n in (1, 2, 1)]

    class Bare(Slow):
        def read_rows(self, raw, n):
            return raw.sum(axis=1), None

    reply = InlineLane(0, Bare(clock), clock).call_rows(rows, 3, None)
    assert (reply.values.tolist(), reply.confidences) == ([1, 4, 1], None)


def test_work_that_was_left_says_when_it_is_over():
    gate, ended = threading.Event(), threading.Event()
    assert in_time(lambda: gate.wait(30.0), 1_000, lambda: ended.set) is None
    assert not ended.is_set()
    gate.set()
    assert ended.wait(30.0)


def test_work_that_is_not_over_in_time_is_left():
    gate, left = threading.Event(), []
    assert in_time(gate.wait, 1_000, lambda: left.append(True)) is None
    assert left == [True]
    gate.set()
    assert in_time(lambda: 5, 10**11, lambda: left.append(True)) == 5
    with pytest.raises(KeyError):
        in_time(lambda: {}["x"], 10**11, lambda: left.append(True))
    assert left == [True]


def test_a_watchdog_that_has_retired_leaves_but_watches_what_comes_late():
    clock = VirtualClock()
    dog = Watchdog(clock)
    with dog.over(Handle(None, ()), clock() + 10**12):
        thread = dog._thread
        dog.retire()
        assert thread.is_alive()
    thread.join(30.0)
    assert not thread.is_alive()
    stopped = threading.Event()
    late = Handle(None, ())
    late.stop_with(stopped.set)
    with dog.over(late, clock()):
        assert stopped.wait(30.0)
        thread = dog._thread
    thread.join(30.0)
    assert not thread.is_alive()


def test_a_run_that_cannot_be_stopped_as_it_said_keeps_no_other_from_it(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))

    tried, stopped = threading.Event(), threading.Event()

    def odd():
        tried.set()
        raise ValueError

    clock = VirtualClock()
    dog = Watchdog(clock)
    for stop, event in ((odd, tried), (stopped.set, stopped)):
        run = Handle(None, ())
        run.stop_with(stop)
        with dog.over(run, clock()):
            assert event.wait(30.0)
    assert shown == [ValueError]
    dog.retire()


def test_a_watchdog_without_a_thread_watches_once_it_can_have_one(monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    clock = VirtualClock()
    dog, stopped = Watchdog(clock), threading.Event()
    late = Handle(None, ())
    late.stop_with(stopped.set)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with dog.over(late, clock()):
            pass
    assert not dog.slots
    with dog.over(late, clock()):
        assert stopped.wait(30.0)
    dog.retire()
