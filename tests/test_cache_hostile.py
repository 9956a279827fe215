"""The cache in a hostile world: lookalike questions, stampedes, tenants, threads, memory."""

import asyncio
import contextlib
import math
import random
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cascade
from cascade.cache import ResultCache, entry
from cascade.inputs import row_caster
from cascade.keys import key_maker
from cascade.protocols import InputSpec
from cascade.testing import async_router_for, router_for, run_virtual, scripted
from cascade.types import Disposition, Finish, Reason

HIT = Finish(Disposition.CACHED, Reason.CACHE, "small", rank=0)
LONG = 60.0  # seconds after which a test that hangs is failed


def tree(version="1", **cache):
    return {
        "version": 1, "name": "p", "deadline": "60s", "cache": {"entries": 20_000, **cache},
        "tiers": [{"name": "small", "kind": "external", "version": version},
                  {"name": "large", "kind": "external", "version": "1"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip


# -- lookalikes ------------------------------------------------------------------------------------


def content(x):
    """What was asked, in words that no two different questions share."""
    if isinstance(x, np.ndarray):
        return f"{x.dtype.str} {x.shape} {x.tobytes().hex()}"
    if isinstance(x, np.generic):
        return f"scalar {x.dtype.str} {x.tobytes().hex()}"
    if isinstance(x, float):
        return f"float {struct.pack('<d', x).hex()}"
    if isinstance(x, (list, tuple)):
        return f"{type(x).__name__}({', '.join(map(content, x))})"
    if isinstance(x, dict):
        return f"dict({', '.join(f'{k!r}: {content(v)}' for k, v in sorted(x.items()))})"
    return f"{type(x).__name__} {x!r}"


def nan(payload):
    return struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000 | payload))[0]


def relatives(draw):
    """Draw questions that are easily taken for one another."""
    n = draw.randrange(-3, 300)
    raw = draw.randbytes(draw.choice([0, 4, 8, 16, 24]))
    numbers = np.frombuffer(raw, "u1")
    word = "".join(draw.choices("ab01é\0", k=draw.randrange(4)))
    payload = draw.randrange(1, 2**51)
    yield from (n, float(n), n == 1, str(n), str(n).encode(), np.int64(n), np.float64(n))
    yield from (word, word.encode(), [word], (word,), {"a": word}, {"b": word}, [[word]])
    yield from (0.0, -0.0, 0, False, [None], "None", nan(payload), nan(payload ^ 1), math.nan)
    yield from (raw, raw.hex(), numbers, numbers.reshape(1, -1), numbers.reshape(-1, 1))
    for dtype in ("<i4", ">i4", "<f4", ">f4", "<u2", "<f2", "<M8[s]", "<M8[ms]", "|S4"):
        if len(raw) % np.dtype(dtype).itemsize == 0:
            array = np.frombuffer(raw, dtype)
            yield from (array, {"x": array}, [array])
            if len(array) % 2 == 0:
                yield array.reshape(2, -1)
    many = np.arange(2000, dtype="<i4")
    many[draw.randrange(2000)] = n
    yield from (many, many.reshape(2, -1), many.view("<f4"), many.astype(">i4"), many.tobytes())


def echo(version):
    """A tier whose answer says what was asked, by whom, and of which version."""
    return cascade.tier(
        lambda x, job: ((content(x), job.tenant, version), 1.0),
        returns="pairs", rows="one", context=True, version=version,
    )  # fmt: skip


def no_false_hit(pairs, digest="auto"):
    """Ask each question next to its lookalikes; a false hit answers another question."""
    draw, asked, hits = random.Random(6), 0, 0
    with router_for(tree("0", digest=digest), small=echo("0")) as router:
        while asked < pairs:
            version = str(draw.randrange(3))
            router.swap(
                cascade.Policy.from_dict(tree(version, digest=digest)),
                tiers={"small": echo(version), "large": echo("1")},
            )
            for _ in range(20):
                questions = list(relatives(draw))
                for x in questions + draw.sample(questions, 10):
                    tenant = draw.choice([None, "", "a", "b", "None"])
                    outcome = router.route(x, tenant=tenant)
                    assert outcome.value == (content(x), tenant, version)
                    hits += outcome.disposition == "cached"
                asked += len(questions)
    assert hits > asked / 50  # else nothing was shown


@pytest.mark.parametrize("digest", ["auto", "blake2b"])
def test_no_false_hit_among_lookalikes(digest):
    no_false_hit(8_000, digest)


@pytest.mark.slow
def test_no_false_hit_among_a_million_lookalikes():
    no_false_hit(1_000_000)


def test_rows_that_a_model_sees_alike_share_a_key_and_no_others():
    draw = np.random.default_rng(6)
    for shape in [(3,), (2, 3), (None,), (1500,)]:
        spec = InputSpec("x", "float32", shape)
        cast, key = row_caster([spec]), key_maker([spec])
        seen = {}
        for i in range(1_500):
            row = draw.integers(-2, 3, [3 if n is None else n for n in shape]) * 0.5
            row = row.astype(["<f4", ">f4", "<f8", "<f2"][i % 4])
            if i % 5 == 0:
                row *= -1.0  # signs of zero
            given = cast(row)
            assert seen.setdefault(key(given), given.tobytes()) == given.tobytes()
        assert len(seen) > 50


def test_tenants_never_share_and_cannot_tell():
    """What a tenant sees does not depend on whether another has asked before."""

    def seen(others):
        rows = []
        small = scripted(lambda x: (x.upper(), 0.9))
        with router_for(tree(), small=small, large="top") as router:
            for tenant in others:
                for x in ("x", "y"):
                    router.route(x, tenant=tenant)
            for x in ("x", "y", "x"):
                shown = router.route(x, tenant="me").to_dict()
                for measured in ("id", "latency", "steps", "deadline"):
                    shown.pop(measured)
                rows.append(shown)
        return rows, len(small.calls)

    alone, calls = seen([])
    beside, with_others = seen([None, *(f"tenant {i}" for i in range(40))])
    assert beside == alone
    assert [row["disposition"] for row in alone] == ["accepted", "accepted", "cached"]
    assert with_others == calls + 2 * 41  # nobody was answered from another's entry


# -- stampedes -------------------------------------------------------------------------------------


def test_a_thousand_tasks_on_one_key_are_one_computation():
    small = scripted(default=("cat", 0.9), seconds=0.05, asynchronous=True)

    async def main(loop):
        router = async_router_for(tree(), loop=loop, small=small)
        return await asyncio.gather(*(router.route("meow") for _ in range(1_000)))

    outcomes = run_virtual(main)
    assert small.calls == ["meow"]
    assert {o.value for o in outcomes} == {"cat"}
    assert len({o.id for o in outcomes}) == 1_000


def test_a_hundred_threads_on_one_key_are_one_computation():
    entered, go, calls = threading.Event(), threading.Event(), []

    def answer(x):
        calls.append(x)
        entered.set()
        assert go.wait(LONG)
        return "cat", 0.9

    small = cascade.tier(answer, returns="pairs", rows="one")
    with router_for(tree(), small=small) as router, ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(router.route, "meow") for _ in range(100)]
        assert entered.wait(LONG)
        go.set()
        outcomes = [future.result(LONG) for future in asked]
    assert calls == ["meow"]  # shared, or from the cache
    assert {o.value for o in outcomes} == {"cat"}


# -- what callers and tiers may do to values -------------------------------------------------------


FIELDS = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])[0]


def unlock(array):
    array.flags.writeable = True
    array[0] = 1.0


@pytest.mark.parametrize(
    ("value", "spoil"),
    [
        (np.zeros(3), unlock),
        (np.zeros(3), lambda v: v.__setitem__(0, 1.0)),
        (FIELDS, lambda v: v.__setitem__("a", 9)),
        ((FIELDS.copy(),), lambda v: v[0].__setitem__("a", 9)),
        ({"a": [1, 2]}, lambda v: v["a"].append(3)),
        ([np.zeros(2)], lambda v: v[0].__setitem__(0, 5)),
    ],
    ids=["unlock", "write", "fields", "fields in a tuple", "nested", "listed"],
)  # fmt: skip
def test_no_caller_can_change_what_others_get(value, spoil):
    kept = entry(value, 0.9, HIT)
    before = repr(kept.out())
    for each in (kept.out(), value):  # another caller's, and the leader's own
        with contextlib.suppress(ValueError):  # refused: as good as a copy
            spoil(each)
        assert repr(kept.out()) == before


def test_an_array_without_elements_is_kept():
    assert entry(np.zeros((0, 3)), 0.9, HIT).out().shape == (0, 3)


@pytest.mark.parametrize("value", [math.nan, np.array([1.0, math.nan]), np.float32("nan")], ids=str)
def test_a_value_that_is_nan_is_a_fault_and_never_stored(value):
    small = scripted(lambda _: (value, 0.9))
    with router_for(tree(), small=small, large="sure") as router:
        assert [router.route("x", use_cache=False).tier for _ in range(2)] == ["large"] * 2
        router.route_many(["x"], use_cache=True)
        held = router._service.plan.engine.cache.entries.values()
        assert [item.out() if hasattr(item, "out") else item.value for item in held] == ["sure"]


@pytest.mark.parametrize("value", [(1, math.nan), {"a": [math.nan]}], ids=str)
def test_a_nan_is_never_stored(value):
    small = scripted(lambda _: (value, 0.9))
    with router_for(tree(), small=small) as router:
        assert [str(router.route("x").disposition) for _ in range(2)] == ["accepted"] * 2
        router.route_many(["x"], use_cache=True)
        assert len(router._service.plan.engine.cache) == 0


def test_what_cannot_be_copied_is_answered_and_not_stored():
    small = scripted(lambda _: (threading.Lock(), 0.9))
    with router_for(tree(), small=small) as router:
        assert [str(router.route("x").disposition) for _ in range(2)] == ["accepted"] * 2
        many = router.route_many(["x", "y"], use_cache=True)
        assert [str(d) for d in many.dispositions] == ["accepted"] * 2


class Bag:
    def __init__(self, what):
        self.what = what


@pytest.mark.parametrize(
    "value",
    [Bag("x" * 5_000), Bag({"a": [b"x" * 5_000]}), np.array(["x" * 5_000, None], dtype=object)],
    ids=["object", "nested", "array"],
)
def test_what_objects_hold_is_counted(value):
    cache = ResultCache(10, 5_000)
    cache.put("key", entry(value, 0.9, HIT), now=0)
    assert len(cache) == 0


# -- threads ---------------------------------------------------------------------------------------


def hammer(operations, threads=4):
    """Have threads look up, store, evict and expire at once; every answer must be its own."""
    wrong, before = [], sys.getswitchinterval()
    settings = {"entries": 300, "bytes": "200kB", "ttl": "1ms"}
    small = cascade.tier(lambda x: (x * 3, 0.9), returns="pairs", rows="one")

    def work(seed):
        draw = random.Random(seed)
        try:
            for _ in range(operations):
                x = draw.randrange(1_000)
                if router.route(x).value != x * 3:
                    wrong.append(x)
        except BaseException as error:  # noqa: BLE001  whatever it is, it must not be
            wrong.append(error)

    with router_for(tree(**settings), small=small) as router:
        cache = router._service.plan.engine.cache
        sys.setswitchinterval(1e-5)
        try:
            workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            sys.setswitchinterval(before)
        assert wrong == []
        assert router.statistics().requests == threads * operations
        assert cache.size == sum(item.size for item in cache.entries.values()) <= 200_000
        assert len(cache) <= 300
        assert not router._service.plan.engine.flights


def test_threads_do_not_corrupt_the_cache():
    hammer(4_000)


def test_threads_do_not_corrupt_a_cache_that_guards_itself(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    hammer(2_000)


@pytest.mark.slow
def test_threads_do_not_corrupt_the_cache_in_a_million_operations_each():
    hammer(1_000_000)


# -- memory ----------------------------------------------------------------------------------------

MEASURE = """
import gc, os, sys
import numpy as np
from cascade.cache import ResultCache, entry
from cascade.types import Disposition, Finish, Reason

class Answer:
    def __init__(self, label, scores):
        self.label, self.scores = label, scores

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

hit = Finish(Disposition.CACHED, Reason.CACHE, "small", rank=0)
make = {
    "labels": lambda i: ("a label", b"%0256d" % i),
    "texts": lambda i: ("x" * (i % 700), "question number %d" % i),
    "vectors": lambda i: (np.full(64, float(i)), b"%016d" % i),
    "trees": lambda i: ({"label": i, "also": [i, i + 1.5]}, b"%016d" % i),
    "objects": lambda i: (Answer("label %d" % i, [i, i + 1.5]), b"%016d" % i),
    "views": lambda i: ([np.full((64, 64), float(i))[0]], b"%016d" % i),
}[sys.argv[1]]
bound = 60_000_000
cache = ResultCache(10**7, bound)
before, worst = resident(), 0
for i in range(int(sys.argv[2])):
    value, key = make(i)
    cache.put(key, entry(value, 0.9, hit), i)
    worst = max(worst, cache.size)
assert worst <= bound, worst
print((resident() - before) / cache.size)
"""


def measured(kind, puts):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(puts)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "texts", "vectors", "trees", "objects", "views"])
def test_resident_memory_is_what_is_counted(kind):
    assert measured(kind, 1_000_000) <= 1.3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["objects", "views"])
def test_resident_memory_of_copies_is_what_is_counted(kind):
    assert measured(kind, 60_000) <= 1.3


@pytest.mark.parametrize(("share", "kept"), [({"per_tenant": "50%"}, 40), ({}, 0)])
def test_a_tenant_that_floods_leaves_the_others_their_place(share, kept):
    """And without a share it does not: that is what the share is for."""
    with router_for(tree(entries=100, **share), small=scripted(default=("a", 0.9))) as r:
        for i in range(40):
            r.route(f"mine {i}", tenant="me")
        for i in range(1_000):
            r.route(f"flood {i}", tenant="other")
        again = [r.route(f"mine {i}", tenant="me") for i in range(40)]
        assert sum(outcome.disposition == "cached" for outcome in again) == kept
        cache = r._service.plan.engine.cache
        assert cache.size == sum(item.size for item in cache.entries.values())


def test_the_size_of_a_tenants_key_counts():
    with router_for(tree(), small=scripted(default=("a", 0.9))) as router:
        cache = router._service.plan.engine.cache
        router.route("x" * 900)
        alone = cache.size
        router.route("x" * 900, tenant="a tenant")
        assert cache.size - alone > alone
