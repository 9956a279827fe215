"""Files that never end, or are no files: refused at once, with no memory to speak of."""

import json
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cascade import Certificate, ModelIntegrityError, Policy, PolicyError, Router
from cascade.bundle import load_golden, load_profile

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")

TIERS = [{"name": "a", "kind": "external", "version": "1"}, {"name": "b", "kind": "onnx",
         "model": "m.onnx"}]  # fmt: skip
TREE = {"version": 1, "name": "p", "tiers": TIERS, "escalation": {"thresholds": [0.5]}}


def read_policy(path):
    Policy.from_yaml(path, env={})


def read_calibration(path):
    tier = TIERS[0] | {"confidence": {"calibration": path.name}}
    Policy.from_dict(TREE | {"tiers": [tier, TIERS[1]]}, root=path.parent)


def read_beside(what, load):
    def read(path):
        load(Policy.from_dict(TREE | {what: path.name}, root=path.parent))

    return read


def read_model(path):
    tiers = [{"name": "b", "kind": "onnx", "model": path.name, "sha256": "0" * 64}]
    Router(Policy.from_dict({"version": 1, "name": "p", "tiers": tiers}, root=path.parent), env={})


READERS = {
    "policy": read_policy,
    "certificate": Certificate.load,
    "calibration": read_calibration,
    "profile": read_beside("profile", load_profile),
    "golden": read_beside("golden", load_golden),
    "model": read_model,
}


@pytest.fixture
def impatient():
    """Fail rather than wait."""

    def too_long(*_):
        msg = "it waits"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "nothing"])
def test_what_is_no_file_is_not_read(tmp_path, what, kind):
    path = tmp_path / "odd"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    wanted = ModelIntegrityError if what == "model" else PolicyError
    tracemalloc.start()
    try:
        with pytest.raises(wanted, match="cannot be read") as caught:
            READERS[what](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert str(caught.value).count("odd") == 1


@pytest.mark.parametrize("what", [what for what in READERS if what != "model"])
def test_what_is_huge_is_not_read_to_its_end(tmp_path, what):
    path = tmp_path / "odd"
    with path.open("wb") as file:
        file.truncate(2**33)  # takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError, match=r"more than .* bytes"):
            READERS[what](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("what", ["certificate", "calibration", "profile", "golden"])
def test_nor_is_an_object_of_too_many_entries(tmp_path, what):
    path = tmp_path / "odd"
    path.write_text(json.dumps({f"t{i}": 0 for i in range(10_001)}))
    with pytest.raises(PolicyError, match=r"odd:1:1: not .*: more than 10,000 entries"):
        READERS[what](path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
def test_what_is_refused_is_not_left_open(tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    os.mkfifo(tmp_path / "pipe")
    before = count()
    for _ in range(5):
        for odd in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(PolicyError):
                read_policy(odd)
    assert count() == before


def test_a_name_that_no_file_can_have(tmp_path):
    for read in (read_policy, Certificate.load):
        with pytest.raises(PolicyError, match="no file can have this name"):
            read(tmp_path / "a\0b")


# -- what golden inputs and profiles may say -------------------------------------------------------


def golden(tmp_path, **more):
    array = {"dtype": "float32", "data": [[1.0]]}
    tree = {"b": {"inputs": {"x": array}, "outputs": {"p": array}} | more}
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(tree))
    policy = Policy.from_dict(TREE | {"golden": "golden.json"}, root=tmp_path)
    return load_golden(policy)["b"]


@pytest.mark.parametrize("dtype", ["S2000000000", "U500000000", "<U5", "object"])
def test_text_takes_the_room_that_it_needs(tmp_path, dtype):
    tracemalloc.start()
    try:
        held = golden(tmp_path, inputs={"x": {"dtype": dtype, "data": ["a", "bc"]}})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held.inputs["x"].tolist() == ["a", "bc"]
    assert peak < 2_000_000


def test_so_does_text_without_a_dtype(tmp_path):
    texts = ["x" * 1_000_000] + [""] * 10_000
    tracemalloc.start()
    try:
        held = golden(tmp_path, inputs={"x": texts})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held.inputs["x"].shape == (10_001,)
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "array",
    [{"dtype": "V9", "data": [1]}, {"dtype": "M8[s]", "data": [1]}, {"dtype": 5, "data": [1]},
     {"dtype": "c16", "data": [1]}, {"dtype": [["a", "i4"]], "data": [1]}, {"data": [1]},
     {"dtype": "int8", "data": ["x"]}, [[1], [1, 2]], [{"a": 1}], 5, [], [None]],
)  # fmt: skip
def test_arrays_that_are_none_are_said_to_be(tmp_path, array):
    with pytest.raises(PolicyError, match=r"golden\.json:1:\d+: b\.inputs\.x: no golden input of"):
        golden(tmp_path, inputs={"x": array})


def test_numbers_keep_the_dtype_that_they_were_written_in(tmp_path):
    held = golden(tmp_path, inputs={"x": {"dtype": "uint8", "data": [[1]]}, "y": [[1.5]]})
    assert (held.inputs["x"].dtype, held.inputs["y"].dtype) == (np.uint8, np.float64)


def test_inputs_are_batches_of_one_length(tmp_path):
    with pytest.raises(PolicyError, match=r"b\.inputs\.y: .*expected a batch, as long as"):
        golden(tmp_path, inputs={"x": [[1]], "y": [[1], [2]]})


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"per_row": 1}, r"b\.overhead: no profile of tier 'b': missing"),
        ({"overhead": 1}, r"b\.per_row: no profile of tier 'b': missing"),
        ({"overhead": 1e308, "per_row": 1}, r"b\.overhead: .*between 0 and 1e\+06, got 1e\+308"),
        ({"overhead": True, "per_row": 1}, r"b\.overhead: .*got True"),
        ({"overhead": "1", "per_row": 1}, r"b\.overhead: .*got '1'"),
        ({"overhead": 1, "perrow": 1}, r"b\.perrow: .*unknown key; did you mean 'per_row'"),
        (5, "b: .*expected an object, got 5"),
    ],
)
def test_a_profile_says_what_is_wrong_with_it(tmp_path, profile, words):
    (tmp_path / "profile.json").write_text(json.dumps({"b": profile}))
    policy = Policy.from_dict(TREE | {"profile": "profile.json"}, root=tmp_path)
    with pytest.raises(PolicyError, match=r"profile\.json:1:\d+: " + words):
        load_profile(policy)


@pytest.mark.parametrize("what", ["profile", "golden"])
def test_a_misspelt_tier_is_named(tmp_path, what):
    tiers = [{"name": name, "kind": "external"} for name in ("small", "large")]
    sound = {"overhead": 0.1, "per_row": 0.1} if what == "profile" else {
        "inputs": {"x": [[1]]}, "outputs": {"p": [[1]]}}  # fmt: skip
    path = tmp_path / "beside.json"
    policy = Policy.from_dict(TREE | {"tiers": tiers, what: path.name}, root=tmp_path)
    load = load_profile if what == "profile" else load_golden
    path.write_text(json.dumps({"smal": sound, "large": sound}))
    with pytest.raises(PolicyError, match=r":1:2: smal: .*did you mean 'small'\?"):
        load(policy)
    path.write_text(json.dumps({"large": sound, "small": sound, "smaller": sound}))
    assert set(load(policy)) >= {"small", "large"}
