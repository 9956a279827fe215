"""What the process of a process lane says over its socket, without the process."""

import pickle
import socket
import threading
from multiprocessing.connection import Connection

import numpy as np
import pytest

import cascade
from cascade import Policy
from cascade.binding import bind
from cascade.lanes.child import main
from tests.lanes.targets import double, fail

REST = (5.0, "acme", None)  # seconds left, tenant, metadata


def bound(function):
    spec = {"name": "it", "kind": "external"}
    policy = Policy.from_dict({"version": 1, "name": "p", "tiers": [spec]})
    target = cascade.tier(function, returns="pairs", rows="one")
    (tier,) = bind(policy, {"it": target}, None, {}, asynchronous=False)
    return pickle.dumps(tier)


@pytest.fixture
def start():
    """Have a thread be the child, and return our end."""
    threads, pipes = [], []

    def begin(recipe):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=main, args=(theirs.detach(),), daemon=True)
        thread.start()
        threads.append(thread)
        pipes.append(Connection(ours.detach()))
        pipes[-1].send_bytes(recipe)
        return pipes[-1]

    yield begin
    for pipe in pipes:
        pipe.close()
    for thread in threads:
        thread.join(10.0)
        assert not thread.is_alive()  # it ends with the one that it answers


def test_it_answers_rows_and_batches_until_the_line_is_closed(start):
    pipe = start(bound(double))
    assert pipe.recv() == (True, ())
    pipe.send(("one", 21, *REST))
    good, (value, sure, remarks) = pipe.recv()
    assert (good, value, sure, remarks[0][1]) == (True, 42, 0.9, None)
    pipe.send(("rows", [1, 2, 3], 3, *REST))
    good, (values, sure, remarks) = pipe.recv()
    assert (good, values.tolist(), sure.tolist()) == (True, [2, 4, 6], [0.9] * 3)
    assert len(remarks) == 3
    pipe.send(("probe", [5], 1, *REST))
    assert pipe.recv()[0] is True


def test_a_fault_is_told_without_its_cause_and_the_next_is_answered(start):
    pipe = start(bound(fail))
    assert pipe.recv()[0] is True
    pipe.send(("one", "bad", *REST))
    good, error = pipe.recv()
    assert (good, type(error), error.__cause__) == (False, cascade.TierError, None)
    assert "tier 'it' raised KeyError" in str(error)
    pipe.send(("one", "good", *REST))
    assert pipe.recv()[1][:2] == ("good", 0.9)


def test_what_cannot_be_opened_is_told_and_ends_it(start):
    pipe = start(b"no tier at all")
    good, error = pipe.recv()
    assert (good, isinstance(error, cascade.TierError)) == (False, True)


def test_a_model_is_probed_for_its_own_outputs(start, tmp_path):
    from tests.tiers.test_onnx import identity

    identity(tmp_path / "m.onnx", 2)
    spec = {"name": "it", "kind": "onnx", "model": "m.onnx"}
    policy = Policy.from_dict({"version": 1, "name": "p", "tiers": [spec]}, root=tmp_path)
    (tier,) = bind(policy, {}, tmp_path, {}, asynchronous=False)
    pipe = start(pickle.dumps(tier))
    (spec,) = pipe.recv()[1]
    assert (spec.name, spec.shape) == ("x", (2,))
    rows = np.array([[0.25, 0.75]], dtype=np.float32)
    pipe.send(("probe", rows, 1, *REST))
    good, outputs = pipe.recv()
    assert good
    assert outputs[0].tolist() == [[0.25, 0.75]]
